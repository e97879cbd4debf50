/* A teacher-forced pass against feeding the same tokens one window at a time; runs and their observer. */
#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/worker/model/tiny_model.h"
#include "worker/eval/teacher.h"

#include <math.h>

/* cmocka compares floats only */
#define CHECK_NEAR(got, want, tolerance) assert_true(fabs((got) - (want)) <= (tolerance))

enum { V = TINY_VOCAB, N = 400, WINDOW = 160, STEP = 64 };

/* Of a sum of N: step sizes differ in the order of sums, which can turn the rounding of a key.  Measured:
 * 0.004 under bf16. */
#define TOLERANCE 0.05

static tiny_folder folder;
static model *m;
static kern_ctx *ctx;
static comm *ranks;
static int32_t ids[N];
static const int32_t prefix[1] = {3};

static int set_up(void **state)
{
    (void)state;
    const tiny_options o = {.dtype = BASE_F32, .seed = 8};
    folder = tiny_create(&o);
    CHECK_STATUS(model_open(folder.path, &base_heap, &m), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
    for (uint64_t i = 0; i < N; i++) {
        ids[i] = (int32_t)(base_random_u64(4, 0, i) % V);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    comm_destroy(ranks);
    kern_ctx_destroy(ctx);
    model_close(m);
    tiny_remove(&folder);
    return 0;
}

static eval_run *run_of(const char *policy_text, int32_t max_step)
{
    kv_policy policy;
    eval_run *run = NULL;
    const eval_run_options options = {max_step, max_step, WINDOW + 40, 1, NULL};
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(eval_run_create(m, &policy, ctx, ranks, &options, &base_heap, &run), BASE_OK);
    return run;
}

static eval_teacher_text text_of(int64_t n_ids, int32_t n_prefix)
{
    return (eval_teacher_text){
        .ids = ids, .n_ids = n_ids, .prefix = prefix, .n_prefix = n_prefix, .window = WINDOW};
}

/* Token by token: each of ids[first..n) given what the window holds before it. */
static double plain_nll(const char *policy, int64_t n_ids, int32_t n_prefix, int64_t *n_out)
{
    float logits[V];
    double nll = 0.0;
    eval_run *run = run_of(policy, STEP);
    *n_out = 0;
    for (int64_t at = 0; at < n_ids; at++) {
        if (at % WINDOW == 0) {
            eval_run_clear(run);
            if (n_prefix > 0) {
                CHECK_STATUS(eval_run_feed(run, prefix, n_prefix, 1, logits), BASE_OK);
            }
        }
        if (at % WINDOW != 0 || n_prefix > 0) {
            nll += eval_logits_nll(logits, V, ids[at]);
            ++*n_out;
        }
        CHECK_STATUS(eval_run_feed(run, &ids[at], 1, 1, logits), BASE_OK);
    }
    eval_run_destroy(run);
    return nll;
}

static void every_token_is_predicted_from_the_prefix_and_its_window(void **state)
{
    (void)state;
    for (int32_t n_prefix = 0; n_prefix <= 1; n_prefix++) {
        int64_t n_tokens = 0;
        eval_teacher_result got[2];
        const eval_teacher_text text = text_of(N, n_prefix);
        eval_run *runs[2] = {run_of("tq:k=3,v=3", STEP), run_of("bf16", STEP)};
        CHECK_STATUS(eval_teacher_run(&text, runs, 2, -1, NULL, NULL, &base_heap, got), BASE_OK);
        const double want = plain_nll("bf16", N, n_prefix, &n_tokens);
        assert_int_equal(n_tokens, n_prefix > 0 ? N : N - 3); /* three windows */
        assert_int_equal(got[1].n_tokens, n_tokens);
        CHECK_NEAR(got[1].nll, want, TOLERANCE);
        const double coarse = plain_nll("tq:k=3,v=3", N, n_prefix, &n_tokens);
        CHECK_NEAR(got[0].nll, coarse, TOLERANCE);
        assert_true(fabs(coarse - want) > 4 * TOLERANCE);
        assert_int_equal(got[0].gap.n_rows, 0);
        eval_run_destroy(runs[0]);
        eval_run_destroy(runs[1]);
    }
}

static void a_policy_is_compared_with_the_reference(void **state)
{
    (void)state;
    eval_teacher_result got[3];
    const eval_teacher_text text = text_of(N, 1);
    eval_run *runs[3] = {run_of("tq:k=2,v=2", STEP), run_of("bf16", STEP), run_of("bf16", STEP)};
    CHECK_STATUS(eval_teacher_run(&text, runs, 3, 1, NULL, NULL, &base_heap, got), BASE_OK);
    assert_int_equal(got[0].gap.n_rows, N);
    assert_true(got[0].gap.kl > 0.0 && got[0].gap.abs_error > 0.0);
    assert_int_equal(got[1].gap.n_rows, 0);
    assert_int_equal(got[2].gap.n_rows, N); /* the same policy: no gap */
    assert_true(got[2].gap.abs_error == 0.0);
    assert_true(got[2].gap.top1 == N && fabs(got[2].gap.top10 - N) < 1e-9);
    for (size_t i = 0; i < 3; i++) {
        eval_run_destroy(runs[i]);
    }
}

typedef struct watch {
    int32_t n_calls;
    int32_t next_layer;
    int64_t last;
} watch;

static base_status look(void *arg, const forward_observation *seen)
{
    watch *watched = arg;
    assert_int_equal(seen->layer, watched->next_layer);
    watched->next_layer = (watched->next_layer + 1) % TINY_LAYERS;
    watched->last = seen->positions[seen->n_tokens - 1];
    watched->n_calls++;
    return watched->n_calls == 5 ? BASE_CANCELLED : BASE_OK;
}

static void an_observer_sees_each_layer_once_and_may_end_the_step(void **state)
{
    (void)state;
    watch watched = {.n_calls = 0};
    eval_run *run = run_of("bf16", STEP);
    forward_set_observer(run->forward, look, &watched);
    CHECK_STATUS(eval_run_feed(run, ids, 2 * STEP, STEP, NULL), BASE_OK);
    assert_int_equal(watched.n_calls, 2 * TINY_LAYERS);
    assert_int_equal(watched.last, 2 * STEP - 1);
    assert_int_equal(eval_run_feed(run, ids, 1, 1, NULL), BASE_CANCELLED);
    eval_run_clear(run);
    forward_set_observer(run->forward, NULL, NULL);
    CHECK_STATUS(eval_run_feed(run, ids, 1, 1, NULL), BASE_OK);
    assert_int_equal(watched.n_calls, 5);
    eval_run_destroy(run);
}

static void a_sequence_past_its_context_is_refused(void **state)
{
    (void)state;
    eval_run *run = run_of("bf16", STEP);
    CHECK_STATUS(eval_run_feed(run, ids, WINDOW + 41, STEP, NULL), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("at most 200");
    eval_run_destroy(run);
}

static void generation_picks_the_best_token_until_the_end(void **state)
{
    (void)state;
    enum { NEW = 30 };
    float logits[V];
    int32_t got[NEW];
    int32_t n = 0;
    eval_run *run = run_of("bf16", STEP);
    CHECK_STATUS(eval_run_generate(run, ids, 100, NEW, got, &n), BASE_OK);
    assert_in_range(n, 1, NEW);
    eval_run_clear(run);
    CHECK_STATUS(eval_run_feed(run, ids, 100, STEP, logits), BASE_OK);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(got[i], eval_logits_best(logits, V));
        assert_int_not_equal(got[i], 1); /* the end token */
        CHECK_STATUS(eval_run_feed(run, &got[i], 1, 1, logits), BASE_OK);
    }
    assert_true(n == NEW || eval_logits_best(logits, V) == 1);
    eval_run_destroy(run);
}

static void a_pass_survives_every_failed_allocation(void **state)
{
    (void)state;
    const eval_teacher_text text = text_of(40, 1);
    failing_alloc a = {.fail_at = -1};
    const base_alloc mem = {failing_get, failing_put, &a};
    kern_ctx *const usual = ctx;
    CHECK_STATUS(kern_ctx_create_cpu(1, &mem, &ctx), BASE_OK); /* its memory fails too */
    eval_run *runs[1] = {run_of("bf16", STEP)};
    const int n_before = a.n_live;
    for (int k = 0;; k++) {
        eval_teacher_result got;
        a.n_calls = 0;
        a.fail_at = k;
        const base_status st = eval_teacher_run(&text, runs, 1, 0, NULL, NULL, &mem, &got);
        assert_int_equal(a.n_live, n_before);
        if (st == BASE_OK) {
            assert_int_equal(k, 5);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
    }
    a.fail_at = -1;
    eval_run_destroy(runs[0]);
    kern_ctx_destroy(ctx);
    ctx = usual;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_predicted_from_the_prefix_and_its_window),
        cmocka_unit_test(a_policy_is_compared_with_the_reference),
        cmocka_unit_test(an_observer_sees_each_layer_once_and_may_end_the_step),
        cmocka_unit_test(a_sequence_past_its_context_is_refused),
        cmocka_unit_test(generation_picks_the_best_token_until_the_end),
        cmocka_unit_test(a_pass_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
