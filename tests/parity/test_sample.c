#include "kernels/op_sample.h"

#include "tests/support/parity.h"

#include <float.h>
#include <string.h>

#define V 8

static const kern_sample_row greedy = {.top_p = 1.0f, .penalty = 1.0f};

static kern_sample_row hot(void)
{
    return (kern_sample_row){.temperature = 1.0f, .top_p = 1.0f, .penalty = 1.0f};
}

/* The token of one row. */
static int32_t pick(kern_ctx *ctx, const float *logits, int32_t n_vocab, kern_sample_row row,
                    uint64_t *seen)
{
    int32_t id = -1;
    const kern_sample_args args = {.logits = logits,
                                   .rows = &row,
                                   .ids = &id,
                                   .seen = seen,
                                   .n_rows = 1,
                                   .n_vocab = n_vocab,
                                   .n_slots = 1};
    CHECK_STATUS(kern_sample(ctx, &args), BASE_OK);
    return id;
}

static int32_t draw(kern_ctx *ctx, const float *logits, kern_sample_row row, uint64_t seed,
                    uint64_t position)
{
    row.random = base_random_u64(seed, 0, position);
    return pick(ctx, logits, V, row, NULL);
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
        {{-3, -0.0f, 0.0f, -5, -9, -2, -8, -4}, 1},
        {{NAN, -9, NAN, -8, -9, -9, NAN, -9}, 3},
        {{NAN, NAN, NAN, NAN, NAN, -INFINITY, NAN, NAN}, 5},
        {{NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN}, 0},
        {{1, INFINITY, 3, INFINITY, 0, 0, 0, 0}, 1},
    };
    kern_ctx *ctx = parity_ctx(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(pick(ctx, rows[i].logits, V, greedy, NULL), rows[i].want);
    }
    kern_ctx_destroy(ctx);
}

static void the_penalty_divides_positive_and_multiplies_negative_logits(void **state)
{
    (void)state;
    static const float positive[V] = {3.0f, 2.0f, 1.4f, -1.0f, -0.6f, -9, -9, -9};
    static const float negative[V] = {-1.0f, -1.5f, -9, -9, -9, -9, -9, -9};
    static const struct {
        const float *logits;
        float penalty;
        uint64_t seen;
        int32_t want;
    } rows[] = {
        {positive, 1.4f, 1, 0}, /* 3 / 1.4 = 2.14 > 2 */
        {positive, 1.6f, 1, 1}, /* 1.875 < 2 */
        {positive, 2.0f, 7, 0}, /* 1.5, 1.0, 0.7 */
        {negative, 1.4f, 1, 0}, {negative, 1.6f, 1, 1}, {negative, 0.5f, 1, 0}, /* a reward */
    };
    kern_ctx *ctx = parity_ctx(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t seen = rows[i].seen;
        kern_sample_row row = greedy;
        row.penalty = rows[i].penalty;
        assert_int_equal(pick(ctx, rows[i].logits, V, row, &seen), rows[i].want);
        assert_int_equal(seen, rows[i].seen | (uint64_t)1 << rows[i].want); /* it is seen now */
    }
    kern_ctx_destroy(ctx);
}

/* The ids that 4000 draws give, as a bitset. */
static uint64_t drawn_set(kern_ctx *ctx, const float *logits, kern_sample_row row)
{
    uint64_t set = 0;
    for (uint64_t position = 0; position < 4000; position++) {
        set |= (uint64_t)1 << draw(ctx, logits, row, 11, position);
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
        {7, 1.0f, 0.0f, A | B | C | D | E},
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
    kern_ctx *ctx = parity_ctx(1);
    fill_known(logits);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kern_sample_row row = hot();
        row.top_k = rows[i].top_k;
        row.top_p = rows[i].top_p;
        row.min_p = rows[i].min_p;
        assert_int_equal(drawn_set(ctx, logits, row), rows[i].want);
    }
    kern_ctx_destroy(ctx);
}

static void ties_at_the_cut_go_to_the_lower_ids(void **state)
{
    (void)state;
    static const float logits[V] = {1, 2, 1, 1, 2, 1, 1, -50};
    kern_ctx *ctx = parity_ctx(1);
    kern_sample_row row = hot();
    row.top_k = 4;
    assert_int_equal(drawn_set(ctx, logits, row), 1 << 1 | 1 << 4 | 1 << 0 | 1 << 2);
    row.top_p = 0.85f; /* of 2 and 2 / e: three of the four */
    assert_int_equal(drawn_set(ctx, logits, row), 1 << 1 | 1 << 4 | 1 << 0);
    kern_ctx_destroy(ctx);
}

static void infinite_logits_share_the_draws_and_nan_gets_none(void **state)
{
    (void)state;
    static const float logits[V] = {0, INFINITY, NAN, INFINITY, 5, -INFINITY, NAN, 1};
    static const float nothing[V] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    static const float least[V] = {NAN, -INFINITY, NAN, -INFINITY, NAN, NAN, NAN, NAN};
    kern_ctx *ctx = parity_ctx(1);
    assert_int_equal(drawn_set(ctx, logits, hot()), 1 << 1 | 1 << 3);
    assert_int_equal(drawn_set(ctx, nothing, hot()), 1 << 0);
    assert_int_equal(drawn_set(ctx, least, hot()), 1 << 1 | 1 << 3);
    kern_ctx_destroy(ctx);
}

/* Pearson's statistic of n draws against probabilities of softmax(logits / temperature). */
static double chi_square(kern_ctx *ctx, const float *logits, kern_sample_row row, uint64_t seed,
                         int n_draws)
{
    int counts[V] = {0};
    double weights[V];
    double total = 0.0;
    double chi = 0.0;
    for (int i = 0; i < n_draws; i++) {
        counts[draw(ctx, logits, row, seed, (uint64_t)i)]++;
    }
    for (int i = 0; i < V; i++) {
        weights[i] = exp((double)logits[i] / (double)row.temperature);
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
    static const float logits[V] = {0.1f, 1.2f, -0.4f, 0.7f, 0.0f, -1.1f, 0.3f, 0.9f};
    kern_ctx *ctx = parity_ctx(1);
    for (int i = 0; i < 3; i++) {
        const uint64_t seed = 20260101 + (uint64_t)i;
        kern_sample_row row = hot();
        row.temperature = (const float[]){0.5f, 1.0f, 3.0f}[i];
        /* 7 degrees of freedom: above 24.3 once in a thousand seeds. */
        assert_true(chi_square(ctx, logits, row, seed, 20000) < 24.3);
        row.top_p = 0.999999f; /* a cut that leaves all */
        assert_true(chi_square(ctx, logits, row, seed, 20000) < 24.3);
    }
    kern_ctx_destroy(ctx);
}

static void a_tiny_temperature_is_greedy_and_a_huge_one_uniform(void **state)
{
    (void)state;
    static const float logits[V] = {1, 2, 3, 4, 5, 6, 7, 7.5f};
    kern_ctx *ctx = parity_ctx(1);
    kern_sample_row row = hot();
    row.temperature = 1e-30f;
    assert_int_equal(drawn_set(ctx, logits, row), 1 << 7);
    row.temperature = 1e30f;
    assert_int_equal(drawn_set(ctx, logits, row), 0xff);
    kern_ctx_destroy(ctx);
}

/* ---- against a reference in fp64 that sorts ---- */

typedef struct candidate {
    double weight;
    int32_t id;
} candidate;

static int by_weight(const void *a, const void *b)
{
    const candidate *x = a;
    const candidate *y = b;
    return x->weight != y->weight ? (x->weight > y->weight ? -1 : 1) : x->id - y->id;
}

static int by_id(const void *a, const void *b)
{
    return ((const candidate *)a)->id - ((const candidate *)b)->id;
}

/* The token, and how near the draw was to another one, relative to what is kept. */
static int32_t reference(const float *logits, int32_t n, const kern_sample_row *row,
                         candidate *list, double *nearness_out)
{
    double best = -INFINITY;
    double total = 0.0;
    double sum = 0.0;
    int32_t n_kept = row->top_k > 0 && row->top_k < n ? row->top_k : n;
    int32_t n_reach = 0;
    double nearness = 1.0;

    for (int32_t i = 0; i < n; i++) {
        best = fmax(best, (double)logits[i]);
    }
    for (int32_t i = 0; i < n; i++) {
        list[i] = (candidate){exp(((double)logits[i] - best) / (double)row->temperature), i};
    }
    qsort(list, (size_t)n, sizeof *list, by_weight);
    for (int32_t i = 0; i < n_kept; i++) {
        total += list[i].weight;
    }
    while (n_reach < n_kept && (n_reach == 0 || sum < (double)row->top_p * total)) {
        sum += list[n_reach++].weight;
        nearness = fmin(nearness, fabs(sum / total - (double)row->top_p));
    }
    n_kept = row->top_p < 1.0f ? n_reach : n_kept;
    total = 0.0;
    for (int32_t i = 0; i < n_kept; i++) {
        total += list[i].weight;
    }
    qsort(list, (size_t)n_kept, sizeof *list, by_id);
    const double point = (double)row->random * 0x1p-64 * total;
    int32_t id = -1;
    sum = 0.0;
    for (int32_t i = 0; i < n_kept; i++) {
        sum += list[i].weight;
        nearness = fmin(nearness, fabs(sum - point) / total);
        id = id < 0 && sum > point ? list[i].id : id;
    }
    *nearness_out = row->top_p < 1.0f ? nearness : fmin(nearness, 1.0);
    return id;
}

static void a_large_vocabulary_gives_the_token_of_sorting(void **state)
{
    (void)state;
    enum { N = 20000, ROUNDS = 60 };
    static candidate list[N];
    kern_ctx *ctx = parity_ctx(1);
    int n_compared = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        static const float shares[] = {1.0f, 0.95f, 0.5f};
        static const int32_t most[] = {0, 1, 17, 5000};
        float *logits = parity_normals(i, N, i % 2 == 0 ? 3.0 : 1.0);
        kern_sample_row row = hot();
        row.random = base_random_u64(PARITY_SEED, 7, i);
        row.temperature = i % 5 == 0 ? 2.0f : 0.8f;
        row.top_p = shares[i % 3];
        row.top_k = most[i % 4];
        double nearness = 0.0;
        const int32_t want = reference(logits, N, &row, list, &nearness);
        /* What the header allows a probability to be off, over all ids. */
        if (nearness > 1e-5) {
            assert_int_equal(pick(ctx, logits, N, row, NULL), want);
            n_compared++;
        }
        free(logits);
    }
    assert_true(n_compared > ROUNDS / 3);
    kern_ctx_destroy(ctx);
}

/* ---- reports ---- */

static kern_sample_report report_of(kern_ctx *ctx, const float *logits, int32_t n_top,
                                    uint64_t seen, int32_t *id_out)
{
    kern_sample_report report = {.logprob = 77.0f};
    kern_sample_row row = greedy;
    row.n_top = n_top;
    row.penalty = seen == 0 ? 1.0f : 50.0f;
    const kern_sample_args args = {.logits = logits,
                                   .rows = &row,
                                   .ids = id_out,
                                   .seen = &seen,
                                   .reports = &report,
                                   .n_rows = 1,
                                   .n_vocab = V,
                                   .n_slots = 1};
    CHECK_STATUS(kern_sample(ctx, &args), BASE_OK);
    return report;
}

static void reports_are_the_log_softmax_in_falling_order(void **state)
{
    (void)state;
    float logits[V];
    int32_t id = 0;
    kern_ctx *ctx = parity_ctx(1);

    fill_known(logits);
    kern_sample_report report = report_of(ctx, logits, 6, 1 << 5 | 1 << 2, &id);
    static const int32_t want_ids[] = {5, 2, 7, 0};
    static const double want[] = {0.4, 0.3, 0.15, 0.1};
    assert_int_equal(id, 7);
    assert_true(fabs((double)report.logprob - log(0.15)) < 1e-5); /* of the raw logits */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(report.top_ids[i], want_ids[i]);
        assert_true(fabs((double)report.top_logprobs[i] - log(want[i])) < 1e-5);
    }
    assert_int_equal(report.top_ids[5], 3); /* impossible: finite all the same */
    assert_true(report.top_logprobs[5] == -FLT_MAX);

    static const float ties[V] = {NAN, 1, 2, 2, 1, 2, NAN, 1};
    static const int32_t want_ties[] = {2, 3, 5, 1, 4, 7, 0, 6};
    report = report_of(ctx, ties, V, 0, &id);
    for (int i = 0; i < V; i++) {
        assert_int_equal(report.top_ids[i], want_ties[i]);
        assert_true(isfinite(report.top_logprobs[i]));
    }
    static const float infinite[V] = {0, INFINITY, INFINITY, 0, 0, 0, 0, 0};
    report = report_of(ctx, infinite, 1, 0, &id);
    assert_true(fabs((double)report.logprob - log(0.5)) < 1e-6);
    kern_ctx_destroy(ctx);
}

static void rows_go_to_their_slots_on_any_number_of_threads(void **state)
{
    (void)state;
    enum { ROWS = 7, SLOTS = 9, N = 30011 };
    float *logits = parity_normals(3, (int64_t)ROWS * N, 2.0);
    int32_t want[SLOTS];
    for (int32_t n_threads = 1; n_threads <= 4; n_threads += 3) {
        kern_ctx *ctx = parity_ctx(n_threads);
        kern_sample_row rows[ROWS];
        int32_t ids[SLOTS];
        memset(ids, 0xff, sizeof ids);
        for (int32_t r = 0; r < ROWS; r++) {
            rows[r] = r % 2 == 0 ? greedy : hot();
            rows[r].slot = SLOTS - 1 - r;
            rows[r].random = base_random_u64(1, 2, (uint64_t)r);
        }
        const kern_sample_args args = {.logits = logits,
                                       .rows = rows,
                                       .ids = ids,
                                       .n_rows = ROWS,
                                       .n_vocab = N,
                                       .n_slots = SLOTS};
        CHECK_STATUS(kern_sample(ctx, &args), BASE_OK);
        assert_int_equal(ids[0], -1);
        assert_int_equal(ids[1], -1);
        for (int32_t r = 0; r < ROWS; r++) {
            assert_int_equal(ids[rows[r].slot],
                             pick(ctx, logits + (int64_t)r * N, N,
                                  (kern_sample_row){.random = rows[r].random,
                                                    .temperature = rows[r].temperature,
                                                    .top_p = 1.0f,
                                                    .penalty = 1.0f},
                                  NULL));
        }
        if (n_threads == 1) {
            memcpy(want, ids, sizeof want);
        }
        assert_memory_equal(ids, want, sizeof want);
        kern_ctx_destroy(ctx);
    }
    free(logits);
}

static void limits_are_refused_and_nothing_is_written(void **state)
{
    (void)state;
    static const float logits[V] = {1};
    kern_ctx *ctx = parity_ctx(1);
    int32_t id = -7;
    kern_sample_row row;
    kern_sample_args args;
    const kern_sample_args good = {
        .logits = logits, .rows = &row, .ids = &id, .n_rows = 1, .n_vocab = V, .n_slots = 1};
#define REFUSED(change)                                        \
    do {                                                       \
        row = hot();                                           \
        args = good;                                           \
        change;                                                \
        CHECK_STATUS(kern_sample(ctx, &args), BASE_BAD_INPUT); \
        assert_int_equal(id, -7);                              \
    } while (0)
    REFUSED(args.n_rows = -1);
    REFUSED(args.n_rows = 2);
    REFUSED(args.n_vocab = 0);
    REFUSED(args.n_vocab = KERN_SAMPLE_MAX_VOCAB + 1);
    REFUSED(row.slot = 1);
    REFUSED(row.slot = -1);
    REFUSED(row.temperature = -1.0f);
    REFUSED(row.temperature = NAN);
    REFUSED(row.top_p = 0.0f);
    REFUSED(row.penalty = 0.0f);
    REFUSED(row.penalty = 1.1f); /* without seen */
    REFUSED(row.top_k = -1);
    REFUSED(row.n_top = -1);
    REFUSED(row.n_top = V + 1);
    REFUSED(row.n_top = 1); /* without reports */
#undef REFUSED
    args = good;
    args.n_rows = 0;
    CHECK_STATUS(kern_sample(ctx, &args), BASE_OK);
    assert_int_equal(id, -7);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_ties_go_to_the_lower_id),
        cmocka_unit_test(the_penalty_divides_positive_and_multiplies_negative_logits),
        cmocka_unit_test(top_k_top_p_and_min_p_leave_exactly_their_sets),
        cmocka_unit_test(ties_at_the_cut_go_to_the_lower_ids),
        cmocka_unit_test(infinite_logits_share_the_draws_and_nan_gets_none),
        cmocka_unit_test(draws_follow_the_distribution_at_any_temperature),
        cmocka_unit_test(a_tiny_temperature_is_greedy_and_a_huge_one_uniform),
        cmocka_unit_test(a_large_vocabulary_gives_the_token_of_sorting),
        cmocka_unit_test(reports_are_the_log_softmax_in_falling_order),
        cmocka_unit_test(rows_go_to_their_slots_on_any_number_of_threads),
        cmocka_unit_test(limits_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
