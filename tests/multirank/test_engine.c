/* The step loop on N ranks makes the tokens that it makes on one.
 *
 * usage: mpirun -n N multirank.test_engine short|ways|needle|long|lost [split|cuda|cuda-split|cuda-ar|lsa|lsa-split]
 *
 *   short    prompts of 1 to 513 tokens: every test, one way of running for each policy
 *   ways     the same prompts, every way for every policy
 *   needle   a prompt of 4577 tokens, one way for every policy
 *   long     all prompts, every way
 *   lost     a rank hangs
 *   split    ranks share the weights; the reference has them all
 *   cuda     on GPUs; ranks share them where there are fewer GPUs than ranks.  Skips where there is none
 *   cuda-ar  the same with the pair of all-reduces
 *   lsa      the same with the one-shot exchange
 *
 * Nothing is hard-coded: rank 0 first runs every prompt alone, without the others, and that is the
 * reference, on prompts whose two most likely tokens are far enough apart at each step. */
#include "worker/engine/engine.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/device.h"
#include "kvshard/calibration.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MODEL   "models/demo"
#define PROMPTS "tests/golden/prompts.json"

#define MAX_PROMPTS 8
#define MAX_IDS     8192
#define MAX_NEW     12
#define LONG_WAIT   600000

/* Natural logs of probabilities.  Sums in another order move them by about 1e-5 under bf16; a code of
 * a page that falls on the other side of its threshold moves them by up to 1e-3. */
#define LEAST_MARGIN 0.05

typedef struct prompt {
    int32_t ids[MAX_IDS];
    int32_t n_ids;
    int32_t n_new;
} prompt;

static struct {
    boot_world world;
    comm *all;
    comm *tensors; /* of all: the same, or between GPUs */
    comm *self;
    model *model;
    model *part; /* of all: the same, or this rank's share of the weights */
    comm_way way;
    kern_ctx *ctx;
    prompt prompts[MAX_PROMPTS]; /* the needle is the last one */
    int32_t n_prompts;
    bool all_ways;
    bool with_lengths;
    const char *needle; /* its key in the file of prompts */
} the;

/* ---- a coordinator of a few lines ---- */

typedef struct answer {
    int32_t ids[MAX_NEW];
    int32_t n_ids;
    double least_margin;
    group_end_reason reason;
    int64_t n_blocks;
    int32_t n_progress;
} answer;

typedef struct script {
    bool together; /* all at once; else each after the end of the one before */
    int32_t first; /* prompts first .. end-1 */
    int32_t end;
    int32_t n_sent; /* tokens of a replay: taken from `sent` */
    const int32_t *sent;
    inference_sampling sampling;
    int32_t cancel_at; /* the first prompt is cancelled at so many PROGRESS events; 0: never */
    int32_t stop_at;   /* `stop` is set at so many calls of next; 0: never */

    int32_t next;
    int32_t n_open;
    int32_t n_calls;
    bool cancelled;
    group_down down;
    int32_t ids[MAX_IDS + MAX_NEW];
    answer answers[MAX_PROMPTS];
    int64_t free_at_end;
    int64_t free_least;
    int32_t n_refused;
    volatile sig_atomic_t stop;
} script;

static base_status next(void *ctx, int64_t wait_us, const group_down **down_out)
{
    script *s = ctx;
    s->down = (group_down){.kind = GROUP_DOWN_DRAIN};
    *down_out = &s->down;
    if (++s->n_calls == s->stop_at) {
        s->stop = 1;
    }
    if (s->cancel_at > 0 && !s->cancelled && s->answers[s->first].n_progress >= s->cancel_at) {
        s->cancelled = true;
        s->down = (group_down){.kind = GROUP_DOWN_CANCEL, .seq = (uint64_t)s->first + 1};
    } else if (s->next < s->end && (s->together || s->n_open == 0)) {
        const prompt *p = &the.prompts[s->next++];
        s->n_open++;
        memcpy(s->ids, p->ids, (size_t)p->n_ids * sizeof *s->ids);
        if (s->n_sent > 0) {
            memcpy(s->ids + p->n_ids, s->sent, (size_t)s->n_sent * sizeof *s->ids);
        }
        s->down = (group_down){.kind = GROUP_DOWN_ADMIT,
                               .seq = (uint64_t)s->next,
                               .admit = {.prompt = s->ids,
                                         .n_prompt = (size_t)(p->n_ids + s->n_sent),
                                         .n_sent = s->n_sent,
                                         .start_rank = s->next % 5,
                                         .sampling = s->sampling,
                                         .max_new_tokens = p->n_new,
                                         .logprobs = 2,
                                         .credit = 1000}};
    } else if (s->n_open > 0 || s->next < s->end) {
        *down_out = NULL;
        base_sleep_us(wait_us);
    }
    return BASE_OK;
}

static void emit(void *ctx, const group_up *up)
{
    script *s = ctx;
    answer *a = up->kind == GROUP_UP_LOAD ? NULL : &s->answers[up->seq - 1];
    switch (up->kind) {
    case GROUP_UP_PROGRESS: a->n_progress++; break;
    case GROUP_UP_TOKENS: {
        const double margin = (double)(up->top_logprobs[0] - up->top_logprobs[1]);
        if (a->n_ids < MAX_NEW) {
            a->ids[a->n_ids++] = up->ids[0];
        }
        a->least_margin = a->n_ids == 1 || margin < a->least_margin ? margin : a->least_margin;
        break;
    }
    case GROUP_UP_ENDED:
        a->reason = up->reason;
        for (size_t r = 0; r < up->n_blocks_per_rank; r++) {
            a->n_blocks += up->blocks_per_rank[r];
        }
        s->n_open--;
        break;
    case GROUP_UP_REFUSED:
        s->n_refused++;
        s->n_open--;
        break;
    case GROUP_UP_LOAD:
        s->free_at_end = 0;
        for (size_t r = 0; r < up->n_blocks_free; r++) {
            s->free_at_end += up->blocks_free_per_rank[r];
        }
        s->free_least =
            s->free_least == 0 || s->free_at_end < s->free_least ? s->free_at_end : s->free_least;
        break;
    case GROUP_UP_HELLO:
    case GROUP_UP_ADMITTED: break;
    }
}

static const engine_options usual = {
    .max_batch = MAX_PROMPTS, .prefill_chunk = 512, .max_context = 8192, .n_pages = 96};

/* Collective over `ranks`.  Rank 0 fills s. */
static void run(comm *ranks, const char *policy_text, const engine_options *options, script *s)
{
    kv_policy policy;
    kv_calibration *calibration = NULL;
    kv_format *format = NULL;
    engine *e = NULL;
    const model_config *c = &the.model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    const engine_io io = {s, next, emit};
    const engine_comms comms = {ranks, ranks == the.all ? the.tensors : ranks};

    s->next = s->first;
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(
        kv_calibration_open(policy_text, MODEL, the.model->hash, &shape, &base_heap, &calibration),
        BASE_OK);
    CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, calibration, &base_heap, &format),
                 BASE_OK);
    kv_calibration_destroy(calibration);
    const model *m = ranks == the.all ? the.part : the.model;
    CHECK_STATUS(engine_create(m, format, the.ctx, &comms, options, &base_heap, &e), BASE_OK);
    CHECK_STATUS(engine_run(e, comm_rank(ranks) == 0 ? &io : NULL, &s->stop), BASE_OK);
    engine_destroy(e);
    kv_format_destroy(format);
}

/* The others wait here while rank 0 makes a reference. */
static void meet(void)
{
    uint8_t mine = 0;
    uint8_t all[GROUP_MAX_RANKS];
    CHECK_STATUS(comm_all_gather(the.all, &mine, all, 1, LONG_WAIT), BASE_OK);
}

static script make_script(bool together)
{
    return (script){.together = together,
                    .end = the.n_prompts,
                    .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f}};
}

static void check_same(const script *got, const script *want, const char *policy, const char *how)
{
    if (the.world.rank != 0) {
        return;
    }
    assert_int_equal(got->n_refused, 0);
    for (int32_t i = got->first; i < got->end; i++) {
        const answer *g = &got->answers[i];
        const answer *w = &want->answers[i];
        const int64_t n_tokens = the.prompts[i].n_ids + w->n_ids - 1; /* the last is not stored */
        if (g->n_ids != w->n_ids ||
            memcmp(g->ids, w->ids, (size_t)w->n_ids * sizeof *w->ids) != 0) {
            fail_msg("%s, %d ranks, %s: prompt %d of %d tokens gives other tokens than alone on "
                     "one rank (least margin %g)",
                     policy, the.world.n_ranks, how, i, the.prompts[i].n_ids, w->least_margin);
        }
        assert_int_equal(g->reason, GROUP_END_LENGTH);
        assert_int_equal(g->n_blocks, (n_tokens + 127) / 128);
    }
    assert_int_equal(got->free_at_end, (int64_t)usual.n_pages * the.world.n_ranks);
}

/* ---- tests ---- */

/* Every prompt alone and among the others, in parts of one block, four, whole, and as the time of steps gives. */
static void check_policy(const char *policy, int32_t short_way)
{
    static script want;
    static script got;

    want = make_script(false);
    if (the.world.rank == 0) {
        run(the.self, policy, &usual, &want);
        for (int32_t i = 0; i < the.n_prompts; i++) {
            const answer *a = &want.answers[i];
            assert_int_equal(a->n_ids, the.prompts[i].n_new);
            if (a->least_margin < LEAST_MARGIN) {
                fail_msg("%s: prompt %d of %d tokens has a margin of %g only: choose another",
                         policy, i, the.prompts[i].n_ids, a->least_margin);
            }
        }
    }
    meet();

    static const struct {
        bool together;
        int32_t chunk;
        int64_t goal_ms; /* of a step: parts of any size, as time goes */
        int32_t n_ahead;
    } ways[] = {{false, 512, 0, 1},
                {true, 128, 0, 1},
                {true, 512, 20, 0},
                {false, 8192, 0, 0},
                {true, 8192, 0, 1}};
    const int32_t n_ways = (int32_t)(sizeof ways / sizeof ways[0]);
    for (int32_t i = 0; i < n_ways; i++) {
        engine_options options = usual;
        char how[64];
        if (!the.all_ways && i != (the.with_lengths ? short_way : 0)) {
            continue;
        }
        options.prefill_chunk = ways[i].chunk;
        options.step_goal_ms = ways[i].goal_ms;
        options.n_ahead = ways[i].n_ahead;
        got = make_script(ways[i].together);
        run(the.all, policy, &options, &got);
        (void)snprintf(how, sizeof how, "%s, chunks of %d%s%s",
                       ways[i].together ? "together" : "one by one", ways[i].chunk,
                       ways[i].goal_ms > 0 ? " or less" : "",
                       ways[i].n_ahead > 0 ? ", a step ahead" : "");
        check_same(&got, &want, policy, how);
    }
}

static void any_number_of_ranks_gives_the_tokens_of_one_bf16(void **state)
{
    (void)state;
    check_policy("bf16", 0);
}

static void any_number_of_ranks_gives_the_tokens_of_one_tq44(void **state)
{
    (void)state;
    check_policy("tq:k=4,v=4", 1);
}

static void any_number_of_ranks_gives_the_tokens_of_one_tq33(void **state)
{
    (void)state;
    check_policy("tq:k=3,v=3", 4);
}

static void any_number_of_ranks_gives_the_tokens_of_one_gtq33(void **state)
{
    (void)state;
    const bool all_ways = the.all_ways;
    the.all_ways = all_ways && strcmp(the.needle, "long") == 0; /* one way will do: time */
    check_policy("block-gtq:k=3,v=3", 4);
    the.all_ways = all_ways;
}

/* A window and a sink, so that every way of seeing a block occurs.  Time: only with `ways`, where one will do,
 * and with `long`. */
static void any_number_of_ranks_gives_the_tokens_of_one_kivi44(void **state)
{
    (void)state;
    if (!the.all_ways) {
        skip();
    }
    the.all_ways = strcmp(the.needle, "long") == 0;
    check_policy("kivi:k=4,v=4,g=64,w=128,s=128", 1);
    the.all_ways = true;
}

static void the_needle_is_found(void **state)
{
    (void)state;
    static script got;
    /* " 48213." and end of sequence */
    static const int32_t answer_ids[] = {223, 22, 26, 20, 19, 21, 16, 1};
    got = make_script(false);
    got.first = the.n_prompts - 1;
    run(the.all, "tq:k=4,v=4", &usual, &got);
    if (the.world.rank == 0) {
        assert_memory_equal(got.answers[got.first].ids, answer_ids, sizeof answer_ids);
    }
}

static void a_cancelled_sequence_leaves_the_others_as_they_were(void **state)
{
    (void)state;
    static script got;
    static script want;
    engine_options options = usual;
    options.prefill_chunk = 128;
    want = make_script(true);
    want.first = the.n_prompts - 2; /* 513 tokens, and the needle */
    run(the.all, "tq:k=4,v=4", &options, &want);
    const int32_t first = want.first;
    for (options.n_ahead = 0; options.n_ahead <= 1; options.n_ahead++) {
        want.first = first;
        got = want;
        memset(got.answers, 0, sizeof got.answers);
        got.n_calls = 0;
        got.cancel_at = 2; /* in the middle of its prompt */
        run(the.all, "tq:k=4,v=4", &options, &got);
        if (the.world.rank == 0) {
            assert_int_equal(got.answers[first].reason, GROUP_END_CANCELLED);
            assert_int_equal(got.answers[first].n_ids, 0);
            assert_int_equal(got.answers[first].n_blocks, 2);
            got.first = want.first = first + 1;
        }
        check_same(&got, &want, "tq:k=4,v=4", "beside a cancelled one");
    }
}

static void a_replay_goes_on_with_the_tokens_of_an_uninterrupted_run(void **state)
{
    (void)state;
    static script whole;
    static script rest;
    engine_options ahead = usual;
    ahead.n_ahead = 1;
    whole = make_script(false);
    whole.first = the.n_prompts - 2;
    whole.end = the.n_prompts - 1;
    whole.sampling = (inference_sampling){
        .temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1.2f, .seed = 99};
    rest = whole;
    run(the.all, "tq:k=3,v=3", &usual, &whole);
    const answer *a = &whole.answers[whole.first];
    rest.n_sent = 3;
    rest.sent = a->ids;
    run(the.all, "tq:k=3,v=3", &ahead, &rest);
    if (the.world.rank == 0) {
        const answer *b = &rest.answers[rest.first];
        assert_int_equal(b->n_ids, a->n_ids - 3);
        assert_memory_equal(b->ids, a->ids + 3, (size_t)b->n_ids * sizeof *b->ids);
    }
}

static void stop_ends_the_group_after_the_running_step(void **state)
{
    (void)state;
    static script s;
    engine_options options = usual;
    for (options.n_ahead = 0; options.n_ahead <= 1; options.n_ahead++) {
        s = make_script(true);
        s.stop_at = 10;
        run(the.all, "bf16", &options, &s); /* OK on every rank is the test */
        if (the.world.rank == 0) {
            assert_true(s.n_open > 0);
            assert_in_range(s.n_calls, 10, 40);
        }
    }
}

static void an_idle_group_stays_together(void **state)
{
    (void)state;
    static script s;
    const int64_t start_us = base_now_us();
    s = make_script(true);
    s.end = 0;
    s.n_open = 1; /* so that it does not drain */
    s.stop_at = 60;
    run(the.all, "bf16", &usual, &s); /* longer than a plan may be late */
    assert_true(base_now_us() - start_us > (int64_t)ENGINE_PLAN_MS * 1000);
}

/* ---- a rank that hangs ---- */

static base_status slow_next(void *ctx, int64_t wait_us, const group_down **down_out)
{
    (void)ctx;
    base_sleep_us(wait_us);
    *down_out = NULL;
    return BASE_OK;
}

/* The last rank takes part in nothing.  Every other one must say so in time (ENGINE_GONE_MS); how
 * the job ends is not for this test to say, so the verdict is a line of text. */
static int run_lost(void)
{
    static const volatile sig_atomic_t never;
    static script idle;
    static script first;
    const engine_io io = {&idle, slow_next, emit};
    const engine_io first_io = {&first, next, emit};
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    const model_config *c = &the.model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    const engine_comms comms = {the.all, the.tensors};
    kv_format *format = NULL;
    engine *e = NULL;

    if (kv_format_create(&policy, &shape, &base_heap, &format) != BASE_OK ||
        engine_create(the.part, format, the.ctx, &comms, &usual, &base_heap, &e) != BASE_OK) {
        return EXIT_FAILURE;
    }
    first.n_open = 1; /* all meet, wait together for a while, and stop */
    first.stop_at = 15;
    if (engine_run(e, the.world.rank == 0 ? &first_io : NULL, &first.stop) != BASE_OK) {
        return EXIT_FAILURE;
    }
    if (the.world.rank == the.world.n_ranks - 1) {
        base_sleep_us(8000000);
        _exit(EXIT_SUCCESS);
    }
    const int64_t start_us = base_now_us();
    const base_status st = engine_run(e, the.world.rank == 0 ? &io : NULL, &never);
    const int64_t took_ms = (base_now_us() - start_us) / 1000;
    if (the.world.rank == 0) {
        printf("%s after %lld ms\n", base_status_name(st), (long long)took_ms);
        printf(st == BASE_PEER_LOST && took_ms < ENGINE_GONE_MS ? "the lost rank was noticed\n"
                                                                : "WRONG\n");
        (void)fflush(stdout);
    }
    base_sleep_us(1000000);
    _exit(EXIT_SUCCESS);
}

/* ---- set-up ---- */

static int32_t read_ids(const json_t *array, size_t offset, size_t n, int32_t *out)
{
    assert_true(n <= MAX_IDS && offset + n <= json_array_size(array));
    for (size_t i = 0; i < n; i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(array, offset + i));
    }
    return (int32_t)n;
}

static int set_up(void **state)
{
    (void)state;
    json_t *root = NULL;
    CHECK_STATUS(base_json_read(PROMPTS, (size_t)1 << 22, &root), BASE_OK);
    const json_t *lengths = json_object_get(root, "lengths");
    for (size_t i = 0; i < json_array_size(lengths) && the.with_lengths; i++) {
        const json_t *entry = json_array_get(lengths, i);
        int64_t length = 0;
        int64_t offset = 0;
        CHECK_STATUS(base_json_get_int(entry, PROMPTS, "length", true, 1, 2000, &length), BASE_OK);
        CHECK_STATUS(base_json_get_int(entry, PROMPTS, "offset", true, 0, 2000, &offset), BASE_OK);
        prompt *p = &the.prompts[the.n_prompts++];
        p->n_ids = read_ids(json_object_get(root, "text"), (size_t)offset, (size_t)length, p->ids);
        p->n_new = 6;
    }
    const json_t *needle = json_object_get(root, the.needle);
    prompt *p = &the.prompts[the.n_prompts++];
    p->n_ids = read_ids(needle, 0, json_array_size(needle), p->ids);
    p->n_new = 8;
    base_json_free(root);
    return 0;
}

/* A context on a GPU, and NCCL between the ranks'. */
static base_status start_on_gpu(void)
{
    const comm_way way = the.part != the.model ? COMM_NCCL_A2A : the.way;
    return gpu_ranks_open(&the.world, the.all, way, &the.ctx, &the.tensors);
}

static base_status start_with_lsa(void)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, start_on_gpu());
    st = gpu_ranks_add_lsa(the.all, the.ctx, the.model->config.head_dim, &the.tensors);
out:
    return st;
}

static base_status start_on_cpu(void)
{
    the.tensors = the.all;
    return kern_ctx_create_cpu(1, &base_heap, &the.ctx);
}

static base_status open_part(bool split)
{
    const model_options options = {.rank = the.world.rank, .n_ranks = the.world.n_ranks};
    the.part = the.model;
    return split ? model_open_with(MODEL, &options, &base_heap, &the.part) : BASE_OK;
}

static bool start(const char *where)
{
    const boot_launch launch = {NULL, NULL, NULL};
    const bool split = strstr(where, "split") != NULL;
    the.way = strcmp(where, "cuda-ar") == 0 ? COMM_NCCL_AR : COMM_NCCL_AG;
    base_log_init("test", BASE_LOG_ERROR);
    if (boot_mpi_start(&launch, &the.world) != BASE_OK ||
        comm_mpi_create(&base_heap, &the.all) != BASE_OK ||
        comm_self_create(&base_heap, &the.self) != BASE_OK ||
        model_open(MODEL, &base_heap, &the.model) != BASE_OK || open_part(split) != BASE_OK ||
        (strncmp(where, "cuda", 4) == 0  ? start_on_gpu()
         : strncmp(where, "lsa", 3) == 0 ? start_with_lsa()
                                         : start_on_cpu()) != BASE_OK) {
        (void)fprintf(stderr, "%s\n", base_last_error());
        return false;
    }
    return the.world.rank == 0 || freopen("/dev/null", "w", stdout) != NULL;
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 2 ? argv[1] : "";
    const char *where = argc == 3 ? argv[2] : "";
    const struct CMUnitTest policies[] = {
        cmocka_unit_test(any_number_of_ranks_gives_the_tokens_of_one_bf16),
        cmocka_unit_test(any_number_of_ranks_gives_the_tokens_of_one_tq44),
        cmocka_unit_test(any_number_of_ranks_gives_the_tokens_of_one_tq33),
        cmocka_unit_test(any_number_of_ranks_gives_the_tokens_of_one_gtq33),
        cmocka_unit_test(any_number_of_ranks_gives_the_tokens_of_one_kivi44),
    };
    const struct CMUnitTest others[] = {
        cmocka_unit_test(the_needle_is_found),
        cmocka_unit_test(a_cancelled_sequence_leaves_the_others_as_they_were),
        cmocka_unit_test(a_replay_goes_on_with_the_tokens_of_an_uninterrupted_run),
        cmocka_unit_test(stop_ends_the_group_after_the_running_step),
        cmocka_unit_test(an_idle_group_stays_together),
    };

    the.with_lengths = strcmp(mode, "needle") != 0;
    the.all_ways = strcmp(mode, "ways") == 0 || strcmp(mode, "long") == 0;
    the.needle = strcmp(mode, "needle") == 0 || strcmp(mode, "long") == 0 ? "long" : "short";
    const bool on_gpu = where[0] != '\0' && strcmp(where, "split") != 0;
    if (on_gpu && kern_gpu_count() == 0) {
        printf("SKIP: no CUDA device\n");
        return TEST_SKIPPED;
    }
    if (!start(where)) {
        return EXIT_FAILURE;
    }
    if (strcmp(mode, "lost") == 0) {
        return run_lost();
    }
    int n_failed = cmocka_run_group_tests(policies, set_up, NULL);
    if (the.with_lengths) {
        n_failed += cmocka_run_group_tests(others, NULL, NULL);
    }
    if (the.tensors != the.all) {
        comm_destroy(the.tensors);
    }
    kern_ctx_destroy(the.ctx);
    if (the.part != the.model) {
        model_close(the.part);
    }
    model_close(the.model);
    comm_destroy(the.self);
    comm_destroy(the.all);
    boot_mpi_end();
    return n_failed;
}
