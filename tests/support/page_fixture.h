/* tests/support/page_fixture.h - head formats with plain uniform codebooks, and pages of them. */
#ifndef TESTS_SUPPORT_PAGE_FIXTURE_H
#define TESTS_SUPPORT_PAGE_FIXTURE_H

#include "base/random.h"
#include "kernels/page.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* In place of the bits of a segment: affine codes, by channel on the K side and by position on the V side. */
#define PAGE_AFFINE(bits, group) ((group)*100 + (bits))

typedef struct page_book {
    float centroids[256];
    float thresholds[255];
} page_book;

typedef struct page_fixture {
    kern_head_format format;
    page_book books[2 * KERN_MAX_SEGMENTS];
    float signs[2][KERN_MAX_HEAD_DIM];
    int32_t n_books;
} page_fixture;

/* 2^bits levels at equal steps over 3 standard deviations of a unit vector of n_dims. */
static inline void page_fixture_book(page_book *book, int32_t bits, int32_t n_dims)
{
    const int32_t n_levels = 1 << bits;
    const float step = 6.0f / (float)n_levels / sqrtf((float)n_dims);
    for (int32_t i = 0; i < n_levels; i++) {
        book->centroids[i] = step * ((float)i - (float)(n_levels - 1) / 2.0f);
    }
    for (int32_t i = 0; i + 1 < n_levels; i++) {
        book->thresholds[i] = (book->centroids[i] + book->centroids[i + 1]) / 2.0f;
    }
}

static inline int32_t page_fixture_align(int32_t n_bytes)
{
    return (n_bytes + 15) / 16 * 16;
}

/* A segment's norms, or its scales and minima. */
static inline void page_fixture_metadata(kern_segment *g, int32_t *at)
{
    if (g->kind == KERN_CODEBOOK) {
        g->norms_offset = *at;
        *at = page_fixture_align(*at + KERN_BLOCK_TOKENS * 2);
    } else if (kern_segment_is_affine(g)) {
        g->scales_offset = *at;
        *at = page_fixture_align(*at + kern_segment_pairs(g) * 2);
        g->minima_offset = *at;
        *at = page_fixture_align(*at + kern_segment_pairs(g) * 2);
    }
}

static inline void page_fixture_side(page_fixture *fx, kern_side *side, const int32_t *bits,
                                     int32_t n_segments, int32_t head_dim, int32_t *at)
{
    const kern_segment_kind affine =
        side == &fx->format.k ? KERN_AFFINE_CHANNEL : KERN_AFFINE_POSITION;
    side->n_segments = n_segments;
    for (int32_t i = 0; i < n_segments; i++) {
        kern_segment *g = &side->segments[i];
        g->bits = bits[i] % 100;
        g->group = bits[i] / 100;
        g->kind = g->group > 0 ? affine : g->bits == 16 ? KERN_PLAIN : KERN_CODEBOOK;
        g->n_dims = head_dim / n_segments;
        g->first_dim = i * g->n_dims;
        g->codes_offset = *at;
        *at = page_fixture_align(*at + KERN_BLOCK_TOKENS * g->n_dims / 8 * g->bits);
        if (g->kind == KERN_CODEBOOK) {
            page_book *book = &fx->books[fx->n_books++];
            page_fixture_book(book, g->bits, g->n_dims);
            g->centroids = book->centroids;
            g->thresholds = book->thresholds;
        }
    }
    for (int32_t i = 0; i < n_segments; i++) {
        page_fixture_metadata(&side->segments[i], at);
    }
}

/* k_bits and v_bits [n_segments], equal shares of head_dim.  fx must not move afterwards. */
static inline void page_fixture_init(page_fixture *fx, int32_t head_dim, int32_t n_segments,
                                     const int32_t *k_bits, const int32_t *v_bits, bool rotated,
                                     uint64_t seed)
{
    int32_t at = 0;
    memset(fx, 0, sizeof *fx);
    fx->format.head_dim = head_dim;
    page_fixture_side(fx, &fx->format.k, k_bits, n_segments, head_dim, &at);
    page_fixture_side(fx, &fx->format.v, v_bits, n_segments, head_dim, &at);
    fx->format.head_page_bytes = (at + 127) / 128 * 128;
    for (int32_t i = 0; i < 2 * head_dim; i++) {
        fx->signs[i / head_dim][i % head_dim] =
            base_random_u64(seed, 9, (uint64_t)i) % 2 == 0 ? 1.0f : -1.0f;
    }
    if (rotated) {
        fx->format.k.signs = fx->signs[0];
        fx->format.v.signs = fx->signs[1];
    }
}

#endif /* TESTS_SUPPORT_PAGE_FIXTURE_H */
