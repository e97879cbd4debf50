#include "kvshard/format.h"

#include "base/half.h"
#include "base/random.h"
#include "kvshard/calibration.h"
#include "kvshard/codebook.h"
#include "kvshard/policy/policy_impl.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define MAX_LAYERS      1024
#define MAX_KV_HEADS    256
#define SECTION_ALIGN   16
#define HEAD_PAGE_ALIGN 128
#define FP16_BYTES      2
#define DIMS_STEP       8 /* segments are multiples of it */
#define MAX_DIMS_STEPS  (KERN_MAX_HEAD_DIM / DIMS_STEP)
#define SIGN_SEED       UINT64_C(0x726f706577616c6b) /* "ropewalk"; part of the page format */
#define VISIBILITY_RULE \
    "position p sees blocks before floor(p / 128) as pages and its own block up to p as bf16 rows"
#define VISIBILITY_RULE_OF_WINDOWS \
    "and whole blocks of a window before it and of sinks as bf16 rows"

/* Where each codebook lies in format->data; 0 stands for "not used". */
typedef struct tables {
    float *floats;
    size_t n_floats;
    size_t book[KV_MAX_CODE_BITS + 1][MAX_DIMS_STEPS + 1]; /* 1 + index of the first centroid */
    size_t signs;                                          /* index: [2][Hkv][D] */
    size_t stretched; /* index: [L][Hkv][2][D], signs of K and query_signs, if calibrated */
    const kv_calibration *calibration;
} tables;

static int64_t align_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

base_status kv_shape_check(const kv_shape *shape)
{
    if (shape->n_layers < 1 || shape->n_layers > MAX_LAYERS) {
        return BASE_FAIL(BASE_BAD_INPUT, "cache shape: n_layers is %d, allowed 1..%d",
                         shape->n_layers, MAX_LAYERS);
    }
    if (shape->n_kv_heads < 1 || shape->n_kv_heads > MAX_KV_HEADS) {
        return BASE_FAIL(BASE_BAD_INPUT, "cache shape: n_kv_heads is %d, allowed 1..%d",
                         shape->n_kv_heads, MAX_KV_HEADS);
    }
    if (shape->head_dim != 64 && shape->head_dim != 128) {
        return BASE_FAIL(BASE_BAD_INPUT, "cache shape: head_dim is %d, allowed 64 or 128",
                         shape->head_dim);
    }
    return BASE_OK;
}

static void plan_side(const kv_format *format, const tables *t, int32_t layer, int32_t head,
                      int32_t side, kv_side_plan *plan_out)
{
    const kv_policy_impl *impl = kv_policy_impl_of(format->policy.kind);
    if (impl->calibration != NULL) {
        impl->plan_calibrated(&format->policy, &format->shape,
                              kv_calibration_head(t->calibration, layer, head), side, plan_out);
    } else {
        impl->plan_side(&format->policy, &format->shape, layer, head, side, plan_out);
    }
}

/* Gives every codebook that some segment uses its place in the table of floats, then the signs. */
static void place_tables(const kv_format *format, tables *t)
{
    const kv_shape *shape = &format->shape;

    for (int32_t i = 0; i < 2 * shape->n_layers * shape->n_kv_heads; i++) {
        kv_side_plan plan;
        plan_side(format, t, i / 2 / shape->n_kv_heads, i / 2 % shape->n_kv_heads, i % 2, &plan);
        for (int32_t s = 0; s < plan.n_segments; s++) {
            const int32_t bits = plan.segments[s].bits;
            if (plan.segments[s].kind != KERN_CODEBOOK) {
                continue;
            }
            size_t *book = &t->book[bits][plan.segments[s].n_dims / DIMS_STEP];
            if (*book == 0) {
                *book = 1 + t->n_floats;
                t->n_floats += ((size_t)2 << bits) - 1; /* centroids, then thresholds */
            }
        }
    }
    t->signs = t->n_floats;
    t->n_floats += (size_t)2 * (size_t)shape->n_kv_heads * (size_t)shape->head_dim;
    t->stretched = t->n_floats;
    if (t->calibration != NULL) {
        t->n_floats += 2 * (size_t)kv_calibration_count(shape);
    }
}

static void fill_book(float *centroids_out, int32_t bits, int32_t n_dims)
{
    const int32_t n = 1 << bits;
    double centroids[1 << KV_MAX_CODE_BITS];
    float *thresholds_out = centroids_out + n;

    kv_codebook_page(bits, centroids);
    for (int32_t i = 0; i < n; i++) {
        centroids[i] /= sqrt((double)n_dims);
        centroids_out[i] = (float)centroids[i];
        if (i > 0) {
            thresholds_out[i - 1] = (float)(0.5 * (centroids[i - 1] + centroids[i]));
        }
    }
}

static void fill_tables(const kv_format *format, const tables *t)
{
    for (int32_t bits = 1; bits <= KV_MAX_CODE_BITS; bits++) {
        for (int32_t steps = 1; steps <= MAX_DIMS_STEPS; steps++) {
            if (t->book[bits][steps] != 0) {
                fill_book(t->floats + t->book[bits][steps] - 1, bits, steps * DIMS_STEP);
            }
        }
    }
    const int32_t n_side = format->shape.n_kv_heads * format->shape.head_dim;
    for (int32_t side = 0; side < 2; side++) {
        for (int32_t i = 0; i < n_side; i++) {
            const uint64_t bit = base_random_u64(SIGN_SEED, (uint64_t)side, (uint64_t)i) & 1;
            t->floats[t->signs + (size_t)(side * n_side + i)] = bit != 0 ? -1.0f : 1.0f;
        }
    }
}

static void fill_order(kv_format *format, int32_t index, const kv_side_plan *plan,
                       kern_side *side_out)
{
    if (plan->ordered) {
        const size_t head_dim = (size_t)format->shape.head_dim;
        uint16_t *order = format->orders + (size_t)index * head_dim;
        memcpy(order, plan->order, head_dim * sizeof *order);
        side_out->order = order;
    }
}

/* K's signs of head `index`, of all layers' heads: `signs` times the plan's stretch, and the inverse for queries. */
static void stretch(const tables *t, int32_t index, int32_t head_dim, const kv_side_plan *plan,
                    kern_side *side)
{
    float *rows = t->floats + t->stretched + (size_t)index * 2 * (size_t)head_dim;
    float *queries = rows + head_dim;
    for (int32_t d = 0; d < head_dim; d++) {
        rows[d] = side->signs[d] * plan->stretch[d];
        queries[d] = side->signs[d] / plan->stretch[d];
    }
    side->signs = rows;
    side->query_signs = queries;
}

/* Norms, or scales and minima, from byte `begin` of the head page on; returns where they end. */
static int64_t fill_metadata(kern_segment *seg, int32_t group, int64_t begin)
{
    int64_t at = begin;
    if (seg->kind == KERN_CODEBOOK) {
        seg->norms_offset = (int32_t)at;
        at = align_up(at + KERN_BLOCK_TOKENS * FP16_BYTES, SECTION_ALIGN);
    } else if (kern_segment_is_affine(seg)) {
        seg->group = group;
        const int64_t n_bytes = (int64_t)kern_segment_pairs(seg) * FP16_BYTES;
        seg->scales_offset = (int32_t)at;
        at = align_up(at + n_bytes, SECTION_ALIGN);
        seg->minima_offset = (int32_t)at;
        at = align_up(at + n_bytes, SECTION_ALIGN);
    }
    return at;
}

/* Lays a side out from byte `begin` of the head page on; returns where it ends. */
static int64_t fill_side(const kv_format *format, const tables *t, int32_t head, int32_t side,
                         const kv_side_plan *plan, int64_t begin, kern_side *side_out)
{
    const int32_t head_dim = format->shape.head_dim;
    int64_t at = begin;
    int32_t dim = 0;

    assert(plan->n_segments >= 1 && plan->n_segments <= KERN_MAX_SEGMENTS);
    side_out->n_segments = plan->n_segments;
    for (int32_t s = 0; s < plan->n_segments; s++) {
        kern_segment *seg = &side_out->segments[s];
        seg->kind = plan->segments[s].kind;
        seg->bits = plan->segments[s].bits;
        seg->n_dims = plan->segments[s].n_dims;
        seg->first_dim = dim;
        dim += seg->n_dims;
        seg->codes_offset = (int32_t)at;
        at += (int64_t)KERN_BLOCK_TOKENS * seg->n_dims * seg->bits / 8;
        at = align_up(at, SECTION_ALIGN);
        if (seg->kind == KERN_CODEBOOK) {
            seg->centroids = t->floats + t->book[seg->bits][seg->n_dims / DIMS_STEP] - 1;
            seg->thresholds = seg->centroids + (1 << seg->bits);
        }
    }
    assert(dim == head_dim);
    for (int32_t s = 0; s < plan->n_segments; s++) {
        at = fill_metadata(&side_out->segments[s], plan->segments[s].group, at);
    }
    if (plan->rotated) {
        const int32_t row = side * format->shape.n_kv_heads + head;
        side_out->signs = t->floats + t->signs + (size_t)row * (size_t)head_dim;
    }
    return at;
}

/* Fills heads, page_bytes and the bits per element. */
static void fill_heads(kv_format *format, const tables *t)
{
    const kv_shape *shape = &format->shape;
    const int32_t n_heads = shape->n_layers * shape->n_kv_heads;
    int64_t k_bytes = 0;

    for (int32_t i = 0; i < n_heads; i++) {
        kern_head_format *head = &format->heads[i];
        const int32_t layer = i / shape->n_kv_heads;
        const int32_t h = i % shape->n_kv_heads;
        kv_side_plan plan;

        plan_side(format, t, layer, h, 0, &plan);
        fill_order(format, 2 * i, &plan, &head->k);
        const int64_t k_end = fill_side(format, t, h, 0, &plan, 0, &head->k);
        if (plan.stretched) {
            stretch(t, i, shape->head_dim, &plan, &head->k);
        }
        plan_side(format, t, layer, h, 1, &plan);
        fill_order(format, 2 * i + 1, &plan, &head->v);
        const int64_t v_end = fill_side(format, t, h, 1, &plan, k_end, &head->v);

        head->head_dim = shape->head_dim;
        head->head_page_bytes = (int32_t)align_up(v_end, HEAD_PAGE_ALIGN);
        head->offset = format->page_bytes;
        format->page_bytes += head->head_page_bytes;
        k_bytes += k_end;
    }
    const double n_elems = (double)n_heads * KERN_BLOCK_TOKENS * shape->head_dim; /* of one side */
    format->k_bits_per_element = 8.0 * (double)k_bytes / n_elems;
    format->v_bits_per_element = 8.0 * (double)(format->page_bytes - k_bytes) / n_elems;
}

static void hash_side(base_hasher *hasher, const kern_side *side, int32_t head_dim)
{
    base_hasher_add_u64(hasher, (uint64_t)side->n_segments);
    base_hasher_add_u64(hasher, side->signs != NULL);
    for (int32_t s = 0; s < side->n_segments; s++) {
        const kern_segment *seg = &side->segments[s];
        base_hasher_add_u64(hasher, (uint64_t)seg->bits);
        base_hasher_add_u64(hasher, (uint64_t)seg->first_dim);
        base_hasher_add_u64(hasher, (uint64_t)seg->n_dims);
        base_hasher_add_u64(hasher, (uint64_t)seg->codes_offset);
        base_hasher_add_u64(hasher, (uint64_t)seg->norms_offset);
        if (kern_segment_is_affine(seg)) {
            base_hasher_add_u64(hasher, (uint64_t)seg->kind);
            base_hasher_add_u64(hasher, (uint64_t)seg->group);
            base_hasher_add_u64(hasher, (uint64_t)seg->scales_offset);
            base_hasher_add_u64(hasher, (uint64_t)seg->minima_offset);
        }
    }
    for (int32_t d = 0; d < head_dim && side->order != NULL; d++) {
        base_hasher_add_u64(hasher, side->order[d]);
    }
}

/* Which codebook a segment uses follows from its bits and dims; the tables are hashed once. */
static base_status hash_format(kv_format *format, const tables *t)
{
    base_hasher *hasher = NULL;
    char text[KV_MAX_POLICY_TEXT];
    const base_status st = base_hasher_create(&hasher);
    if (st != BASE_OK) {
        return st;
    }
    kv_policy_text(&format->policy, text);
    base_hasher_add_u64(hasher, KV_PAGE_FORMAT_VERSION);
    base_hasher_add_text(hasher, VISIBILITY_RULE);
    if (format->window_blocks + format->sink_blocks > 0) {
        base_hasher_add_text(hasher, VISIBILITY_RULE_OF_WINDOWS);
    }
    base_hasher_add_text(hasher, text);
    base_hasher_add_u64(hasher, (uint64_t)format->shape.n_layers);
    base_hasher_add_u64(hasher, (uint64_t)format->shape.n_kv_heads);
    base_hasher_add_u64(hasher, (uint64_t)format->shape.head_dim);
    for (int32_t i = 0; i < format->shape.n_layers * format->shape.n_kv_heads; i++) {
        const kern_head_format *head = &format->heads[i];
        base_hasher_add_u64(hasher, (uint64_t)head->offset);
        base_hasher_add_u64(hasher, (uint64_t)head->head_page_bytes);
        hash_side(hasher, &head->k, head->head_dim);
        hash_side(hasher, &head->v, head->head_dim);
    }
    base_hasher_add_u64(hasher, t->n_floats);
    for (size_t i = 0; i < t->n_floats; i++) {
        base_hasher_add_u64(hasher, base_f32_bits(t->floats[i]));
    }
    format->policy_hash = base_hasher_end(hasher);
    return BASE_OK;
}

base_status kv_format_check_calibration(const kv_policy *policy, const kv_shape *shape,
                                        const kv_calibration *calibration)
{
    const char *kind = kv_policy_impl_of(policy->kind)->calibration;
    if (kind == NULL) {
        return BASE_OK;
    }
    if (calibration == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "policy %s needs a calibration of the model", kind);
    }
    const kv_shape *s = &calibration->shape;
    if (s->n_layers != shape->n_layers || s->n_kv_heads != shape->n_kv_heads ||
        s->head_dim != shape->head_dim) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "calibration of %d layers, %d KV heads of %d; the cache has %d, %d of %d",
                         s->n_layers, s->n_kv_heads, s->head_dim, shape->n_layers,
                         shape->n_kv_heads, shape->head_dim);
    }
    return BASE_OK;
}

base_status kv_format_create(const kv_policy *policy, const kv_shape *shape, const base_alloc *mem,
                             kv_format **format_out)
{
    return kv_format_create_calibrated(policy, shape, NULL, mem, format_out);
}

base_status kv_format_create_calibrated(const kv_policy *policy, const kv_shape *shape,
                                        const kv_calibration *calibration, const base_alloc *mem,
                                        kv_format **format_out)
{
    base_status st = BASE_OK;
    kv_format *format = NULL;
    const bool calibrated = kv_policy_impl_of(policy->kind)->calibration != NULL;
    tables t = {.calibration = calibrated ? calibration : NULL};

    BASE_TRY(st, out, kv_shape_check(shape));
    if (policy->paper != 0) {
        st = BASE_FAIL(BASE_BAD_INPUT,
                       "policy block-gtq:paper is a reference for `ropewalk eval`: no page holds "
                       "groups that are no multiple of 16 dims");
        goto out;
    }
    BASE_TRY(st, out, kv_format_check_calibration(policy, shape, calibration));
    format = mem->get(mem->ctx, sizeof *format);
    if (format == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "cache format");
        goto out;
    }
    format->mem = *mem;
    format->policy = *policy;
    format->shape = *shape;
    format->window_blocks = policy->window / KERN_BLOCK_TOKENS;
    format->sink_blocks = policy->sinks / KERN_BLOCK_TOKENS;
    place_tables(format, &t);
    const size_t n_heads = (size_t)shape->n_layers * (size_t)shape->n_kv_heads;
    format->heads = mem->get(mem->ctx, n_heads * sizeof *format->heads);
    format->data = mem->get(mem->ctx, t.n_floats * sizeof *t.floats);
    if (calibrated) {
        format->orders =
            mem->get(mem->ctx, 2 * n_heads * (size_t)shape->head_dim * sizeof(uint16_t));
    }
    if (format->heads == NULL || format->data == NULL || (calibrated && format->orders == NULL)) {
        st = BASE_FAIL(BASE_NO_MEMORY, "cache format of %d layers and %d KV heads", shape->n_layers,
                       shape->n_kv_heads);
        goto out;
    }
    t.floats = format->data;
    fill_tables(format, &t);
    fill_heads(format, &t);
    BASE_TRY(st, out, hash_format(format, &t));
    *format_out = format;
    format = NULL;

out:
    kv_format_destroy(format);
    return st;
}

void kv_format_destroy(kv_format *format)
{
    if (format == NULL) {
        return;
    }
    const base_alloc mem = format->mem;
    mem.put(mem.ctx, format->orders);
    mem.put(mem.ctx, format->data);
    mem.put(mem.ctx, format->heads);
    mem.put(mem.ctx, format);
}

double kv_format_bytes_per_token(const kv_format *format)
{
    return (double)format->page_bytes / KERN_BLOCK_TOKENS;
}

int64_t kv_format_bf16_bytes_per_token(const kv_format *format)
{
    const kv_shape *shape = &format->shape;
    return (int64_t)shape->n_layers * shape->n_kv_heads * shape->head_dim * 2 * 2;
}
