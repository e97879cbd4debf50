/* The demo model on the GPU against the same on the CPU: logits of a text fed token by token and in chunks, and
 * greedy tokens.  Skips, saying so, where there is no GPU. */
#include "base/json.h"
#include "kernels/device.h"
#include "tests/support/logits_distance.h"
#include "tests/support/test.h"
#include "worker/eval/run.h"

#include <math.h>
#include <stdio.h>

#define DEMO "models/demo"

enum { V = 4096, PROMPT = 513, N_DECODE = 160, CHUNK = 192, CONTEXT = 2048 };

/* Of a row of logits, relative to its size in norm.  The GPU rounds what prefill multiplies to bf16, 2^-9 relative,
 * and a K or V that rounds the other way may turn a code of its page.  Measured: 0.0022, 0.012 under
 * tq 3/3, 0.014 under kivi 2/2. */
#define BF16_TOLERANCE  0.01
#define CODES_TOLERANCE 0.04

static model *m;
static comm *ranks;
static kern_ctx *cpu;
static kern_ctx *gpu;
static int32_t text[CONTEXT];

static void read_ids(const json_t *list, int32_t *ids_out, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        ids_out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    }
}

static int set_up(void **state)
{
    json_t *root = NULL;
    (void)state;
    CHECK_STATUS(base_json_read("tests/golden/prompts.json", (size_t)1 << 20, &root), BASE_OK);
    assert_true(json_array_size(json_object_get(root, "text")) >= PROMPT + N_DECODE);
    read_ids(json_object_get(root, "text"), text, PROMPT + N_DECODE);
    base_json_free(root);
    CHECK_STATUS(model_open(DEMO, &base_heap, &m), BASE_OK);
    assert_int_equal(m->config.n_vocab, V);
    CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(2, &base_heap, &cpu), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cuda(0, &base_heap, &gpu), BASE_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kern_ctx_destroy(gpu);
    kern_ctx_destroy(cpu);
    comm_destroy(ranks);
    model_close(m);
    return 0;
}

static eval_run *run_on(kern_ctx *ctx, const char *policy_text, int32_t n_slots)
{
    const eval_run_options options = {
        .max_step_tokens = 512, .max_samples = 512, .max_context = CONTEXT, .n_slots = n_slots};
    kv_policy policy;
    eval_run *run = NULL;
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(eval_run_create(m, &policy, ctx, ranks, &options, &base_heap, &run), BASE_OK);
    return run;
}

static float *logits_on(kern_ctx *ctx)
{
    float *logits = kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, (size_t)V * sizeof *logits);
    assert_non_null(logits);
    return logits;
}

/* The text in chunks, then token by token across block ends: the last row of every step is compared, and the
 * token it picks where the margin on both sides is above the difference. */
static void check_policy(const char *policy, double tolerance)
{
    eval_run *on_cpu = run_on(cpu, policy, 1);
    eval_run *on_gpu = run_on(gpu, policy, 1);
    float *want = logits_on(cpu);
    float *got = logits_on(gpu);
    double largest = 0.0;
    double sum = 0.0;
    int32_t n = 0;
    int32_t n_decided = 0;

    for (int32_t at = 0; at < PROMPT + N_DECODE; n++) {
        const int32_t left = PROMPT - at;
        const int32_t n_tokens = left >= CHUNK ? CHUNK : left > 0 ? left : 1;
        CHECK_STATUS(eval_run_feed(on_cpu, text + at, n_tokens, n_tokens, want), BASE_OK);
        CHECK_STATUS(eval_run_feed(on_gpu, text + at, n_tokens, n_tokens, got), BASE_OK);
        const double off = logits_distance(got, want, V);
        if (!(off <= tolerance)) {
            fail_msg("%s: after %d tokens logits are %.4f off, allowed %.4f", policy, at + n_tokens,
                     off, tolerance);
        }
        if (fmin(logits_margin(want, V), logits_margin(got, V)) >
            2.0 * logits_worst(want, got, V)) {
            assert_int_equal(eval_logits_best(want, V), eval_logits_best(got, V));
            n_decided++;
        }
        largest = fmax(largest, off);
        sum += off;
        at += n_tokens;
    }
    print_message("%s: %d steps, logits off by %.5f on average, %.5f at most; %d tokens compared\n",
                  policy, n, sum / n, largest, n_decided);
    assert_true(n_decided > n / 2);
    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, got);
    kern_mirror(cpu)->put(kern_mirror(cpu)->ctx, want);
    eval_run_destroy(on_gpu);
    eval_run_destroy(on_cpu);
}

static void bf16_pages_give_the_cpus_logits(void **state)
{
    (void)state;
    check_policy("bf16", BF16_TOLERANCE);
}

static void four_bit_pages_give_the_cpus_logits(void **state)
{
    (void)state;
    check_policy("tq:k=4,v=4", CODES_TOLERANCE);
}

static void three_bit_pages_give_the_cpus_logits(void **state)
{
    (void)state;
    check_policy("tq:k=3,v=3", CODES_TOLERANCE);
}

/* Windows and sinks, groups of every size, a side of bf16. */
static void affine_pages_give_the_cpus_logits(void **state)
{
    (void)state;
    check_policy("kivi:k=4,v=4", CODES_TOLERANCE);
    check_policy("kivi:k=2,v=2,w=0", CODES_TOLERANCE);
    check_policy("kivi:k=2,v=2,g=128,w=256,s=128", CODES_TOLERANCE);
    check_policy("kivi:k=4,v=2,g=64,w=128", CODES_TOLERANCE);
    check_policy("kivi:k=8,v=16", BF16_TOLERANCE);
    check_policy("kivi:k=16,v=8,g=64", BF16_TOLERANCE);
}

/* The prompts of the model's golden file, whose margins the reference's differences do not reach. */
static void greedy_tokens_are_the_golden_ones(void **state)
{
    (void)state;
    json_t *root = NULL;
    float *logits = logits_on(gpu);
    CHECK_STATUS(base_json_read(DEMO "/golden.json", (size_t)1 << 20, &root), BASE_OK);
    const json_t *prompts = json_object_get(root, "prompts");
    assert_true(json_array_size(prompts) > 0);
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *ids = json_object_get(json_array_get(prompts, i), "input_ids");
        const json_t *greedy = json_object_get(json_array_get(prompts, i), "greedy_ids");
        static int32_t input[CONTEXT];
        const int32_t n = (int32_t)json_array_size(ids);
        assert_in_range(n, 1, CONTEXT);
        read_ids(ids, input, n);
        eval_run *run = run_on(gpu, "bf16", 1);
        CHECK_STATUS(eval_run_feed(run, input, n, 512, logits), BASE_OK);
        for (size_t t = 0; t < json_array_size(greedy); t++) {
            const int32_t want = (int32_t)json_integer_value(json_array_get(greedy, t));
            assert_int_equal(eval_logits_best(logits, V), want);
            CHECK_STATUS(eval_run_feed(run, &want, 1, 1, logits), BASE_OK);
        }
        eval_run_destroy(run);
    }
    base_json_free(root);
    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, logits);
}

/* Sequences that decode and one that is still in its prompt share a step, as in the engine. */
static void a_mixed_step_gives_what_each_sequence_gives_alone(void **state)
{
    enum { ALONE = 200, TAIL = 40 };
    (void)state;
    const char *policy = "tq:k=4,v=4";
    eval_run *mixed = run_on(gpu, policy, 2);
    eval_run *alone = run_on(gpu, policy, 1);
    float *got = kern_mirror(gpu)->get(kern_mirror(gpu)->ctx, 2 * (size_t)V * sizeof *got);
    float *want = logits_on(gpu);
    int32_t ids[1 + ALONE];
    assert_non_null(got);
    CHECK_STATUS(eval_run_feed(mixed, text, TAIL, TAIL, NULL), BASE_OK); /* slot 0 */
    ids[0] = text[TAIL];
    for (int32_t i = 0; i < ALONE; i++) {
        ids[1 + i] = text[300 + i];
    }
    kv_step_seq seqs[2] = {{.slot = 0, .n_tokens = 1}, {.slot = 1, .n_tokens = ALONE}};
    const int32_t rows[2] = {0, ALONE};
    CHECK_STATUS(eval_run_step(mixed, seqs, 2, ids, rows, 2, got), BASE_OK);

    CHECK_STATUS(eval_run_feed(alone, text, TAIL, TAIL, NULL), BASE_OK);
    CHECK_STATUS(eval_run_feed(alone, text + TAIL, 1, 1, want), BASE_OK);
    assert_true(logits_distance(got, want, V) <= CODES_TOLERANCE);
    eval_run_clear(alone);
    CHECK_STATUS(eval_run_feed(alone, text + 300, ALONE, ALONE, want), BASE_OK);
    assert_true(logits_distance(got + V, want, V) <= CODES_TOLERANCE);

    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, want);
    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, got);
    eval_run_destroy(alone);
    eval_run_destroy(mixed);
}

static base_status look_on(void *ctx, const forward_observation *seen)
{
    (void)ctx;
    (void)seen;
    return BASE_OK;
}

/* Whoever watches a step has its ops launched one by one, and q and k turned for it: the bits are those of the step
 * that nobody watches, which is replayed in one piece.  Batches on both sides of what one launch multiplies. */
static void a_replayed_step_gives_the_bits_of_its_ops(void **state)
{
    enum { MAX = 9, BEGIN = 120, STEPS = 12 };
    static const int32_t batches[] = {1, 3, 8, MAX};
    float *got = kern_mirror(gpu)->get(kern_mirror(gpu)->ctx, MAX * (size_t)V * sizeof *got);
    float *want = kern_mirror(gpu)->get(kern_mirror(gpu)->ctx, MAX * (size_t)V * sizeof *want);
    (void)state;
    assert_non_null(got);
    assert_non_null(want);
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        const int32_t n = batches[i];
        eval_run *replayed = run_on(gpu, "tq:k=3,v=3", MAX);
        eval_run *watched = run_on(gpu, "tq:k=3,v=3", MAX);
        forward_set_observer(watched->forward, look_on, NULL);
        for (int32_t slot = 0; slot < n; slot++) {
            kv_step_seq seq = {.slot = slot, .n_tokens = BEGIN};
            CHECK_STATUS(eval_run_step(replayed, &seq, 1, text + slot, NULL, 0, NULL), BASE_OK);
            CHECK_STATUS(eval_run_step(watched, &seq, 1, text + slot, NULL, 0, NULL), BASE_OK);
        }
        for (int32_t t = 0; t < STEPS; t++) { /* a block fills on the way */
            kv_step_seq seqs[MAX];
            int32_t ids[MAX];
            int32_t rows[MAX];
            for (int32_t slot = 0; slot < n; slot++) {
                seqs[slot] = (kv_step_seq){.slot = slot, .n_tokens = 1};
                ids[slot] = text[slot + BEGIN + t];
                rows[slot] = slot;
            }
            CHECK_STATUS(eval_run_step(replayed, seqs, n, ids, rows, n, got), BASE_OK);
            CHECK_STATUS(eval_run_step(watched, seqs, n, ids, rows, n, want), BASE_OK);
            assert_memory_equal(got, want, (size_t)n * V * sizeof *got);
        }
        eval_run_destroy(watched);
        eval_run_destroy(replayed);
    }
    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, want);
    kern_mirror(gpu)->put(kern_mirror(gpu)->ctx, got);
}

int main(void)
{
    if (kern_gpu_count() == 0) {
        printf("SKIP: no CUDA device\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_pages_give_the_cpus_logits),
        cmocka_unit_test(four_bit_pages_give_the_cpus_logits),
        cmocka_unit_test(three_bit_pages_give_the_cpus_logits),
        cmocka_unit_test(affine_pages_give_the_cpus_logits),
        cmocka_unit_test(greedy_tokens_are_the_golden_ones),
        cmocka_unit_test(a_mixed_step_gives_what_each_sequence_gives_alone),
        cmocka_unit_test(a_replayed_step_gives_the_bits_of_its_ops),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
