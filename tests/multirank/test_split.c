/* Ranks that share the weights give the logits of one that has them all.
 *
 * usage: mpirun -n N multirank.test_split [cuda|lsa]
 *
 *   cuda   on GPUs, which ranks share where there are fewer; skips where there is none
 *   lsa    the same with the one-shot exchange
 *
 * Every rank runs the whole model too, alone, and compares.  A model that cannot be shared out to N ranks must say so. */
#include "tests/support/compared_ranks.h"
#include "tests/support/forward_alloc.h"
#include "worker/model/resident.h"

#include <math.h>
#include <stdio.h>

enum { PROMPT = 376, N_DECODE = 16, CHUNK = 192, CONTEXT = 512, MAX_VOCAB = 4096, SEQS = 3 };

static eval_run *run_of(const model *m, comm *ranks, const char *policy_text)
{
    const eval_run_options options = {
        .max_step_tokens = CHUNK, .max_samples = SEQS, .max_context = CONTEXT, .n_slots = SEQS};
    return compared_run(m, ranks, policy_text, &options);
}

static float *logits_of(int32_t n_rows)
{
    const size_t n_bytes = (size_t)n_rows * MAX_VOCAB * sizeof(float);
    float *logits = kern_mirror(the.ctx)->get(kern_mirror(the.ctx)->ctx, n_bytes);
    assert_non_null(logits);
    return logits;
}

static void end_logits(float *logits)
{
    kern_mirror(the.ctx)->put(kern_mirror(the.ctx)->ctx, logits);
}

typedef struct pair {
    model *whole;
    model *part;
} pair;

/* False, where the model has fewer heads than there are ranks: it is refused, and by name. */
static bool open_pair(const char *name, pair *p)
{
    const model_options options = {.rank = the.world.rank, .n_ranks = the.world.n_ranks};
    CHECK_STATUS(model_open(name, &base_heap, &p->whole), BASE_OK);
    const base_status st = model_open_with(name, &options, &base_heap, &p->part);
    if (p->whole->config.n_heads < the.world.n_ranks) {
        assert_int_equal(st, BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("num_attention_heads");
        model_close(p->whole);
        return false;
    }
    CHECK_STATUS(st, BASE_OK);
    assert_true(p->whole->config.n_vocab <= MAX_VOCAB);
    return true;
}

static void close_pair(pair *p)
{
    model_close(p->part);
    model_close(p->whole);
}

/* A text in chunks, then token by token over the end of a block. */
static void check_text(const pair *p, const char *name, const char *policy, double tolerance)
{
    const int32_t n = p->whole->config.n_vocab;
    eval_run *alone = run_of(p->whole, the.self, policy);
    eval_run *split = run_of(p->part, the.all, policy);
    float *want = logits_of(1);
    float *got = logits_of(1);
    double largest = 0.0;
    int32_t ids[CONTEXT];
    for (int32_t i = 0; i < PROMPT + N_DECODE; i++) {
        ids[i] = the.text[i] % n;
    }
    for (int32_t at = 0; at < PROMPT + N_DECODE;) {
        const int32_t left = PROMPT - at;
        const int32_t n_tokens = left >= CHUNK ? CHUNK : left > 0 ? left : 1;
        CHECK_STATUS(eval_run_feed(alone, ids + at, n_tokens, n_tokens, want), BASE_OK);
        CHECK_STATUS(eval_run_feed(split, ids + at, n_tokens, n_tokens, got), BASE_OK);
        at += n_tokens;
        const double off = logits_distance(got, want, n);
        if (!(off <= tolerance)) {
            fail_msg("%s, %s, %d ranks: after %d tokens logits are %.5f off, allowed %.5f", name,
                     policy, the.world.n_ranks, at, off, tolerance);
        }
        assert_true(logits_same_best(got, want, n));
        largest = fmax(largest, off);
    }
    print_message("%s, %s: logits off by %.6f at most\n", name, policy, largest);
    end_logits(got);
    end_logits(want);
    eval_run_destroy(split);
    eval_run_destroy(alone);
}

static const struct {
    const char *model;
    const char *policy;
    bool codes;
} cases[] = {
    {"models/demo", "bf16", false},
    {"models/demo", "tq:k=4,v=4", true},
    {"models/demo", "tq:k=3,v=3", true},
    {"models/demo", "kivi:k=4,v=4,g=64,w=128,s=128", true},
    {COMPARED_TINY "llama", "bf16", false},        /* two heads of one KV head, f16, tied */
    {COMPARED_TINY "llama-llama3", "bf16", false}, /* not tied */
    {COMPARED_TINY "mistral", "bf16", false},
    {COMPARED_TINY "qwen2", "bf16", false}, /* biases */
    {COMPARED_TINY "qwen3", "bf16", false}, /* norms of heads */
    {"random:tiny", "bf16", false},
};

static void logits_of_a_text_are_those_of_whole_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pair p = {.whole = NULL};
        if (open_pair(cases[i].model, &p)) {
            check_text(&p, cases[i].model, cases[i].policy, compared_tolerance(cases[i].codes));
            close_pair(&p);
        }
    }
}

/* Sequences that decode beside one in its prompt; rows of three are put together, on the ranks that want them. */
static void rows_of_a_mixed_step_are_in_their_places(void **state)
{
    (void)state;
    pair p = {.whole = NULL};
    assert_true(open_pair("models/demo", &p));
    enum { V = MAX_VOCAB, TAIL = 40 };
    assert_int_equal(p.whole->config.n_vocab, V);
    float *want = logits_of(SEQS);
    float *got = logits_of(SEQS);
    for (int32_t last = 0; last < 2; last++) { /* only the last rank wants them, or all do */
        eval_run *runs[2] = {run_of(p.whole, the.self, "bf16"), run_of(p.part, the.all, "bf16")};
        const bool wants = last == 0 || the.world.rank == the.world.n_ranks - 1;
        memset(got, 0, SEQS * V * sizeof *got);
        for (int32_t i = 0; i < 2; i++) {
            static const int32_t rows[SEQS] = {1 + TAIL, 0, 1};
            kv_step_seq seqs[SEQS] = {{.slot = 0, .n_tokens = 1},
                                      {.slot = 1, .n_tokens = 1},
                                      {.slot = 2, .n_tokens = TAIL}};
            kv_step_seq first = {.slot = 0, .n_tokens = CHUNK};
            kv_step_seq second = {.slot = 1, .n_tokens = 7};
            float *to = i == 0 ? want : wants ? got : NULL;
            CHECK_STATUS(eval_run_step(runs[i], &first, 1, the.text, NULL, 0, NULL), BASE_OK);
            CHECK_STATUS(eval_run_step(runs[i], &second, 1, the.text + 9, NULL, 0, NULL), BASE_OK);
            CHECK_STATUS(eval_run_step(runs[i], seqs, SEQS, the.text + 50, rows, SEQS, to),
                         BASE_OK);
        }
        for (int32_t s = 0; s < SEQS && wants; s++) {
            assert_true(logits_distance(got + s * V, want + s * V, V) <= compared_tolerance(false));
        }
        eval_run_destroy(runs[1]);
        eval_run_destroy(runs[0]);
    }
    end_logits(got);
    end_logits(want);
    close_pair(&p);
}

/* What a rank holds is its share and what all have. */
static void a_rank_holds_its_share_alone(void **state)
{
    (void)state;
    pair p = {.whole = NULL};
    int64_t all[8];
    int64_t sum = 0;
    assert_true(open_pair("models/demo", &p) && the.world.n_ranks <= 8);
    const model_config *c = &p.whole->config;
    const int64_t per_layer =
        2 * c->width + (c->n_heads + 2 * c->n_kv_heads) * c->head_dim * c->width;
    const int64_t common = 2 * (c->width + c->n_layers * per_layer); /* bf16 */
    const int64_t own = resident_bytes(p.part) - common;
    CHECK_STATUS(comm_all_gather(the.host, &own, all, sizeof own, 20000), BASE_OK);
    for (int32_t r = 0; r < the.world.n_ranks; r++) {
        sum += all[r];
    }
    assert_int_equal(sum, resident_bytes(p.whole) - common);
    close_pair(&p);
}

/* ---- forward_create ---- */

static void create_takes_the_bytes_it_says_and_survives_failed_allocations(void **state)
{
    (void)state;
    pair p = {.whole = NULL};
    const forward_limits limits = {100, 3, 1000, 5};
    if (the.on_gpu) { /* its memory is not ours to count */
        skip();
    }
    assert_true(open_pair("random:tiny", &p));
    kv_format *format = compared_format(p.part);
    check_forward_allocations(p.part, format, the.host, &limits);
    kv_format_destroy(format);
    close_pair(&p);
}

static void the_part_of_another_rank_is_refused(void **state)
{
    (void)state;
    const model_options options = {.rank = (the.world.rank + 1) % 4, .n_ranks = 4};
    const forward_limits limits = {100, 3, 1000, 5};
    model *m = NULL;
    forward *f = NULL;
    CHECK_STATUS(model_open_with("random:tiny", &options, &base_heap, &m), BASE_OK);
    kv_format *format = compared_format(m);
    CHECK_STATUS(forward_create(m, format, the.ctx, the.all, &limits, &base_heap, &f),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("weights of rank");
    assert_null(f);
    kv_format_destroy(format);
    model_close(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_a_text_are_those_of_whole_weights),
        cmocka_unit_test(rows_of_a_mixed_step_are_in_their_places),
        cmocka_unit_test(a_rank_holds_its_share_alone),
        cmocka_unit_test(the_part_of_another_rank_is_refused),
        cmocka_unit_test(create_takes_the_bytes_it_says_and_survives_failed_allocations),
    };
    const int unfit = compared_start(argc > 1 ? argv[1] : "", COMM_NCCL_A2A);
    if (unfit != 0) {
        return unfit;
    }
    const int n_failed = cmocka_run_group_tests(tests, compared_read_text, NULL);
    compared_end();
    return n_failed;
}
