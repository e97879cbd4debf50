#include "kernels/cpu/cpu_few.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)

#include "kernels/cpu/cpu_few_avx2.h"

#define MAX_LEVEL 255 /* in halves */
#define WORD      8   /* bytes of one load of codes */
#define NORMS_PAD 8   /* a vector of norms may begin at any key */

/* The least number of halves that the outermost centroid can stand for, so that all centroids are whole
 * numbers of halves, all odd or all even. */
static bool find_levels(const kern_segment *g, cpu_few_segment *out)
{
    const int32_t n = 1 << g->bits;
    const float top = fmaxf(fabsf(g->centroids[0]), fabsf(g->centroids[n - 1]));

    for (int32_t m = 1; m <= MAX_LEVEL && top > 0.0f; m++) {
        const float scale = top / (float)m;
        int32_t i = 0;
        out->offset = 256 - m % 2;
        for (; i < n; i++) {
            const float level = g->centroids[i] / scale;
            const int32_t whole = (int32_t)nearbyintf(level);
            if (!(fabsf(level - (float)whole) <= 1e-6f * (float)m) || (whole - m) % 2 != 0 ||
                whole + out->offset > 2 * UINT8_MAX + 1) {
                break;
            }
            out->levels[i] = (uint8_t)((whole + out->offset) / 2);
        }
        if (i == n) {
            out->scale = scale;
            return true;
        }
    }
    return false;
}

void cpu_few_plan(const kern_side *side, int32_t head_page_bytes, cpu_few_side *plan_out)
{
    memset(plan_out, 0, sizeof *plan_out);
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        const int64_t end =
            g->codes_offset + (int64_t)KERN_BLOCK_TOKENS * g->n_dims / 8 * g->bits + WORD;
        if (g->n_dims % 16 != 0 || kern_segment_is_affine(g)) {
            return;
        }
        if (g->bits == 16) {
            continue;
        }
        if (g->bits > 4 || end > head_page_bytes || !find_levels(g, &plan_out->segments[i])) {
            return;
        }
    }
    plan_out->usable = true;
}

/* x [n] to 16-bit integers of a common step; false when not all are finite. */
static bool round_row(const float *x, int32_t n, int16_t *out, float *step_out, int32_t *sum_out)
{
    const float top = cpu_few_top(x, n);
    const float step = top / 32767.0f;
    if (!(top < INFINITY)) {
        return false;
    }
    /* A top so small that 1 / step overflows: nothing that a sum would notice. */
    *step_out = step;
    *sum_out = cpu_few_round(x, n, top > 1e-30f ? 1.0f / step : 0.0f, out);
    return true;
}

static bool all_finite(const float *x, int64_t n)
{
    return cpu_few_top(x, (int32_t)n) < INFINITY;
}

bool cpu_few_dot(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *q, float *s, int32_t n_rows)
{
    int16_t q16[4 * KERN_MAX_HEAD_DIM];
    float scale[4];
    int32_t sum[4];
    float norms[KERN_BLOCK_TOKENS + NORMS_PAD] = {0};

    if (!all_finite(q, (int64_t)n_rows * head_dim)) {
        return false;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (g->bits != 16) {
            cpu_few_norms(head_page + g->norms_offset, norms);
        }
        for (int32_t r = 0; r < n_rows;) {
            const int32_t n = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
            const float *rows = q + (int64_t)r * head_dim + g->first_dim;
            const cpu_few_job job = {.codes = head_page + g->codes_offset,
                                     .levels = plan->segments[i].levels,
                                     .norms = norms,
                                     .n_dims = g->n_dims,
                                     .bits = g->bits,
                                     .add = i > 0};
            if (g->bits == 16) {
                cpu_few_dot_bf16(&job, rows, head_dim, s + r * KERN_BLOCK_TOKENS, n);
            } else {
                for (int32_t k = 0; k < n; k++) {
                    (void)round_row(rows + (int64_t)k * head_dim, g->n_dims, q16 + k * g->n_dims,
                                    &scale[k], &sum[k]);
                    scale[k] *= plan->segments[i].scale;
                    sum[k] *= plan->segments[i].offset;
                }
                cpu_few_dot_codes(&job, q16, scale, sum, s + r * KERN_BLOCK_TOKENS, n);
            }
            r += n;
        }
    }
    return true;
}

bool cpu_few_mix(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *p, float *o, int32_t n_rows)
{
    int16_t p16[4 * KERN_BLOCK_TOKENS];
    float scale[4];
    int32_t sum[4];
    float norms[KERN_BLOCK_TOKENS];
    float weighted[KERN_BLOCK_TOKENS];

    if (!all_finite(p, (int64_t)n_rows * KERN_BLOCK_TOKENS)) {
        return false;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (g->bits != 16) {
            cpu_few_norms(head_page + g->norms_offset, norms);
        }
        for (int32_t r = 0; r < n_rows;) {
            const int32_t n = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
            const float *weights = p + r * KERN_BLOCK_TOKENS;
            float *out = o + (int64_t)r * head_dim + g->first_dim;
            const cpu_few_job job = {.codes = head_page + g->codes_offset,
                                     .levels = plan->segments[i].levels,
                                     .norms = norms,
                                     .n_dims = g->n_dims,
                                     .bits = g->bits};
            if (g->bits == 16) {
                cpu_few_mix_bf16(&job, weights, out, head_dim, n);
            } else {
                for (int32_t k = 0; k < n; k++) {
                    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
                        weighted[j] = weights[k * KERN_BLOCK_TOKENS + j] * norms[j];
                    }
                    (void)round_row(weighted, KERN_BLOCK_TOKENS, p16 + k * KERN_BLOCK_TOKENS,
                                    &scale[k], &sum[k]);
                    scale[k] *= plan->segments[i].scale;
                    sum[k] *= plan->segments[i].offset;
                }
                cpu_few_mix_codes(&job, p16, scale, sum, out, head_dim, n);
            }
            r += n;
        }
    }
    return true;
}

#else

void cpu_few_plan(const kern_side *side, int32_t head_page_bytes, cpu_few_side *plan_out)
{
    (void)side, (void)head_page_bytes;
    memset(plan_out, 0, sizeof *plan_out);
}

bool cpu_few_dot(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *q, float *s, int32_t n_rows)
{
    (void)side, (void)plan, (void)head_dim, (void)head_page, (void)q, (void)s, (void)n_rows;
    return false;
}

bool cpu_few_mix(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *p, float *o, int32_t n_rows)
{
    (void)side, (void)plan, (void)head_dim, (void)head_page, (void)p, (void)o, (void)n_rows;
    return false;
}

#endif
