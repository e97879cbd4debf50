/* Does the error of a RoPE block follow its energy score?  Block-GTQ takes that for granted.
 *
 * On the demo model, for every (layer, KV head): M_i = mean |q_i . (k_i - k'_i)| of block i over causal pairs and
 * query heads, (i) when the block is quantised alone with one width for all, and (ii) as the group quantiser of
 * block-gtq leaves it.  Against the score: Spearman's rank correlation and the slope in logs; the control has
 * the scores of the same head in another order. */
#include "kvshard/calibration.h"

#include "base/json.h"
#include "kvshard/codebook.h"
#include "tests/support/model_run.h"
#include "tests/support/test.h"

#include <math.h>

#define MODEL    "models/demo"
#define HELD_OUT 2200 /* the scores are made from the tokens of this text before it */

enum {
    LAYERS = 6,
    HEADS = 4,
    KV_HEADS = 2,
    GROUP = HEADS / KV_HEADS,
    D = 128,
    BLOCKS = D / 2,
    T = 4 * KERN_BLOCK_TOKENS,
    N = LAYERS * KV_HEADS,
    Q_STRIDE = 7, /* every 7th query */
};

typedef struct activations {
    float q[LAYERS][T][HEADS][D];
    float k[LAYERS][T][KV_HEADS][D];
    int32_t at[LAYERS];
} activations;

static base_status observe(void *ctx, const forward_observation *seen)
{
    const int32_t layer = seen->layer;
    const int32_t n_tokens = seen->n_tokens;
    const float *const q = seen->q;
    const float *const k = seen->k;
    activations *a = ctx;
    const size_t n = (size_t)n_tokens;
    memcpy(a->q[layer][a->at[layer]], q, n * HEADS * D * sizeof *q);
    memcpy(a->k[layer][a->at[layer]], k, n * KV_HEADS * D * sizeof *k);
    a->at[layer] += n_tokens;
    return BASE_OK;
}

/* The pair (x[i], x[i + D / 2]) through TurboQuant-MSE of 3 bits in two dims. */
static void quantise_pair(const float *x, int32_t i, float *back)
{
    double c[8];
    double y[2];
    double n_hat = 0.0;
    const double nu = hypot((double)x[i], (double)x[i + BLOCKS]);
    kv_codebook_page(3, c);
    for (int32_t s = 0; s < 2; s++) {
        const double u = (double)x[i + s * BLOCKS] / (nu > 0.0 ? nu : 1.0) * sqrt(2.0);
        int32_t code = 0;
        while (code < 7 && u > 0.5 * (c[code] + c[code + 1])) {
            code++;
        }
        y[s] = c[code];
        n_hat += y[s] * y[s];
    }
    back[i] = (float)(y[0] * nu / sqrt(n_hat));
    back[i + BLOCKS] = (float)(y[1] * nu / sqrt(n_hat));
}

/* back [T][D] of k [T][D] through the pages of a head. */
static void through_pages(kern_ctx *ctx, const kern_head_format *head, const float *k, float *back)
{
    static uint16_t rows[2 * KERN_BLOCK_TOKENS * D];
    kern_head_format format = *head;
    int64_t positions[KERN_BLOCK_TOKENS];
    const int32_t dest[KERN_BLOCK_TOKENS] = {0};
    uint8_t *page = calloc(1, (size_t)format.head_page_bytes);
    assert_non_null(page);
    format.offset = 0;
    for (int32_t t = 0; t < KERN_BLOCK_TOKENS; t++) {
        positions[t] = t;
    }
    for (int32_t b = 0; b < T / KERN_BLOCK_TOKENS; b++) {
        const float *x = k + b * KERN_BLOCK_TOKENS * D;
        float *y = back + b * KERN_BLOCK_TOKENS * D;
        const kern_open open = {.rows = rows};
        const kern_pack pack = {0};
        const kern_append_args append = {.k = x,
                                         .v = x,
                                         .positions = positions,
                                         .dest = dest,
                                         .opens = &open,
                                         .formats = &format,
                                         .n_tokens = KERN_BLOCK_TOKENS,
                                         .n_kv_heads = 1,
                                         .head_dim = D,
                                         .n_opens = 1};
        const kern_pack_args packs = {.packs = &pack,
                                      .opens = &open,
                                      .formats = &format,
                                      .pages = page,
                                      .page_stride = format.head_page_bytes,
                                      .n_packs = 1,
                                      .n_opens = 1,
                                      .n_pages = 1,
                                      .n_kv_heads = 1};
        const kern_basis_args basis = {.x = y,
                                       .formats = &format,
                                       .n_tokens = KERN_BLOCK_TOKENS,
                                       .n_heads = 1,
                                       .n_kv_heads = 1,
                                       .head_dim = D,
                                       .inverse = true};
        CHECK_STATUS(kern_append(ctx, &append), BASE_OK);
        CHECK_STATUS(kern_pack_pages(ctx, &packs), BASE_OK);
        kern_page_decode(&format, page, 0, y);
        CHECK_STATUS(kern_basis(ctx, &basis), BASE_OK);
    }
    free(page);
}

static void block_errors(const activations *a, int32_t layer, int32_t head, const float *k,
                         const float *back, double *errors_out)
{
    for (int32_t i = 0; i < BLOCKS; i++) {
        double sum = 0.0;
        int64_t n = 0;
        for (int32_t m = 0; m < T; m += Q_STRIDE) {
            for (int32_t h = head * GROUP; h < (head + 1) * GROUP; h++) {
                const float *q = a->q[layer][m][h];
                for (int32_t t = 0; t <= m; t++) {
                    const float d0 = k[t * D + i] - back[t * D + i];
                    const float d1 = k[t * D + i + BLOCKS] - back[t * D + i + BLOCKS];
                    sum += fabs((double)(q[i] * d0 + q[i + BLOCKS] * d1));
                    n++;
                }
            }
        }
        errors_out[i] = sum / (double)n;
    }
}

static void ranks(const double *x, double *ranks_out)
{
    for (int32_t i = 0; i < BLOCKS; i++) {
        ranks_out[i] = 0.0;
        for (int32_t j = 0; j < BLOCKS; j++) {
            ranks_out[i] += x[j] < x[i] ? 1.0 : x[j] > x[i] || i == j ? 0.0 : 0.5;
        }
    }
}

typedef struct fit {
    double spearman, slope;
} fit;

/* Covariance of x and y over the root of that of x with x, and of y with y; slope of y over x. */
static double correlate(const double *x, const double *y, double *slope_out)
{
    double sx = 0.0, sy = 0.0, xx = 0.0, yy = 0.0, xy = 0.0;
    for (int32_t i = 0; i < BLOCKS; i++) {
        sx += x[i] / BLOCKS;
        sy += y[i] / BLOCKS;
    }
    for (int32_t i = 0; i < BLOCKS; i++) {
        xx += (x[i] - sx) * (x[i] - sx);
        yy += (y[i] - sy) * (y[i] - sy);
        xy += (x[i] - sx) * (y[i] - sy);
    }
    *slope_out = xy / xx;
    return xy / sqrt(xx * yy);
}

static fit fit_of(const float *scores, int32_t step, const double *errors)
{
    double log_s[BLOCKS], log_e[BLOCKS], rank_s[BLOCKS], rank_e[BLOCKS];
    fit f;
    double unused;
    for (int32_t i = 0; i < BLOCKS; i++) {
        log_s[i] = log((double)scores[i * step % BLOCKS] + 1e-30);
        log_e[i] = log(errors[i] + 1e-30);
    }
    ranks(log_s, rank_s);
    ranks(log_e, rank_e);
    f.spearman = correlate(rank_s, rank_e, &unused);
    (void)correlate(log_s, log_e, &f.slope);
    return f;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Prints median and worst; returns the median of Spearman's correlation. */
static double report(const char *what, const fit *fits)
{
    double rho[N], slope[N];
    for (int32_t i = 0; i < N; i++) {
        rho[i] = fits[i].spearman;
        slope[i] = fits[i].slope;
    }
    qsort(rho, N, sizeof *rho, ascending);
    qsort(slope, N, sizeof *slope, ascending);
    print_message("%-28s Spearman median %6.3f (%6.3f..%6.3f)  slope median %6.3f\n", what,
                  (rho[N / 2 - 1] + rho[N / 2]) / 2, rho[0], rho[N - 1],
                  (slope[N / 2 - 1] + slope[N / 2]) / 2);
    return (rho[N / 2 - 1] + rho[N / 2]) / 2;
}

static void the_error_of_a_block_alone_follows_its_score(void **state)
{
    (void)state;
    static activations a;
    static float k[T * D], back[T * D];
    static int32_t ids[T];
    fit alone[N], grouped[N], control[N];
    comm *self = NULL;
    kv_calibration *c = NULL;
    kv_format *format = NULL;
    kv_policy policy;
    json_t *root = NULL;

    CHECK_STATUS(base_json_read("tests/golden/prompts.json", (size_t)1 << 22, &root), BASE_OK);
    const json_t *text = json_object_get(root, "text");
    assert_true(json_array_size(text) >= HELD_OUT + T);
    for (size_t i = 0; i < T; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(text, HELD_OUT + i));
    }
    base_json_free(root);
    CHECK_STATUS(comm_self_create(&base_heap, &self), BASE_OK);
    model_run r = model_run_open(MODEL, "bf16", self, 128, 1024);
    forward_set_observer(r.f, observe, &a);
    model_run_feed(&r, ids, T, 128, NULL);
    const kv_shape shape = {LAYERS, KV_HEADS, D};
    CHECK_STATUS(kv_policy_parse("block-gtq:k=3,v=3", &policy), BASE_OK);
    CHECK_STATUS(kv_calibration_open("block-gtq", MODEL, r.m->hash, &shape, &base_heap, &c),
                 BASE_OK);
    CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, c, &base_heap, &format), BASE_OK);

    for (int32_t i = 0; i < N; i++) {
        const int32_t layer = i / KV_HEADS;
        const int32_t head = i % KV_HEADS;
        const float *energies = kv_calibration_head(c, layer, head);
        float scores[BLOCKS];
        double errors[BLOCKS];
        for (int32_t b = 0; b < BLOCKS; b++) {
            scores[b] = 0.5f * (energies[b] + energies[b + BLOCKS]);
        }
        for (int32_t t = 0; t < T; t++) {
            memcpy(k + t * D, a.k[layer][t][head], D * sizeof *k);
            for (int32_t b = 0; b < BLOCKS; b++) {
                quantise_pair(k + t * D, b, back + t * D);
            }
        }
        block_errors(&a, layer, head, k, back, errors);
        alone[i] = fit_of(scores, 1, errors);
        control[i] = fit_of(scores, 37, errors);
        through_pages(r.ctx, &kv_format_layer(format, layer)[head], k, back);
        block_errors(&a, layer, head, k, back, errors);
        grouped[i] = fit_of(scores, 1, errors);
    }
    const double of_alone = report("alone, 3 bits", alone);
    const double of_control = report("alone, scores permuted", control);
    (void)report("in its group, 3 bits", grouped);
    assert_true(of_alone > 0.7);
    assert_true(fabs(of_control) < 0.35);

    kv_format_destroy(format);
    kv_calibration_destroy(c);
    model_run_close(&r);
    comm_destroy(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_error_of_a_block_alone_follows_its_score),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
