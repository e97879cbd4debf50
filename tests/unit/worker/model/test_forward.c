#include "tests/support/forward_alloc.h"
#include "tests/support/model_run.h"
#include "tests/unit/worker/model/tiny_model.h"

#include <math.h>
#include <stdio.h>

enum {
    N = 20, /* tokens of the dense reference */
    L = TINY_LAYERS,
    C = 32,
    H = 4,
    HKV = 2,
    D = 64,
    F = 48,
    V = TINY_VOCAB,
};

static const tiny_options in_f32 = {.dtype = BASE_F32, .seed = 3};

static comm *self(void)
{
    comm *ranks = NULL;
    CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
    return ranks;
}

static void ids_make(int32_t *ids, int32_t n, uint64_t seed)
{
    for (int32_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(base_random_u64(seed, 0, (uint64_t)i) % V);
    }
}

static double largest_difference(const float *a, const float *b, int32_t n)
{
    double worst = 0.0;
    for (int32_t i = 0; i < n; i++) {
        const double off = fabs((double)a[i] - (double)b[i]);
        worst = !(off <= worst) ? off : worst;
    }
    return worst;
}

/* y [n] = w [n, k] x, in double; w is F32. */
static void matvec(const model_tensor *w, const double *x, int32_t n, int32_t k, double *y)
{
    const float *rows = w->data;
    for (int32_t i = 0; i < n; i++) {
        y[i] = 0.0;
        for (int32_t j = 0; j < k; j++) {
            y[i] += (double)rows[i * k + j] * x[j];
        }
    }
}

static void norm(const model_tensor *w, const double *x, double *y)
{
    double sum = 0.0;
    for (int32_t c = 0; c < C; c++) {
        sum += x[c] * x[c];
    }
    for (int32_t c = 0; c < C; c++) {
        y[c] = x[c] / sqrt(sum / C + 1e-6) * (double)((const float *)w->data)[c];
    }
}

static void rotate(double *x, int32_t n_heads, int32_t position)
{
    for (int32_t i = 0; i < n_heads * D / 2; i++) {
        const int32_t pair = i % (D / 2);
        const int32_t at = i / (D / 2) * D + pair;
        const double angle = position * pow(10000.0, -2.0 * pair / D);
        const double first = x[at];
        const double second = x[at + D / 2];
        x[at] = first * cos(angle) - second * sin(angle);
        x[at + D / 2] = second * cos(angle) + first * sin(angle);
    }
}

/* As the cache keeps it. */
static void round_to_bf16(double *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        x[i] = (double)base_f32_from_bf16(base_bf16_from_f32((float)x[i]));
    }
}

/* One token through one layer, after the tokens whose K and V are in the cache. */
static void dense_layer(const model_layer *w, int32_t t, double *x, double k[][HKV * D],
                        double v[][HKV * D])
{
    double h[C], q[H * D], o[H * D], out[C], gate[F], up[F];
    norm(&w->attn_norm, x, h);
    matvec(&w->q, h, H * D, C, q);
    matvec(&w->k, h, HKV * D, C, k[t]);
    matvec(&w->v, h, HKV * D, C, v[t]);
    rotate(q, H, t);
    rotate(k[t], HKV, t);
    round_to_bf16(k[t], HKV * D);
    round_to_bf16(v[t], HKV * D);
    for (int32_t i = 0; i < H; i++) {
        const int32_t kv = i / (H / HKV) * D;
        double sum = 0.0;
        for (int32_t d = 0; d < D; d++) {
            o[i * D + d] = 0.0;
        }
        for (int32_t j = 0; j <= t; j++) {
            double score = 0.0;
            for (int32_t d = 0; d < D; d++) {
                score += q[i * D + d] * k[j][kv + d] / sqrt(D);
            }
            sum += exp(score);
            for (int32_t d = 0; d < D; d++) {
                o[i * D + d] += exp(score) * v[j][kv + d];
            }
        }
        for (int32_t d = 0; d < D; d++) {
            o[i * D + d] /= sum;
        }
    }
    matvec(&w->o, o, C, H * D, out);
    for (int32_t c = 0; c < C; c++) {
        x[c] += out[c];
    }
    norm(&w->mlp_norm, x, h);
    matvec(&w->gate, h, F, C, gate);
    matvec(&w->up, h, F, C, up);
    for (int32_t f = 0; f < F; f++) {
        gate[f] = gate[f] / (1.0 + exp(-gate[f])) * up[f];
    }
    matvec(&w->down, gate, C, F, out);
    for (int32_t c = 0; c < C; c++) {
        x[c] += out[c];
    }
}

static void dense(const model *m, const int32_t *ids, double logits_out[N][V])
{
    static double k[L][N][HKV * D], v[L][N][HKV * D];
    for (int32_t t = 0; t < N; t++) {
        double x[C], h[C];
        for (int32_t c = 0; c < C; c++) {
            x[c] = (double)((const float *)m->embedding.data)[ids[t] * C + c];
        }
        for (int32_t l = 0; l < L; l++) {
            dense_layer(&m->layers[l], t, x, k[l], v[l]);
        }
        norm(&m->final_norm, x, h);
        matvec(&m->head, h, V, C, logits_out[t]);
    }
}

static void an_untied_model_agrees_with_a_dense_double_forward_at_every_token(void **state)
{
    (void)state;
    static double want[N][V];
    static float got[N][V];
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    model_run r = model_run_open(folder.path, "bf16", ranks, N, N);
    int32_t ids[N], rows[N];
    ids_make(ids, N, 1);
    for (int32_t i = 0; i < N; i++) {
        rows[i] = N - 1 - i; /* any order may be asked for */
    }
    kv_step_seq seq = {.slot = 0, .n_tokens = N};
    model_run_step(&r, &seq, 1, ids, rows, N, &got[0][0]);
    dense(r.m, ids, want);
    double worst = 0.0;
    for (int32_t i = 0; i < N; i++) {
        for (int32_t j = 0; j < V; j++) {
            const double off = fabs((double)got[i][j] - want[rows[i]][j]);
            worst = !(off <= worst) ? off : worst;
        }
    }
    /* A K or V that lies near the middle of two bf16 values may round the other way; measured 2e-5. */
    assert_true(worst <= 2e-4);
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

static void weights_of_every_dtype_give_the_same_logits(void **state)
{
    (void)state;
    enum { T = 40 };
    static const base_dtype dtypes[] = {BASE_F32, BASE_BF16, BASE_F16};
    float logits[3][V];
    int32_t ids[T];
    comm *ranks = self();
    ids_make(ids, T, 2);
    for (size_t i = 0; i < 3; i++) {
        const tiny_options o = {.dtype = dtypes[i], .seed = 4};
        const tiny_folder folder = tiny_create(&o);
        model_run r = model_run_open(folder.path, "bf16", ranks, T, T);
        model_run_feed(&r, ids, T, T, logits[i]);
        model_run_close(&r);
        tiny_remove(&folder);
    }
    assert_true(largest_difference(logits[0], logits[1], V) <= 2e-4);
    assert_true(largest_difference(logits[0], logits[2], V) <= 2e-4);
    comm_destroy(ranks);
}

static void sequences_of_one_step_do_not_see_each_other(void **state)
{
    (void)state;
    enum { A = 150, B = 20 };
    int32_t ids[A + B];
    float alone[2][V], together[2][V];
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    ids_make(ids, A + B, 5);
    for (int32_t i = 0; i < 2; i++) {
        model_run r = model_run_open(folder.path, "tq:k=4,v=4", ranks, A, 256);
        model_run_feed(&r, ids + (i == 0 ? 0 : A), i == 0 ? A : B, A, alone[i]);
        model_run_close(&r);
    }
    model_run r = model_run_open(folder.path, "tq:k=4,v=4", ranks, A + B, 256);
    kv_step_seq seqs[2] = {{.slot = 2, .n_tokens = A}, {.slot = 0, .n_tokens = B}};
    const int32_t rows[2] = {A - 1, A + B - 1};
    model_run_step(&r, seqs, 2, ids, rows, 2, &together[0][0]);
    for (int32_t i = 0; i < 2; i++) {
        assert_true(largest_difference(alone[i], together[i], V) <= 2e-4);
    }
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

static void a_step_beyond_the_limits_is_refused(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    model_run r = model_run_open(folder.path, "bf16", ranks, 8, 256);
    int32_t ids[9] = {0};
    int32_t rows[9] = {0};
    float logits[V];
    kv_step step = {.n_tokens = 9};
    CHECK_STATUS(forward_step(r.f, r.shard, &step, ids, rows, 1, logits), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("limit 8");
    step.n_tokens = 4;
    CHECK_STATUS(forward_step(r.f, r.shard, &step, ids, rows, 9, logits), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("limit 8");
    rows[0] = 4;
    CHECK_STATUS(forward_step(r.f, r.shard, &step, ids, rows, 1, logits), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("sample row 4");
    ids[3] = V;
    CHECK_STATUS(forward_step(r.f, r.shard, &step, ids, rows, 0, NULL), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("40");
    step.n_tokens = 0;
    CHECK_STATUS(forward_step(r.f, r.shard, &step, ids, rows, 0, NULL), BASE_OK);
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

/* Greedy tokens of a sequence, made where the logits are, against those made from them. */
static void steps_ahead_make_the_tokens_of_the_logits(void **state)
{
    (void)state;
    enum { PROMPT = 5, STEPS = 9 };
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    model_run r = model_run_open(folder.path, "bf16", ranks, 8, 256);
    const forward_limits limits = {8, 4, 1000, MODEL_RUN_SLOTS};
    forward *f = NULL;
    int32_t prompt[PROMPT];
    int32_t want[STEPS];
    float logits[V];

    ids_make(prompt, PROMPT, 4);
    model_run_feed(&r, prompt, PROMPT, PROMPT, logits);
    for (int32_t i = 0; i < STEPS; i++) {
        want[i] = model_run_argmax(logits, V);
        model_run_feed(&r, &want[i], 1, 1, logits);
    }
    CHECK_STATUS(forward_create(r.m, r.format, r.ctx, ranks, &limits, &base_heap, &f), BASE_OK);
    CHECK_STATUS(kv_shard_add_page(r.shard, 2, 0, 3), BASE_OK);
    for (int32_t i = 0; i <= STEPS; i++) {
        if (i < STEPS) { /* begins before the one before has ended */
            const kv_step_seq seq = {.slot = 2,
                                     .n_tokens = i == 0 ? PROMPT : 1,
                                     .position = i == 0 ? 0 : PROMPT + i - 1};
            const int32_t last = -1 - 2;
            const forward_pick pick = {
                .token = seq.n_tokens - 1,
                .how = {.top_p = 1.0f, .penalty = 1.0f, .slot = 2, .n_top = i % 2}};
            const kv_step *step = NULL;
            CHECK_STATUS(kv_shard_begin_step(r.shard, &seq, 1, &step), BASE_OK);
            CHECK_STATUS(forward_begin(f, r.shard, step, i == 0 ? prompt : &last, &pick, 1),
                         BASE_OK);
        }
        if (i > 0) {
            forward_made made;
            CHECK_STATUS(forward_end(f, &made), BASE_OK);
            assert_int_equal(made.last_tokens[2], want[i - 1]);
            if ((i - 1) % 2 == 1) {
                assert_int_equal(made.reports[0].top_ids[0], want[i - 1]);
            }
        }
    }
    const kv_step step = {.n_tokens = 1};
    const int32_t none = -1 - MODEL_RUN_SLOTS;
    CHECK_STATUS(forward_begin(f, r.shard, &step, &none, NULL, 0), BASE_BAD_INPUT);
    CHECK_STATUS(forward_begin(r.f, r.shard, &step, prompt, NULL, 0), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("for 0 slots");
    forward_destroy(f);
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

static void create_refuses_limits_and_a_cache_of_another_shape(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    model_run r = model_run_open(folder.path, "bf16", ranks, 8, 256);
    static const struct {
        forward_limits limits;
        const char *name;
    } cases[] = {
        {{0, 1, 1, 0}, "max_step_tokens"}, {{(1 << 20) + 1, 1, 1, 0}, "max_step_tokens"},
        {{1, 0, 1, 0}, "max_samples"},     {{1, 1, 0, 0}, "timeout_ms"},
        {{1, 1, 1, -1}, "n_slots"},
    };
    forward *f = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_STATUS(forward_create(r.m, r.format, r.ctx, ranks, &cases[i].limits, &base_heap, &f),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(cases[i].name);
    }
    const kv_shape other = {L, HKV, 128};
    const forward_limits limits = {8, 8, 1000, 0};
    kv_format *format = NULL;
    CHECK_STATUS(kv_format_create(&r.format->policy, &other, &base_heap, &format), BASE_OK);
    CHECK_STATUS(forward_create(r.m, format, r.ctx, ranks, &limits, &base_heap, &f),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("128");
    assert_null(f);
    kv_format_destroy(format);
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

static void create_takes_what_it_says_and_survives_every_failed_allocation(void **state)
{
    (void)state;
    const tiny_folder folder = tiny_create(&in_f32);
    comm *ranks = self();
    model_run r = model_run_open(folder.path, "bf16", ranks, 8, 256);
    const forward_limits limits = {100, 3, 1000, 5};
    check_forward_allocations(r.m, r.format, ranks, &limits);
    assert_true(forward_scratch_bytes(&r.m->config, &r.m->split, &limits, 4) >
                forward_scratch_bytes(&r.m->config, &r.m->split, &limits, 1));
    model_run_close(&r);
    comm_destroy(ranks);
    tiny_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untied_model_agrees_with_a_dense_double_forward_at_every_token),
        cmocka_unit_test(weights_of_every_dtype_give_the_same_logits),
        cmocka_unit_test(sequences_of_one_step_do_not_see_each_other),
        cmocka_unit_test(a_step_beyond_the_limits_is_refused),
        cmocka_unit_test(steps_ahead_make_the_tokens_of_the_logits),
        cmocka_unit_test(create_refuses_limits_and_a_cache_of_another_shape),
        cmocka_unit_test(create_takes_what_it_says_and_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
