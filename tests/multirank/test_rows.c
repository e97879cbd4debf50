/* Ranks that share the rows of long steps give the logits of one that has them all.
 *
 * usage: mpirun -n N multirank.test_rows [cuda]
 *
 *   cuda   on GPUs, which ranks share where there are fewer; skips where there is none
 *
 * Every rank runs each text alone too, and compares. */
#include "tests/support/compared_ranks.h"
#include "tests/support/forward_alloc.h"
#include "worker/model/rows.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_RANKS = 4, CONTEXT = 2048, MAX_VOCAB = 4096, MAX_ROWS = 2 * MAX_RANKS, SEQS = 3 };

static const model_split whole = {.n_ranks = 1};

/* Tokens of the shortest step that these ranks share; of one rank, which shares none, what two have. */
static int32_t shortest(void)
{
    return model_rows_shortest(&whole, the.world.n_ranks > 1 ? the.world.n_ranks : 2);
}

typedef struct pair { /* the same model on this rank alone, and on all ranks */
    eval_run *alone;
    eval_run *together;
    float *want; /* [MAX_ROWS, V] */
    float *got;
} pair;

static eval_run *run_of(const model *m, comm *ranks, const char *policy_text)
{
    const eval_run_options options = {.max_step_tokens = CONTEXT,
                                      .max_samples = MAX_ROWS,
                                      .max_context = CONTEXT,
                                      .n_slots = SEQS};
    return compared_run(m, ranks, policy_text, &options);
}

static pair open_pair(const model *m, const char *policy)
{
    const base_alloc *mirror = kern_mirror(the.ctx);
    const size_t n_bytes = (size_t)MAX_ROWS * MAX_VOCAB * sizeof(float);
    const pair p = {.alone = run_of(m, the.self, policy),
                    .together = run_of(m, the.all, policy),
                    .want = mirror->get(mirror->ctx, n_bytes),
                    .got = mirror->get(mirror->ctx, n_bytes)};
    assert_true(m->config.n_vocab <= MAX_VOCAB);
    assert_true(p.want != NULL && p.got != NULL);
    return p;
}

static void close_pair(pair *p)
{
    const base_alloc *mirror = kern_mirror(the.ctx);
    mirror->put(mirror->ctx, p->got);
    mirror->put(mirror->ctx, p->want);
    eval_run_destroy(p->together);
    eval_run_destroy(p->alone);
}

typedef struct one_step {
    kv_step_seq seqs[SEQS];
    int32_t n_seqs;
    const int32_t *ids;
    const int32_t *rows;
    int32_t n_rows;
    bool wants; /* this rank the logits */
} one_step;

/* How far logits are off at most; 0 where this rank wants none. */
static double check_step(const pair *p, one_step s, const char *what, double tolerance)
{
    const int32_t n = p->alone->model->config.n_vocab;
    double largest = 0.0;
    kv_step_seq again[SEQS];
    memcpy(again, s.seqs, sizeof again);
    memset(p->got, 0, (size_t)s.n_rows * (size_t)n * sizeof *p->got);
    CHECK_STATUS(eval_run_step(p->alone, s.seqs, s.n_seqs, s.ids, s.rows, s.n_rows, p->want),
                 BASE_OK);
    CHECK_STATUS(eval_run_step(p->together, again, s.n_seqs, s.ids, s.rows, s.n_rows,
                               s.wants ? p->got : NULL),
                 BASE_OK);
    for (int32_t i = 0; i < s.n_rows && s.wants; i++) {
        const float *want = p->want + (int64_t)i * n;
        const float *got = p->got + (int64_t)i * n;
        const double off = logits_distance(got, want, n);
        if (!(off <= tolerance)) {
            fail_msg("%s, %d ranks, rank %d: logits of row %d are %.5f off, allowed %.5f", what,
                     the.world.n_ranks, the.world.rank, s.rows[i], off, tolerance);
        }
        assert_true(logits_same_best(got, want, n));
        largest = fmax(largest, off);
    }
    return largest;
}

/* The first row of each rank, and the last. */
static int32_t rows_of_all_ranks(int32_t n_tokens, int32_t *rows_out)
{
    int32_t n = 0;
    for (int32_t r = 0; r < the.world.n_ranks; r++) {
        const model_rows rows = model_rows_make(&whole, r, the.world.n_ranks, n_tokens);
        rows_out[n++] = rows.end - 1;
        rows_out[n++] = rows.begin;
    }
    return n;
}

/* A text in steps about the shortest that is shared, one that leaves the last rank a short share, then token by token
 * over the end of a block. */
static void check_text(const model *m, const char *name, const char *policy, double tolerance)
{
    pair p = open_pair(m, policy);
    const int32_t least = shortest();
    const int32_t steps[] = {least, least - 1, least + 1, 1, 2 * least + 5, 1, 1, 1};
    double largest = 0.0;
    int32_t at = 0;
    int32_t ids[CONTEXT];
    char what[128];

    for (int32_t i = 0; i < CONTEXT; i++) {
        ids[i] = the.text[i] % m->config.n_vocab;
    }
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        int32_t rows[MAX_ROWS];
        const int32_t n_rows = rows_of_all_ranks(steps[i], rows);
        const bool wants = i % 3 == 0   ? the.world.rank == 0 /* or the last rank alone, or all */
                           : i % 3 == 1 ? the.world.rank == the.world.n_ranks - 1
                                        : true;
        const one_step s = {{{.slot = 0, .n_tokens = steps[i]}}, 1, ids + at, rows, n_rows, wants};
        (void)snprintf(what, sizeof what, "%s, %s, %d tokens at %d", name, policy, steps[i], at);
        largest = fmax(largest, check_step(&p, s, what, tolerance));
        at += steps[i];
    }
    print_message("%s, %s: logits off by %.6f at most\n", name, policy, largest);
    close_pair(&p);
}

static const struct {
    const char *model;
    const char *policy;
    bool codes;
} cases[] = {
    {"models/demo", "bf16", false},         {"models/demo", "tq:k=4,v=4", true},
    {"models/demo", "tq:k=3,v=3", true},    {"models/demo", "kivi:k=4,v=4,g=64,w=128,s=128", true},
    {COMPARED_TINY "llama", "bf16", false}, /* f16 */
    {COMPARED_TINY "qwen2", "bf16", false}, /* biases */
    {COMPARED_TINY "qwen3", "bf16", false}, /* norms of heads */
};

static void logits_of_a_text_are_those_of_one_rank(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model *m = NULL;
        CHECK_STATUS(model_open(cases[i].model, &base_heap, &m), BASE_OK);
        check_text(m, cases[i].model, cases[i].policy, compared_tolerance(cases[i].codes));
        model_close(m);
    }
}

/* Before and behind a part of a prompt: of the first rank's rows and of the last's. */
static void sequences_decode_beside_a_prompt(void **state)
{
    (void)state;
    model *m = NULL;
    CHECK_STATUS(model_open("models/demo", &base_heap, &m), BASE_OK);
    pair p = open_pair(m, "tq:k=4,v=4");
    const int32_t part = shortest() + 3;
    const int32_t last = 1 + part;
    const int32_t rows[] = {last, 0, part, 1};
    const one_step before[] = {
        {{{.slot = 0, .n_tokens = shortest()}}, 1, the.text, NULL, 0, false},
        {{{.slot = 1, .n_tokens = 131}}, 1, the.text + 9, NULL, 0, false},
        {{{.slot = 2, .n_tokens = 50}}, 1, the.text + 77, NULL, 0, false},
    };
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        (void)check_step(&p, before[i], "a first step", 0.0);
    }
    const one_step mixed = {
        {{.slot = 0, .n_tokens = 1}, {.slot = 2, .n_tokens = part}, {.slot = 1, .n_tokens = 1}},
        SEQS,
        the.text + 300,
        rows,
        4,
        true};
    for (int32_t i = 0; i < 2; i++) {
        (void)check_step(&p, mixed, "a mixed step", compared_tolerance(true));
    }
    close_pair(&p);
    model_close(m);
}

/* ---- who watches ---- */

typedef struct watched { /* of the last layer of a step, which depends on all that others saw */
    const model_config *config;
    int64_t positions[CONTEXT];
    float *q, *k, *v;
    int32_t n_tokens;
} watched;

static float *copy_of(const float *x, int32_t n)
{
    float *copy = malloc((size_t)n * sizeof *x);
    assert_non_null(copy);
    memcpy(copy, x, (size_t)n * sizeof *x);
    return copy;
}

static base_status watch(void *ctx, const forward_observation *seen)
{
    watched *w = ctx;
    const int32_t n = seen->n_tokens * w->config->head_dim;
    if (seen->layer == w->config->n_layers - 1) {
        w->n_tokens = seen->n_tokens;
        memcpy(w->positions, seen->positions, (size_t)seen->n_tokens * sizeof *seen->positions);
        w->q = copy_of(seen->q, n * w->config->n_heads);
        w->k = copy_of(seen->k, n * w->config->n_kv_heads);
        w->v = copy_of(seen->v, n * w->config->n_kv_heads);
    }
    return BASE_OK;
}

static void check_seen(float *got, float *want, int32_t n_rows, int32_t n_cols)
{
    for (int32_t i = 0; i < n_rows; i++) {
        assert_true(logits_distance(got + i * n_cols, want + i * n_cols, n_cols) <=
                    5.0 * compared_tolerance(false));
    }
    free(got);
    free(want);
}

static void whoever_watches_sees_the_rows_of_all_ranks(void **state)
{
    (void)state;
    model *m = NULL;
    static watched seen[2];
    CHECK_STATUS(model_open("models/demo", &base_heap, &m), BASE_OK);
    pair p = open_pair(m, "bf16");
    const int32_t row = shortest();
    seen[0].config = seen[1].config = &m->config;
    forward_set_observer(p.alone->forward, watch, &seen[0]);
    forward_set_observer(p.together->forward, watch, &seen[1]);
    const one_step s = {{{.slot = 0, .n_tokens = row + 1}}, 1, the.text, &row, 1, true};
    (void)check_step(&p, s, "a step that is watched", compared_tolerance(false));
    assert_int_equal(seen[1].n_tokens, row + 1);
    assert_memory_equal(seen[1].positions, seen[0].positions,
                        (size_t)(row + 1) * sizeof seen[0].positions[0]);
    check_seen(seen[1].q, seen[0].q, row + 1, m->config.n_heads * m->config.head_dim);
    check_seen(seen[1].k, seen[0].k, row + 1, m->config.n_kv_heads * m->config.head_dim);
    check_seen(seen[1].v, seen[0].v, row + 1, m->config.n_kv_heads * m->config.head_dim);
    close_pair(&p);
    model_close(m);
}

/* ---- forward_create ---- */

static void create_takes_the_bytes_it_says_and_survives_failed_allocations(void **state)
{
    (void)state;
    model *m = NULL;
    const forward_limits limits = {5 * shortest() + 1, 3, 1000, 5};
    if (the.on_gpu) { /* its memory is not ours to count */
        skip();
    }
    CHECK_STATUS(model_open("random:tiny", &base_heap, &m), BASE_OK);
    kv_format *format = compared_format(m);
    check_forward_allocations(m, format, the.host, &limits);
    kv_format_destroy(format);
    model_close(m);
}

/* Activations are an Nth; queries, keys, values and partials are of all rows. */
static void more_ranks_need_less_for_a_long_step(void **state)
{
    (void)state;
    model *m = NULL;
    const forward_limits limits = {8192, 3, 1000, 5};
    CHECK_STATUS(model_open("models/demo", &base_heap, &m), BASE_OK);
    int64_t before = forward_scratch_bytes(&m->config, &m->split, &limits, 2);
    for (int32_t n_ranks = 3; n_ranks <= 8; n_ranks++) {
        const int64_t n_bytes = forward_scratch_bytes(&m->config, &m->split, &limits, n_ranks);
        assert_true(n_bytes < before);
        before = n_bytes;
    }
    model_close(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_a_text_are_those_of_one_rank),
        cmocka_unit_test(sequences_decode_beside_a_prompt),
        cmocka_unit_test(whoever_watches_sees_the_rows_of_all_ranks),
        cmocka_unit_test(create_takes_the_bytes_it_says_and_survives_failed_allocations),
        cmocka_unit_test(more_ranks_need_less_for_a_long_step),
    };
    const int unfit = compared_start(argc > 1 ? argv[1] : "", COMM_NCCL_AG);
    if (unfit != 0) {
        return unfit;
    }
    const int n_failed = cmocka_run_group_tests(tests, compared_read_text, NULL);
    compared_end();
    return n_failed;
}
