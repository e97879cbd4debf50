/* The step loop for many steps, a step ahead, on the GPU if there is one: sequences join and are cancelled at random.
 *
 * usage: soak.test_engine [STEPS]
 *        mpirun -n N soak.test_engine STEPS mpi|nccl-ag|lsa|lsa-split    ranks that come late at random (soak/group.h)
 *
 * Every request is one of a few kinds, whose tokens are first made alone; each must get the same again beside whatever
 * else runs.  Numbers are summed in another order there: a greedy sequence may go another way only where its two most
 * likely tokens are close, and one that draws where a draw falls on a boundary, which is seldom.  N ranks must make what
 * rank 0 makes alone.  Device memory and
 * the host's must not grow once all sizes of steps have occurred. */
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/random.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "tests/soak/group.h"
#include "tests/support/test.h"
#include "worker/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KINDS = 20,
    TEXT = 3000,
    MAX_PROMPT = 700,
    N_NEW = 128,
    BATCH = 12,
    OPEN = 16, /* more than the batch holds: some are refused */
    CPU_STEPS = 120,
    GPU_STEPS = 5000,
};

#define MODEL        "models/demo"
#define CLOSE_CALL   0.1f /* of natural log probabilities: what another order of sums may turn over */
#define MOST_BOUNDS  0.05 /* of the tokens that were drawn: a wrong draw would be most of them */
#define GROWTH_BYTES (32ll << 20) /* a graph for a size of step that is new, and malloc's own */

typedef struct kind {
    int32_t ids[MAX_PROMPT];
    int32_t n_ids;
    inference_sampling sampling;
    int32_t tokens[N_NEW];
    float margins[N_NEW]; /* of the two most likely */
} kind;

typedef struct request {
    uint64_t seq; /* 0: none */
    int32_t kind;
    int32_t n_new;
    int32_t n_got;
    int32_t cancel_at; /* tokens; -1: never */
    bool cancelled;
    bool apart;
} request;

typedef struct script {
    int64_t n_steps; /* to go */
    int64_t steps;   /* of the last LOAD */
    uint64_t n_calls;
    uint64_t seq;
    request open[OPEN];
    group_down down;
    int64_t n_tokens;
    int64_t n_greedy; /* tokens that were compared */
    int64_t n_drawn;
    int64_t n_greedy_apart; /* sequences that went another way */
    int64_t n_drawn_apart;
    int64_t n_ended;
    int64_t n_cancelled;
    int64_t n_refused;
    int64_t host_bytes; /* at a quarter of the steps */
    int64_t device_bytes;
} script;

static struct {
    model *model;
    model *part; /* of a rank among the others: the same, or its share of the weights */
    bool splits;
    kv_format *format;
    kern_ctx *ctx;
    comm *alone;
    soak_group *group; /* NULL: one rank */
    int32_t n_ranks;
    kern_device device;
    kind kinds[KINDS];
    int64_t n_steps;
} the;

/* ---- memory ---- */

static int64_t host_bytes(void)
{
    long n_pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*s %ld", &n_pages), 1);
    (void)fclose(f);
    return (int64_t)n_pages * sysconf(_SC_PAGESIZE);
}

/* Taken of the device. */
static int64_t device_bytes(void)
{
    kern_gpu gpu;
    if (the.device == KERN_DEVICE_CPU) {
        return 0;
    }
    CHECK_STATUS(kern_gpu_describe(0, &gpu), BASE_OK);
    return gpu.total_bytes - gpu.free_bytes;
}

/* ---- a coordinator ---- */

static request *find(script *s, uint64_t seq)
{
    for (int32_t i = 0; i < OPEN; i++) {
        if (s->open[i].seq == seq) {
            return &s->open[i];
        }
    }
    return NULL;
}

static uint64_t random_bits(script *s)
{
    return base_random_u64(20260301, 1, s->n_calls++);
}

static void ask(script *s, request *r, int32_t n_new, int32_t cancel_at, int32_t logprobs)
{
    const kind *k = &the.kinds[r->kind];
    r->seq = ++s->seq;
    r->n_new = n_new;
    r->n_got = 0;
    r->cancel_at = cancel_at;
    r->cancelled = false;
    r->apart = false;
    s->down = (group_down){.kind = GROUP_DOWN_ADMIT,
                           .seq = r->seq,
                           .admit = {.prompt = k->ids,
                                     .n_prompt = (size_t)k->n_ids,
                                     .sampling = k->sampling,
                                     .max_new_tokens = n_new,
                                     .logprobs = logprobs,
                                     .credit = 1 << 20}};
}

/* A request that asks to be cancelled, or a new one now and then; so many at once as this stretch of steps has. */
static bool choose(script *s)
{
    const uint64_t bits = random_bits(s);
    const int32_t n_wanted =
        1 + (int32_t)(base_random_u64(7, 2, (uint64_t)s->steps / 300) % (uint64_t)OPEN);
    for (int32_t i = 0; i < OPEN; i++) {
        request *r = &s->open[i];
        if (r->seq != 0 && !r->cancelled && r->cancel_at >= 0 && r->n_got >= r->cancel_at) {
            r->cancelled = true;
            s->down = (group_down){.kind = GROUP_DOWN_CANCEL, .seq = r->seq};
            return true;
        }
    }
    request *none = find(s, 0);
    if (none == NULL || none - s->open >= n_wanted || bits % 8 != 0) {
        return false;
    }
    none->kind = (int32_t)(bits >> 8 & 0xffff) % KINDS;
    const int32_t n_new = 1 + (int32_t)(bits >> 24 & 0xffff) % N_NEW;
    const int32_t cancel_at = (bits >> 40) % 2 == 0 ? (int32_t)(bits >> 44 & 0xff) % 64 : -1;
    ask(s, none, n_new, cancel_at, (bits >> 60) % 4 == 0 ? 3 : 0);
    return true;
}

static base_status next(void *ctx, int64_t wait_us, const group_down **down_out)
{
    script *s = ctx;
    *down_out = NULL;
    if (s->steps >= s->n_steps) {
        s->down = (group_down){.kind = GROUP_DOWN_DRAIN};
        *down_out = wait_us == 0 && s->n_calls++ % 2 == 0 ? &s->down : NULL;
    } else if (choose(s)) {
        *down_out = &s->down;
    } else if (wait_us > 0) {
        base_sleep_us(wait_us < 1000 ? wait_us : 1000);
    }
    return BASE_OK;
}

static void check_token(script *s, request *r, int32_t id)
{
    const kind *k = &the.kinds[r->kind];
    const int32_t n = r->n_got++;
    assert_in_range(n, 0, r->n_new - 1);
    s->n_tokens++;
    if (r->apart) {
        return;
    }
    const bool greedy = k->sampling.temperature <= 0.0f;
    s->n_greedy += greedy;
    s->n_drawn += !greedy;
    if (id == k->tokens[n]) {
        return;
    }
    if (greedy && k->margins[n] > CLOSE_CALL) {
        fail_msg("kind %d: token %d is %d, alone %d (margin %g)", r->kind, n, id, k->tokens[n],
                 (double)k->margins[n]);
    }
    r->apart = true;
    s->n_greedy_apart += greedy;
    s->n_drawn_apart += !greedy;
}

static void end(script *s, const group_up *up)
{
    request *r = find(s, up->seq);
    if (up->reason == GROUP_END_LENGTH) {
        assert_int_equal(r->n_got, r->n_new);
    } else {
        assert_int_equal(up->reason, GROUP_END_CANCELLED);
        assert_true(r->cancelled);
        s->n_cancelled++;
    }
    s->n_ended++;
    r->seq = 0;
}

static void emit(void *ctx, const group_up *up)
{
    script *s = ctx;
    switch (up->kind) {
    case GROUP_UP_TOKENS: check_token(s, find(s, up->seq), up->ids[0]); break;
    case GROUP_UP_ENDED: end(s, up); break;
    case GROUP_UP_REFUSED:
        assert_true(up->retry);
        find(s, up->seq)->seq = 0;
        s->n_refused++;
        break;
    case GROUP_UP_LOAD:
        s->steps = (int64_t)up->steps;
        if (s->host_bytes == 0 && s->steps >= s->n_steps / 4) {
            s->host_bytes = host_bytes();
            s->device_bytes = device_bytes();
        }
        break;
    case GROUP_UP_ADMITTED:
    case GROUP_UP_PROGRESS:
    case GROUP_UP_HELLO: break;
    }
}

/* ---- the kinds, alone ---- */

typedef struct solo {
    script s;
    kind *k;
    bool asked;
} solo;

static base_status solo_next(void *ctx, int64_t wait_us, const group_down **down_out)
{
    solo *o = ctx;
    (void)wait_us;
    if (o->asked) {
        o->s.down = (group_down){.kind = GROUP_DOWN_DRAIN};
    } else {
        o->s.open[0].kind = (int32_t)(o->k - the.kinds);
        ask(&o->s, &o->s.open[0], N_NEW, -1, 2);
    }
    *down_out = o->asked && o->s.n_calls++ % 2 != 0 ? NULL : &o->s.down;
    o->asked = true;
    return BASE_OK;
}

static void solo_emit(void *ctx, const group_up *up)
{
    solo *o = ctx;
    if (up->kind == GROUP_UP_TOKENS) {
        const int32_t n = o->s.open[0].n_got++;
        o->k->tokens[n] = up->ids[0];
        o->k->margins[n] = up->top_logprobs[0] - up->top_logprobs[1];
    }
}

/* io: NULL on ranks that follow. */
static void run(const engine_io *io, const engine_comms *comms, int32_t n_ahead)
{
    static const volatile sig_atomic_t never;
    const engine_options options = {.max_batch = BATCH,
                                    .prefill_chunk = 512,
                                    .max_context = 1024,
                                    .n_pages = BATCH * 6, /* some wait for pages */
                                    .n_ahead = n_ahead};
    engine *e = NULL;
    const model *m = comms->plans == the.alone ? the.model : the.part;
    CHECK_STATUS(engine_create(m, the.format, the.ctx, comms, &options, &base_heap, &e), BASE_OK);
    if (comms->plans != the.alone) {
        CHECK_STATUS(soak_group_watch(the.group, e), BASE_OK);
    }
    CHECK_STATUS(engine_run(e, io, &never), BASE_OK);
    if (comms->plans != the.alone) {
        CHECK_STATUS(soak_group_rest(the.group), BASE_OK);
    }
    engine_destroy(e);
}

static void make_kinds(const int32_t *text)
{
    static const int32_t lengths[] = {1, 5, 60, 127, 128, 129, 30, 3, 300, MAX_PROMPT};
    for (int32_t i = 0; i < KINDS; i++) {
        kind *k = &the.kinds[i];
        k->n_ids = lengths[i % 10];
        memcpy(k->ids, text + i * 113, (size_t)k->n_ids * sizeof *k->ids);
        k->sampling = (inference_sampling){.top_p = 1.0f, .repetition_penalty = 1.0f};
        if (i % 5 == 3) {
            k->sampling = (inference_sampling){.temperature = 0.7f,
                                               .top_p = 0.9f,
                                               .repetition_penalty = i % 2 == 0 ? 1.0f : 1.2f,
                                               .top_k = 40,
                                               .seed = (uint64_t)i};
        }
        solo o = {.k = k};
        const engine_io io = {&o, solo_next, solo_emit};
        const engine_comms alone = {the.alone, the.alone};
        run(&io, &alone, 0);
        assert_int_equal(o.s.open[0].n_got, N_NEW);
    }
}

static void sequences_get_the_tokens_that_they_get_alone(void **state)
{
    static script s;
    (void)state;
    const engine_io io = {&s, next, emit};
    const engine_comms comms =
        the.group != NULL ? soak_group_comms(the.group) : (engine_comms){the.alone, the.alone};
    s.n_steps = the.n_steps;
    const int64_t begun = base_now_us();
    run(comm_rank(comms.plans) == 0 ? &io : NULL, &comms, 1);
    if (comm_rank(comms.plans) != 0) {
        return;
    }
    const double seconds = (double)(base_now_us() - begun) * 1e-6;
    print_message("%lld steps of %d ranks on %s, %.3f ms each: %lld tokens of %lld sequences, %lld "
                  "cancelled, %lld refused\n",
                  (long long)s.steps, the.n_ranks, kern_device_name(the.device),
                  seconds * 1e3 / (double)s.steps, (long long)s.n_tokens, (long long)s.n_ended,
                  (long long)s.n_cancelled, (long long)s.n_refused);
    print_message("greedy: %lld tokens as alone, %lld sequences went another way at a close call; "
                  "drawn: %lld, %lld\n",
                  (long long)s.n_greedy, (long long)s.n_greedy_apart, (long long)s.n_drawn,
                  (long long)s.n_drawn_apart);
    print_message("host %+lld bytes, device %+lld bytes since a quarter of the steps\n",
                  (long long)(host_bytes() - s.host_bytes),
                  (long long)(device_bytes() - s.device_bytes));
    assert_true(s.n_ended > 0 && s.n_cancelled > 0 && s.n_tokens > the.n_steps / 2);
    assert_true(s.n_greedy > s.n_tokens / 3 && s.n_drawn > 0);
    assert_true((double)s.n_drawn_apart <= MOST_BOUNDS * (double)s.n_drawn);
#ifndef __SANITIZE_ADDRESS__ /* keeps what was freed */
    assert_true(host_bytes() - s.host_bytes < GROWTH_BYTES);
#endif
    assert_true(device_bytes() - s.device_bytes < GROWTH_BYTES * the.n_ranks);
}

static int set_up(void **state)
{
    static int32_t text[TEXT];
    json_t *root = NULL;
    kv_policy policy;
    (void)state;
    CHECK_STATUS(base_json_read("tests/golden/prompts.json", (size_t)1 << 20, &root), BASE_OK);
    const json_t *list = json_object_get(root, "text");
    assert_int_equal(json_array_size(list), TEXT);
    for (size_t i = 0; i < TEXT; i++) {
        text[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    base_json_free(root);
    CHECK_STATUS(model_open(MODEL, &base_heap, &the.model), BASE_OK);
    the.part = the.model;
    if (the.splits) {
        const model_options options = {.rank = soak_group_rank(the.group), .n_ranks = the.n_ranks};
        CHECK_STATUS(model_open_with(MODEL, &options, &base_heap, &the.part), BASE_OK);
    }
    const model_config *c = &the.model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    CHECK_STATUS(kv_policy_parse("tq:k=4,v=4", &policy), BASE_OK);
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &the.format), BASE_OK);
    CHECK_STATUS(comm_self_create(&base_heap, &the.alone), BASE_OK);
    if (the.group != NULL) {
        CHECK_STATUS(soak_group_join(the.group, c->head_dim), BASE_OK);
        the.ctx = soak_group_ctx(the.group);
    } else {
        CHECK_STATUS(kern_ctx_create(the.device, 2, &base_heap, &the.ctx), BASE_OK);
    }
    if (the.group == NULL || soak_group_rank(the.group) == 0) {
        make_kinds(text);
    }
    return the.group == NULL || soak_group_meet(the.group) == BASE_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    if (the.group == NULL) {
        kern_ctx_destroy(the.ctx);
    }
    comm_destroy(the.alone);
    kv_format_destroy(the.format);
    if (the.part != the.model) {
        model_close(the.part);
    }
    model_close(the.model);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_get_the_tokens_that_they_get_alone),
    };
    base_log_init("soak", BASE_LOG_ERROR);
    the.n_ranks = 1;
    if (kern_device_choose(NULL, &the.device) != BASE_OK) {
        return 1;
    }
    if (kern_gpu_in_build() && the.device == KERN_DEVICE_CPU &&
        (argc == 1 || (argc == 3 && strcmp(argv[2], "mpi") != 0))) {
        printf("SKIP: no GPU; builds without CUDA run it on the CPU\n");
        return TEST_SKIPPED;
    }
    if (argc == 3 && soak_group_open(argv[2], &the.group, &the.device, &the.n_ranks) != BASE_OK) {
        (void)fprintf(stderr, "%s\n", base_last_error());
        return 1;
    }
    the.splits = argc == 3 && strcmp(argv[2], "lsa-split") == 0;
    the.n_steps = argc > 1                         ? strtoll(argv[1], NULL, 10)
                  : the.device == KERN_DEVICE_CUDA ? GPU_STEPS
                                                   : CPU_STEPS;
    const int n_failed = cmocka_run_group_tests(tests, set_up, tear_down);
    soak_group_close(the.group);
    return n_failed;
}
