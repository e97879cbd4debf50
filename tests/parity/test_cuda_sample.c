/* The CUDA sampler gives the CPU's tokens, exactly, and its reports within the header's tolerance. */
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

#include <float.h>
#include <string.h>

enum { MAX_ROWS = 64 };

typedef struct world {
    kern_ctx *cpu;
    float *logits; /* [n_rows, n_vocab] */
    kern_sample_row rows[MAX_ROWS];
    int32_t n_rows;
    int32_t n_vocab;
} world;

static void check_reports(const world *w, const kern_sample_report *got,
                          const kern_sample_report *want)
{
    for (int32_t r = 0; r < w->n_rows; r++) {
        if (w->rows[r].n_top > 0) {
            check_close(&got[r].logprob, &want[r].logprob, 1, 1e-5, 1e-6);
            check_close(got[r].top_logprobs, want[r].top_logprobs, w->rows[r].n_top, 1e-5, 1e-6);
            assert_memory_equal(got[r].top_ids, want[r].top_ids,
                                (size_t)w->rows[r].n_top * sizeof(int32_t));
        }
    }
}

/* Both backends on the same logits: ids, sets and reports. */
static void check(const world *w, const char *what)
{
    const int32_t n_slots = w->n_rows + 3;
    const size_t n_words = (size_t)(n_slots * KERN_SAMPLE_SEEN_WORDS(w->n_vocab));
    const size_t id_bytes = (size_t)n_slots * sizeof(int32_t);
    uint64_t *seen = parity_memory((int64_t)n_words, sizeof *seen);
    int32_t *ids = parity_memory(n_slots, sizeof *ids);
    kern_sample_report *reports = parity_memory(w->n_rows, sizeof *reports);
    parity_device device = {.n_held = 0};

    for (size_t i = 0; i < n_words; i++) {
        seen[i] = base_random_u64(PARITY_SEED, 3, i) & base_random_u64(PARITY_SEED, 4, i);
    }
    kern_sample_args a = {.logits = w->logits,
                          .rows = w->rows,
                          .ids = ids,
                          .seen = seen,
                          .reports = reports,
                          .n_rows = w->n_rows,
                          .n_vocab = w->n_vocab,
                          .n_slots = n_slots};
    kern_sample_args d = a;
    d.logits =
        device_copy(&device, w->logits, (size_t)w->n_rows * (size_t)w->n_vocab * sizeof *w->logits);
    d.rows = device_copy(&device, w->rows, sizeof w->rows);
    d.ids = on_device(ids, id_bytes);
    d.seen = on_device(seen, n_words * sizeof *seen);
    d.reports = on_device(reports, (size_t)w->n_rows * sizeof *reports);
    CHECK_STATUS(kern_sample(w->cpu, &a), BASE_OK);
    CHECK_STATUS(kern_cuda_sample(NULL, &d), BASE_OK);

    int32_t *got_ids = bytes_from_device(d.ids, id_bytes);
    for (int32_t r = 0; r < w->n_rows; r++) {
        const kern_sample_row *p = &w->rows[r];
        if (got_ids[p->slot] != ids[p->slot]) {
            fail_msg("%s: row %d of %d ids (T %g, top_k %d, top_p %g, min_p %g, penalty %g): %d, "
                     "want %d",
                     what, r, w->n_vocab, (double)p->temperature, p->top_k, (double)p->top_p,
                     (double)p->min_p, (double)p->penalty, got_ids[p->slot], ids[p->slot]);
        }
    }
    assert_memory_equal(got_ids, ids, id_bytes);
    uint64_t *got_seen = bytes_from_device(d.seen, n_words * sizeof *seen);
    assert_memory_equal(got_seen, seen, n_words * sizeof *seen);
    kern_sample_report *got_reports =
        bytes_from_device(d.reports, (size_t)w->n_rows * sizeof *reports);
    check_reports(w, got_reports, reports);
    device_free(&device);
    free(got_reports);
    free(got_seen);
    free(got_ids);
    free(reports);
    free(ids);
    free(seen);
}

/* Rows of every kind: a parameter that is off, usual or extreme. */
static void fill_rows(world *w, uint64_t seed)
{
    static const float temperatures[] = {0.0f, 1.0f, 0.7f, 2.5f, 1e-30f, 100.0f, 0.01f};
    static const float shares[] = {1.0f, 0.95f, 0.5f, 1e-6f, 0.999f};
    static const float least[] = {0.0f, 0.0f, 0.05f, 1.0f};
    static const float penalties[] = {1.0f, 1.0f, 1.3f, 0.6f};
    static const int32_t most[] = {0, 50, 1, 1000, 1 << 30, 3};
    memset(w->rows, 0, sizeof w->rows);
    for (int32_t r = 0; r < w->n_rows; r++) {
        const uint64_t x = base_random_u64(seed, 1, (uint64_t)r);
        const int32_t n_top = (int32_t)(x >> 50 & 63);
        w->rows[r] = (kern_sample_row){
            .random = (x >> 56) % 9 == 8 ? UINT64_MAX : base_random_u64(seed, 2, (uint64_t)r),
            .temperature = temperatures[x % 7],
            .top_p = shares[(x >> 8) % 5],
            .min_p = least[(x >> 16) % 4],
            .penalty = penalties[(x >> 24) % 4],
            .top_k = most[(x >> 32) % 6],
            .slot = w->n_rows - r,
            .n_top = n_top <= KERN_SAMPLE_MAX_TOP && n_top <= w->n_vocab ? n_top : 0};
    }
}

static world open_world(int32_t n_rows, int32_t n_vocab)
{
    return (world){.cpu = parity_ctx(2),
                   .n_rows = parity_shrunk(n_rows),
                   .n_vocab = n_vocab > 33 ? parity_shrunk(n_vocab) : n_vocab};
}

static void close_world(world *w)
{
    free(w->logits);
    kern_ctx_destroy(w->cpu);
}

static void random_logits_give_the_cpus_tokens(void **state)
{
    static const int32_t vocabs[] = {1, 2, 31, 33, 1000, 4096, 4097, 8193, 32000};
    (void)state;
    for (size_t i = 0; i < 3 * sizeof vocabs / sizeof vocabs[0]; i++) {
        const int32_t n_vocab = vocabs[i / 3];
        world w = open_world(40, n_vocab);
        w.logits = parity_normals(i, (int64_t)w.n_rows * w.n_vocab, i % 3 == 0 ? 0.5 : 4.0);
        fill_rows(&w, i);
        check(&w, "random");
        close_world(&w);
    }
}

static void large_vocabularies_and_every_batch(void **state)
{
    static const int32_t shapes[][2] = {
        {1, 151936}, {2, 128256}, {13, 151936}, {64, 151936}, {1, KERN_SAMPLE_MAX_VOCAB}};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        world w = open_world(shapes[i][0], shapes[i][1]);
        w.logits = parity_normals(100 + i, (int64_t)w.n_rows * w.n_vocab, 3.0);
        fill_rows(&w, 50 + i);
        check(&w, "large");
        close_world(&w);
    }
}

/* Few distinct values: every cut falls among ties; one of them is so everywhere. */
static void ties_are_cut_where_the_cpu_cuts_them(void **state)
{
    (void)state;
    for (int32_t n_values = 1; n_values <= 40; n_values += 13) {
        world w = open_world(48, 10007);
        const int64_t n = (int64_t)w.n_rows * w.n_vocab;
        w.logits = parity_memory(n, sizeof *w.logits);
        for (int64_t i = 0; i < n; i++) {
            const uint64_t x = base_random_u64(PARITY_SEED, 9, (uint64_t)i);
            w.logits[i] = 0.125f * (float)(int32_t)(x % (uint64_t)n_values);
        }
        fill_rows(&w, (uint64_t)n_values);
        check(&w, "ties");
        close_world(&w);
    }
}

/* Neighbouring floats, whose distances differ in the last digit only. */
static void logits_that_are_almost_equal(void **state)
{
    (void)state;
    world w = open_world(48, 5000);
    const int64_t n = (int64_t)w.n_rows * w.n_vocab;
    w.logits = parity_memory(n, sizeof *w.logits);
    for (int64_t i = 0; i < n; i++) {
        w.logits[i] = 7.0f + 0x1p-21f * (float)(base_random_u64(PARITY_SEED, 8, (uint64_t)i) % 999);
    }
    fill_rows(&w, 5);
    check(&w, "almost equal");
    close_world(&w);
}

static void nan_and_infinities_and_zeros(void **state)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, FLT_MAX, -FLT_MAX, 1e-40f};
    (void)state;
    for (uint64_t kind = 0; kind < 6; kind++) {
        world w = open_world(48, 3001);
        w.logits = parity_normals(kind, (int64_t)w.n_rows * w.n_vocab, 3.0);
        for (int64_t i = 0; i < (int64_t)w.n_rows * w.n_vocab; i++) {
            const uint64_t x = base_random_u64(kind, 6, (uint64_t)i);
            if (kind == 5) {
                w.logits[i] = NAN;
            } else if (x % 7 == 0) {
                w.logits[i] = odd[kind == 0   ? (x >> 8) % 8
                                  : kind == 1 ? 0
                                              : 1 + (x >> 8) % 7 % kind];
            }
        }
        fill_rows(&w, 70 + kind);
        check(&w, "odd values");
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_logits_give_the_cpus_tokens),
        cmocka_unit_test(large_vocabularies_and_every_batch),
        cmocka_unit_test(ties_are_cut_where_the_cpu_cuts_them),
        cmocka_unit_test(logits_that_are_almost_equal),
        cmocka_unit_test(nan_and_infinities_and_zeros),
    };
    return PARITY_CUDA_MAIN(tests);
}
