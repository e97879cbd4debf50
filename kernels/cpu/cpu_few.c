#include "kernels/cpu/cpu_few.h"

#include "base/half.h"
#include "kernels/cpu/cpu_few_path.h"

#include <math.h>
#include <string.h>

#define MAX_LEVEL 255 /* in halves */
#define LOAD      16  /* bytes: at most so many are read beyond codes */

/* The nearest whole number, |x| < 2^22; a library call would be most of a plan's time. */
static float whole_of(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* From levels[0][code] to those of all four bits. */
static void spread_levels(int32_t bits, cpu_few_segment *out)
{
    for (int32_t k = 3; k >= 0; k--) {
        for (int32_t i = 0; i < 16; i++) {
            out->levels[k][i] = out->levels[0][(i >> (k * bits)) & ((1 << bits) - 1)];
        }
    }
}

/* Levels of n centroids that are m times parts halves, if all are odd or all even. */
static bool take_levels(const float *parts, int32_t m, int32_t n, cpu_few_segment *out)
{
    out->bias = -(int32_t)whole_of(parts[0] * (float)m);
    for (int32_t i = 0; i < n; i++) {
        const int32_t twice = (int32_t)whole_of(parts[i] * (float)m) + out->bias;
        if (twice % 2 != 0 || twice < 0 || twice > 2 * UINT8_MAX) {
            return false;
        }
        out->levels[0][i] = (uint8_t)(twice / 2);
    }
    return true;
}

/* The least number of halves that the outermost centroid can stand for, so that all centroids are whole
 * numbers of halves, all odd or all even; code 0 has level 0. */
static bool find_levels(const kern_segment *g, cpu_few_segment *out)
{
    const int32_t n = 1 << g->bits;
    const float top = fmaxf(fabsf(g->centroids[0]), fabsf(g->centroids[n - 1]));
    float parts[1 << CPU_FEW_LEVELS];

    for (int32_t i = 0; i < n; i++) {
        parts[i] = g->centroids[i] / top;
    }
    for (int32_t m = 1; m <= MAX_LEVEL && top > 0.0f; m++) {
        int32_t i = 0;
        while (i < n &&
               fabsf(parts[i] * (float)m - whole_of(parts[i] * (float)m)) <= 1e-6f * (float)m) {
            i++;
        }
        if (i == n && take_levels(parts, m, n, out)) {
            out->scale = top / (float)m;
            spread_levels(g->bits, out);
            return true;
        }
    }
    return false;
}

static bool find_planes(const kern_segment *g, cpu_few_segment *out)
{
    const int32_t n = g->bits <= 6 ? 1 << (g->bits - 1) : 0; /* wider codes need none */
    for (int32_t i = 0; i < n; i++) {
        const uint32_t bits = base_f32_bits(g->centroids[n + i]);
        if (base_f32_bits(g->centroids[n - 1 - i]) != (bits ^ 0x80000000u)) {
            return false;
        }
        for (int k = 0; k < 4; k++) {
            out->planes[k][i] = (uint8_t)(bits >> (8 * k));
        }
    }
    return true;
}

static const cpu_few_path *path_of(cpu_isa isa, kern_segment_kind kind)
{
#if defined(__x86_64__)
    static const cpu_few_path *const paths[CPU_N_ISAS] = {NULL, &cpu_few_avx2, &cpu_few_avx512};
    static const cpu_few_path *const affine_k[CPU_N_ISAS] = {NULL, &cpu_few_affine_k_avx2,
                                                             &cpu_few_affine_k_avx512};
    static const cpu_few_path *const affine_v[CPU_N_ISAS] = {NULL, &cpu_few_affine_v_avx2,
                                                             &cpu_few_affine_v_avx512};
    return kind == KERN_AFFINE_CHANNEL    ? affine_k[isa]
           : kind == KERN_AFFINE_POSITION ? affine_v[isa]
                                          : paths[isa];
#else
    (void)isa, (void)kind;
    return NULL;
#endif
}

/* Affine segments of one kind, 2 or 4 bits, 64 or 128 dims. */
static void plan_affine(const kern_side *side, cpu_few_side *plan_out)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (g->kind != side->segments[0].kind || (g->bits != 2 && g->bits != 4) ||
            (g->n_dims != 64 && g->n_dims != 128)) {
            return;
        }
        const int32_t end = g->minima_offset + kern_segment_pairs(g) * (int32_t)sizeof(uint16_t);
        plan_out->begin = g->codes_offset < plan_out->begin ? g->codes_offset : plan_out->begin;
        plan_out->end = end > plan_out->end ? end : plan_out->end;
    }
    plan_out->usable = true;
}

void cpu_few_plan(const kern_side *side, int32_t head_page_bytes, cpu_isa isa,
                  cpu_few_side *plan_out)
{
    memset(plan_out, 0, sizeof *plan_out);
    plan_out->path = path_of(isa, side->segments[0].kind);
    plan_out->begin = head_page_bytes;
    if (plan_out->path == NULL) {
        return;
    }
    if (kern_segment_is_affine(&side->segments[0])) {
        plan_affine(side, plan_out);
        return;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        const int32_t end = g->codes_offset + KERN_BLOCK_TOKENS * g->n_dims / 8 * g->bits;
        if (g->n_dims % 16 != 0 || kern_segment_is_affine(g)) {
            return;
        }
        plan_out->begin = g->codes_offset < plan_out->begin ? g->codes_offset : plan_out->begin;
        plan_out->end = end > plan_out->end ? end : plan_out->end;
        if (g->bits == 16) {
            continue;
        }
        const int32_t norms_end = g->norms_offset + KERN_BLOCK_TOKENS * (int32_t)sizeof(uint16_t);
        plan_out->end = norms_end > plan_out->end ? norms_end : plan_out->end;
        cpu_few_segment *plan = &plan_out->segments[i];
        if (end + LOAD > head_page_bytes ||
            !(g->bits <= CPU_FEW_LEVELS ? find_levels(g, plan) : find_planes(g, plan))) {
            return;
        }
    }
    plan_out->usable = true;
}

cpu_few_bytes cpu_few_bytes_of(const cpu_few_side *plan, const uint8_t *head_page)
{
    const cpu_few_bytes none = {NULL, NULL};
    return plan->usable ? (cpu_few_bytes){head_page + plan->begin, head_page + plan->end} : none;
}

static bool all_finite(const cpu_few_side *plan, const float *x, int64_t n)
{
    return plan->path->top(x, (int32_t)n) < INFINITY;
}

/* The next rows, as many as a path takes at a time. */
static cpu_few_call next_rows(cpu_few_call call, int32_t n_left)
{
    call.n_rows = n_left >= CPU_FEW_PASS ? CPU_FEW_PASS : n_left >= 2 ? 2 : 1;
    return call;
}

bool cpu_few_dot(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, cpu_few_bytes ahead, const float *q, float *s,
                 int32_t n_rows)
{
    cpu_few_call call = {
        .side = side, .plan = plan, .head_page = head_page, .head_dim = head_dim, .ahead = ahead};

    if (plan->path->dot == NULL || !all_finite(plan, q, (int64_t)n_rows * head_dim)) {
        return false;
    }
    for (int32_t r = 0; r < n_rows; r += call.n_rows) {
        call = next_rows(call, n_rows - r);
        plan->path->dot(&call, q + (int64_t)r * head_dim, s + r * KERN_BLOCK_TOKENS);
        call.ahead.begin = call.ahead.end; /* once */
    }
    return true;
}

bool cpu_few_mix(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, cpu_few_bytes ahead, const float *p, float *o,
                 int32_t n_rows)
{
    cpu_few_call call = {
        .side = side, .plan = plan, .head_page = head_page, .head_dim = head_dim, .ahead = ahead};

    if (plan->path->mix == NULL || !all_finite(plan, p, (int64_t)n_rows * KERN_BLOCK_TOKENS)) {
        return false;
    }
    for (int32_t r = 0; r < n_rows; r += call.n_rows) {
        call = next_rows(call, n_rows - r);
        plan->path->mix(&call, p + r * KERN_BLOCK_TOKENS, o + (int64_t)r * head_dim);
        call.ahead.begin = call.ahead.end;
    }
    return true;
}
