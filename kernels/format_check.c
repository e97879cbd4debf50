#include "kernels/format_check.h"

#include <stdbool.h>
#include <stddef.h>

/* A power of two, or 3, 5 or 7 times one: what page.h can rotate. */
static bool can_rotate(int32_t n)
{
    while (n > 1 && n % 2 == 0) {
        n /= 2;
    }
    return n >= 1 && n <= 7;
}

static bool is_permutation(const uint16_t *order, int32_t n)
{
    bool seen[KERN_MAX_HEAD_DIM] = {false};
    for (int32_t i = 0; i < n; i++) {
        if (order[i] >= n || seen[order[i]]) {
            return false;
        }
        seen[order[i]] = true;
    }
    return true;
}

/* Bits, and what an affine group may be. */
static bool width_fits(const kern_segment *g)
{
    switch (g->kind) {
    case KERN_CODEBOOK: return g->bits >= 1 && g->bits <= 8;
    case KERN_PLAIN: return g->bits == 16;
    case KERN_AFFINE_CHANNEL:
    case KERN_AFFINE_POSITION:
        return (g->bits == 2 || g->bits == 4 || g->bits == 8) &&
               (g->group == 32 || g->group == 64 || g->group == 128) &&
               (g->kind == KERN_AFFINE_CHANNEL || g->n_dims % g->group == 0);
    }
    return false;
}

static base_status check_side(const char *op, const kern_side *side, int32_t head, char name,
                              int32_t head_dim)
{
    int32_t dim = 0;

    if (side->n_segments < 1 || side->n_segments > KERN_MAX_SEGMENTS) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: head %d side %c has %d segments, allowed 1..%d", op,
                         head, name, side->n_segments, KERN_MAX_SEGMENTS);
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (!width_fits(g)) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "%s: head %d side %c segment %d of kind %d has bits %d, group %d", op,
                             head, name, i, (int)g->kind, g->bits, g->group);
        }
        if (g->first_dim != dim || g->n_dims < 8 || g->n_dims % 8 != 0 ||
            g->n_dims > head_dim - dim) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "%s: head %d side %c segment %d covers %d dims from %d of %d", op,
                             head, name, i, g->n_dims, g->first_dim, head_dim);
        }
        if (side->signs != NULL && !can_rotate(g->n_dims)) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "%s: head %d side %c segment %d is rotated and has %d dims", op, head,
                             name, i, g->n_dims);
        }
        dim += g->n_dims;
    }
    if (dim != head_dim) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: segments of head %d side %c cover %d dims of %d", op,
                         head, name, dim, head_dim);
    }
    if (side->order != NULL && !is_permutation(side->order, head_dim)) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: head %d side %c: order is no permutation of %d dims",
                         op, head, name, head_dim);
    }
    return BASE_OK;
}

static bool section_fits(int64_t offset, int64_t n_bytes, int64_t page_bytes)
{
    return offset >= 0 && offset % 16 == 0 && offset + n_bytes <= page_bytes;
}

static bool metadata_fits(const kern_segment *g, int32_t page_bytes)
{
    if (g->kind == KERN_CODEBOOK) {
        return section_fits(g->norms_offset, KERN_BLOCK_TOKENS * 2, page_bytes);
    }
    if (kern_segment_is_affine(g)) {
        const int32_t n_bytes = kern_segment_pairs(g) * 2;
        return section_fits(g->scales_offset, n_bytes, page_bytes) &&
               section_fits(g->minima_offset, n_bytes, page_bytes);
    }
    return true;
}

static base_status check_sections(const char *op, const kern_side *side, int32_t head, char name,
                                  int32_t head_page_bytes)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        const int64_t code_bytes = (int64_t)KERN_BLOCK_TOKENS * g->n_dims * g->bits / 8;
        if (!section_fits(g->codes_offset, code_bytes, head_page_bytes) ||
            !metadata_fits(g, head_page_bytes)) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "%s: head %d side %c segment %d at %d, %d, %d, %d leaves its %d bytes",
                             op, head, name, i, g->codes_offset, g->norms_offset, g->scales_offset,
                             g->minima_offset, head_page_bytes);
        }
        if (g->kind == KERN_CODEBOOK && (g->centroids == NULL || g->thresholds == NULL)) {
            return BASE_FAIL(BASE_BAD_INPUT, "%s: head %d side %c segment %d has no codebook", op,
                             head, name, i);
        }
    }
    return BASE_OK;
}

base_status kern_formats_check(const char *op, const kern_head_format *formats, int32_t n_kv_heads,
                               int32_t head_dim)
{
    base_status st = BASE_OK;

    if (head_dim != 64 && head_dim != 128) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: head_dim %d, allowed 64 and 128", op, head_dim);
    }
    if (n_kv_heads < 1 || formats == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: %d KV heads", op, n_kv_heads);
    }
    for (int32_t h = 0; h < n_kv_heads; h++) {
        if (formats[h].head_dim != head_dim) {
            return BASE_FAIL(BASE_BAD_INPUT, "%s: format of head %d has head_dim %d, not %d", op, h,
                             formats[h].head_dim, head_dim);
        }
        BASE_TRY(st, out, check_side(op, &formats[h].k, h, 'K', head_dim));
        BASE_TRY(st, out, check_side(op, &formats[h].v, h, 'V', head_dim));
    }
out:
    return st;
}

base_status kern_formats_check_pages(const char *op, const kern_head_format *formats,
                                     int32_t n_kv_heads, int32_t head_dim, int64_t page_stride)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, kern_formats_check(op, formats, n_kv_heads, head_dim));
    for (int32_t h = 0; h < n_kv_heads; h++) {
        const kern_head_format *f = &formats[h];
        if (f->head_page_bytes < 128 || f->head_page_bytes % 128 != 0 || f->offset < 0 ||
            f->offset > page_stride - f->head_page_bytes) {
            st = BASE_FAIL(BASE_BAD_INPUT, "%s: head page %d of %d bytes at %lld, page_stride %lld",
                           op, h, f->head_page_bytes, (long long)f->offset, (long long)page_stride);
            goto out;
        }
        BASE_TRY(st, out, check_sections(op, &f->k, h, 'K', f->head_page_bytes));
        BASE_TRY(st, out, check_sections(op, &f->v, h, 'V', f->head_page_bytes));
    }
out:
    return st;
}
