#include "worker/engine/sampler.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <float.h>
#include <math.h>

#define V 8

static const inference_sampling greedy = {
    .temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f};

static inference_sampling hot(uint64_t seed)
{
    return (inference_sampling){
        .temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .seed = seed};
}

static sampler *make(int32_t n_vocab)
{
    sampler *s = NULL;
    CHECK_STATUS(sampler_create(n_vocab, &base_heap, &s), BASE_OK);
    return s;
}

static void greedy_takes_the_largest_and_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    static const struct {
        float logits[V];
        int32_t want;
    } rows[] = {
        {{0, 1, 5, 2, -1, 0, 3, 4}, 2},
        {{7, 1, 5, 2, -1, 0, 3, 7}, 0},
        {{-3, -2, -2, -5, -9, -2, -8, -4}, 1},
        {{NAN, -9, NAN, -8, -9, -9, NAN, -9}, 3},
        {{NAN, NAN, NAN, NAN, NAN, -INFINITY, NAN, NAN}, 5},
        {{NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}, 0},
        {{1, INFINITY, 3, INFINITY, 0, 0, 0, 0}, 1},
    };
    sampler *s = make(V);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(sampler_pick(s, rows[i].logits, &greedy, NULL, 0, 9), rows[i].want);
    }
    sampler_destroy(s);
}

static void the_penalty_divides_positive_and_multiplies_negative_logits(void **state)
{
    (void)state;
    const float logits[V] = {3.0f, 2.0f, 1.4f, -1.0f, -0.6f, -9, -9, -9};
    inference_sampling p = greedy;
    sampler *s = make(V);
    uint64_t seen = 1u << 0;

    p.repetition_penalty = 1.4f; /* 3 / 1.4 = 2.14 > 2 */
    assert_int_equal(sampler_pick(s, logits, &p, &seen, 0, 0), 0);
    p.repetition_penalty = 1.6f; /* 1.875 < 2 */
    assert_int_equal(sampler_pick(s, logits, &p, &seen, 0, 0), 1);
    seen = 1u << 0 | 1u << 1 | 1u << 2; /* 1.5, 1.0, 0.7 at 2 */
    p.repetition_penalty = 2.0f;
    assert_int_equal(sampler_pick(s, logits, &p, &seen, 0, 0), 0);

    const float negative[V] = {-1.0f, -1.5f, -9, -9, -9, -9, -9, -9};
    seen = 1;
    p.repetition_penalty = 1.4f;
    assert_int_equal(sampler_pick(s, negative, &p, &seen, 0, 0), 0);
    p.repetition_penalty = 1.6f;
    assert_int_equal(sampler_pick(s, negative, &p, &seen, 0, 0), 1);
    p.repetition_penalty = 0.5f; /* a reward */
    assert_int_equal(sampler_pick(s, negative, &p, &seen, 0, 0), 0);
    sampler_destroy(s);
}

/* The ids that 4000 draws give, as a bitset. */
static uint64_t drawn_set(sampler *s, const float *logits, const inference_sampling *p)
{
    uint64_t set = 0;
    for (int64_t position = 0; position < 4000; position++) {
        set |= (uint64_t)1 << sampler_pick(s, logits, p, NULL, 0, position);
    }
    return set;
}

/* Probabilities 0.4, 0.3, 0.15, 0.1, 0.05 on ids 5, 2, 7, 0, 1; nothing on 3, 4, 6. */
static void fill_known(float logits[V])
{
    static const struct {
        int32_t id;
        double probability;
    } of[] = {{5, 0.4}, {2, 0.3}, {7, 0.15}, {0, 0.1}, {1, 0.05}};
    for (int i = 0; i < V; i++) {
        logits[i] = -INFINITY;
    }
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        logits[of[i].id] = (float)(log(of[i].probability) + 3.0);
    }
}

static void top_k_top_p_and_min_p_leave_exactly_their_sets(void **state)
{
    (void)state;
    enum { A = 1 << 5, B = 1 << 2, C = 1 << 7, D = 1 << 0, E = 1 << 1 };
    static const struct {
        int32_t top_k;
        float top_p, min_p;
        uint64_t want;
    } rows[] = {
        {0, 1.0f, 0.0f, A | B | C | D | E},
        {1, 1.0f, 0.0f, A},
        {3, 1.0f, 0.0f, A | B | C},
        {100, 1.0f, 0.0f, A | B | C | D | E},
        {0, 0.39f, 0.0f, A},
        {0, 0.41f, 0.0f, A | B},
        {0, 0.8f, 0.0f, A | B | C},
        {0, 1e-6f, 0.0f, A},
        {0, 1.0f, 0.2f, A | B | C | D}, /* 0.1 / 0.4 = 0.25 stays, 0.125 goes */
        {0, 1.0f, 0.3f, A | B | C},     /* 0.375 stays */
        {0, 1.0f, 1.0f, A},
        {2, 0.58f, 0.0f, A | B}, /* 0.4 / 0.7 = 0.571 is not enough */
        {2, 0.56f, 0.0f, A},     /* and here it is */
        {0, 0.8f, 0.5f, A | B},
    };
    float logits[V];
    sampler *s = make(V);
    fill_known(logits);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        inference_sampling p = hot(11);
        p.top_k = rows[i].top_k;
        p.top_p = rows[i].top_p;
        p.min_p = rows[i].min_p;
        assert_int_equal(drawn_set(s, logits, &p), rows[i].want);
    }
    sampler_destroy(s);
}

static void infinite_logits_share_the_draws_and_nan_gets_none(void **state)
{
    (void)state;
    const float logits[V] = {0, INFINITY, NAN, INFINITY, 5, -INFINITY, NAN, 1};
    const float nothing[V] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    const inference_sampling p = hot(3);
    sampler *s = make(V);
    assert_int_equal(drawn_set(s, logits, &p), 1 << 1 | 1 << 3);
    assert_int_equal(drawn_set(s, nothing, &p), 1 << 0);
    sampler_destroy(s);
}

/* Pearson's statistic of n draws against probabilities of softmax(logits / temperature). */
static double chi_square(sampler *s, const float *logits, const inference_sampling *p, int n_draws)
{
    int counts[V] = {0};
    double weights[V];
    double total = 0.0;
    double chi = 0.0;
    for (int i = 0; i < n_draws; i++) {
        counts[sampler_pick(s, logits, p, NULL, 0, i)]++;
    }
    for (int i = 0; i < V; i++) {
        weights[i] = exp((double)logits[i] / (double)p->temperature);
        total += weights[i];
    }
    for (int i = 0; i < V; i++) {
        const double want = n_draws * weights[i] / total;
        chi += (counts[i] - want) * (counts[i] - want) / want;
    }
    return chi;
}

static void draws_follow_the_distribution_at_any_temperature(void **state)
{
    (void)state;
    const float logits[V] = {0.1f, 1.2f, -0.4f, 0.7f, 0.0f, -1.1f, 0.3f, 0.9f};
    sampler *s = make(V);
    for (int i = 0; i < 3; i++) {
        inference_sampling p = hot(20260101 + (uint64_t)i);
        p.temperature = (const float[]){0.5f, 1.0f, 3.0f}[i];
        /* 7 degrees of freedom: above 24.3 once in a thousand seeds. */
        assert_true(chi_square(s, logits, &p, 20000) < 24.3);
        /* The same through the sorted path, which is taken for a top_k below V. */
        p.top_p = 0.999999f;
        assert_true(chi_square(s, logits, &p, 20000) < 24.3);
    }
    sampler_destroy(s);
}

static void a_draw_depends_on_seed_sample_and_position_alone(void **state)
{
    (void)state;
    float logits[V];
    sampler *a = make(V);
    sampler *b = make(V);
    int differ[3] = {0, 0, 0};
    fill_known(logits);
    for (int64_t position = 0; position < 200; position++) {
        const inference_sampling p = hot(77);
        const inference_sampling other = hot(78);
        const int32_t id = sampler_pick(a, logits, &p, NULL, 0, position);
        /* b has another past: it draws backwards, and other things in between. */
        (void)sampler_pick(b, logits, &other, NULL, 5, 199 - position);
        assert_int_equal(sampler_pick(b, logits, &p, NULL, 0, position), id);
        differ[0] += sampler_pick(b, logits, &other, NULL, 0, position) != id;
        differ[1] += sampler_pick(b, logits, &p, NULL, 1, position) != id;
        differ[2] += sampler_pick(b, logits, &p, NULL, 0, position + 1) != id;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(differ[i], 80, 180); /* independent draws differ 72 % of the time */
    }
    sampler_destroy(b);
    sampler_destroy(a);
}

static void a_tiny_temperature_is_greedy(void **state)
{
    (void)state;
    const float logits[V] = {1, 2, 3, 4, 5, 6, 7, 7.5f};
    inference_sampling p = hot(1);
    sampler *s = make(V);
    p.temperature = 1e-30f;
    assert_int_equal(drawn_set(s, logits, &p), 1 << 7);
    sampler_destroy(s);
}

static void logprobs_are_the_log_softmax_in_falling_order(void **state)
{
    (void)state;
    float logits[V];
    float own = 0.0f;
    int32_t ids[V];
    float tops[V];
    sampler *s = make(V);

    fill_known(logits);
    sampler_logprobs(s, logits, 7, 4, &own, ids, tops);
    assert_true(fabs((double)own - log(0.15)) < 1e-5);
    static const int32_t want_ids[] = {5, 2, 7, 0};
    static const double want[] = {0.4, 0.3, 0.15, 0.1};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ids[i], want_ids[i]);
        assert_true(fabs((double)tops[i] - log(want[i])) < 1e-5);
    }
    sampler_logprobs(s, logits, 3, 0, &own, NULL, NULL); /* impossible: finite all the same */
    assert_true(own == -FLT_MAX);

    const float ties[V] = {NAN, 1, 2, 2, 1, 2, NAN, 1};
    sampler_logprobs(s, ties, 2, V, &own, ids, tops);
    static const int32_t want_ties[] = {2, 3, 5, 1, 4, 7, 0, 6};
    for (int i = 0; i < V; i++) {
        assert_int_equal(ids[i], want_ties[i]);
        assert_true(isfinite(tops[i]));
    }
    const float infinite[V] = {0, INFINITY, INFINITY, 0, 0, 0, 0, 0};
    sampler_logprobs(s, infinite, 2, 1, &own, ids, tops);
    assert_true(fabs((double)own - log(0.5)) < 1e-6);
    sampler_destroy(s);
}

static void a_large_vocabulary_keeps_the_same_set_as_sorting(void **state)
{
    (void)state;
    enum { N = 5000, K = 17 };
    static float logits[N];
    inference_sampling p = hot(5);
    sampler *s = make(N);
    for (int i = 0; i < N; i++) {
        logits[i] = (float)base_random_normal(9, 0, (uint64_t)i);
    }
    p.top_k = K;
    p.temperature = 5.0f;
    for (int64_t position = 0; position < 2000; position++) {
        const int32_t id = sampler_pick(s, logits, &p, NULL, 0, position);
        int n_better = 0;
        for (int i = 0; i < N; i++) {
            n_better += logits[i] > logits[id];
        }
        assert_true(n_better < K);
    }
    sampler_destroy(s);
}

static void create_refuses_no_vocabulary_and_survives_failed_allocations(void **state)
{
    (void)state;
    sampler *s = NULL;
    CHECK_STATUS(sampler_create(0, &base_heap, &s), BASE_BAD_INPUT);
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        const base_status st = sampler_create(16, &mem, &s);
        if (st == BASE_OK) {
            assert_true(k > 0);
            sampler_destroy(s);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(s);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_ties_go_to_the_lower_id),
        cmocka_unit_test(the_penalty_divides_positive_and_multiplies_negative_logits),
        cmocka_unit_test(top_k_top_p_and_min_p_leave_exactly_their_sets),
        cmocka_unit_test(infinite_logits_share_the_draws_and_nan_gets_none),
        cmocka_unit_test(draws_follow_the_distribution_at_any_temperature),
        cmocka_unit_test(a_draw_depends_on_seed_sample_and_position_alone),
        cmocka_unit_test(a_tiny_temperature_is_greedy),
        cmocka_unit_test(logprobs_are_the_log_softmax_in_falling_order),
        cmocka_unit_test(a_large_vocabulary_keeps_the_same_set_as_sorting),
        cmocka_unit_test(create_refuses_no_vocabulary_and_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
