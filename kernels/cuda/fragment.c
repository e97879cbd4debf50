/* Bit by bit from one map, so that both directions are the same statement read two ways. */
#include "kernels/cuda/fragment.h"

#include "kernels/cuda/fragment_order.h"

#include <string.h>

/* Bit k of code n of a pair: its number among the bits of the lane's words, 32 a word. */
static int32_t bit_at(int32_t bits, int32_t n_pairs, int32_t pair, int32_t n, int32_t k)
{
    switch (bits) {
    case 1:
        return fragment_bit_word(n_pairs, pair) * 32 + n % 4 * 8 + n / 4 * 4 +
               fragment_bit_of(n_pairs, pair);
    case 2: return pair / 2 * 32 + 4 * n + pair % 2 * 2 + k;
    case 3:
        return pair % 4 < 3 ? (pair / 4 * 3 + pair % 4) * 32 + 4 * n + k
                            : (pair / 4 * 3 + 2 - k) * 32 + 4 * n + 3;
    case 4: return pair * 32 + 4 * n + k;
    case 8: return (2 * pair + n / 4) * 32 + n % 4 * 8 + k;
    default:
        return k < 4 ? pair * 32 + 4 * n + k
                     : n_pairs * 32 + bit_at(bits - 4, n_pairs, pair, n, k - 4);
    }
}

/* Sign and magnitude instead of a number, in both directions. */
static uint32_t to_signed(uint32_t code)
{
    return ((code & 8u) != 0 ? code & 7u : 7u - code) | (~code & 8u);
}

static uint32_t from_signed(uint32_t code)
{
    return ((code & 8u) != 0 ? 7u - (code & 7u) : code) | (~code & 8u);
}

static uint32_t plain_code(const uint8_t *row, int32_t bits, int32_t dim)
{
    uint32_t code = 0;
    for (int32_t k = 0; k < bits; k++) {
        const int32_t at = dim * bits + k;
        code |= (uint32_t)(row[at / 8] >> (at % 8) & 1) << k;
    }
    return code;
}

static void put_plain_code(uint8_t *row, int32_t bits, int32_t dim, uint32_t code)
{
    for (int32_t k = 0; k < bits; k++) {
        const int32_t at = dim * bits + k;
        row[at / 8] = (uint8_t)(row[at / 8] | (code >> k & 1u) << (at % 8));
    }
}

/* The byte and, in *shift_out, the bit in it that holds bit `at` of the lane's words. */
static int32_t byte_at(const fragment_tile *t, int32_t bits, int32_t lane, int32_t at,
                       int32_t *shift_out)
{
    *shift_out = at % 8;
    return t->offset + fragment_word_at(t->n_pairs * bits / 4, at / 32, lane) + at % 32 / 8;
}

static void codes_from_plain(const kern_segment *g, int32_t side, const uint8_t *from, uint8_t *to)
{
    const int32_t row_bytes = g->n_dims / 8 * g->bits;
    memset(to, 0, (size_t)(KERN_BLOCK_TOKENS * row_bytes));
    for (int32_t i = 0; i < fragment_n_tiles(side, g->n_dims); i++) {
        const fragment_tile t = fragment_tile_at(side, g->n_dims, g->bits, i);
        for (int32_t j = 0; j < t.n_pairs * FRAGMENT_LANES * 8; j++) {
            const int32_t pair = j / 8 / FRAGMENT_LANES;
            const int32_t lane = j / 8 % FRAGMENT_LANES;
            const fragment_spot s = fragment_code_at(side, t, pair, lane, j % 8);
            uint32_t code = plain_code(from + (int64_t)s.token * row_bytes, g->bits, s.dim);
            code = g->bits == 4 ? to_signed(code) : code;
            for (int32_t k = 0; k < g->bits; k++) {
                int32_t shift;
                const int32_t byte =
                    byte_at(&t, g->bits, lane, bit_at(g->bits, t.n_pairs, pair, j % 8, k), &shift);
                to[byte] = (uint8_t)(to[byte] | (code >> k & 1u) << shift);
            }
        }
    }
}

static void codes_to_plain(const kern_segment *g, int32_t side, const uint8_t *from, uint8_t *to)
{
    const int32_t row_bytes = g->n_dims / 8 * g->bits;
    memset(to, 0, (size_t)(KERN_BLOCK_TOKENS * row_bytes));
    for (int32_t i = 0; i < fragment_n_tiles(side, g->n_dims); i++) {
        const fragment_tile t = fragment_tile_at(side, g->n_dims, g->bits, i);
        for (int32_t j = 0; j < t.n_pairs * FRAGMENT_LANES * 8; j++) {
            const int32_t pair = j / 8 / FRAGMENT_LANES;
            const int32_t lane = j / 8 % FRAGMENT_LANES;
            const fragment_spot s = fragment_code_at(side, t, pair, lane, j % 8);
            uint32_t code = 0;
            for (int32_t k = 0; k < g->bits; k++) {
                int32_t shift;
                const int32_t byte =
                    byte_at(&t, g->bits, lane, bit_at(g->bits, t.n_pairs, pair, j % 8, k), &shift);
                code |= (uint32_t)(from[byte] >> shift & 1) << k;
            }
            code = g->bits == 4 ? from_signed(code) : code;
            put_plain_code(to + (int64_t)s.token * row_bytes, g->bits, s.dim, code);
        }
    }
}

static void affine_codes(const kern_segment *g, int32_t side, bool from_plain, const uint8_t *from,
                         uint8_t *to)
{
    const int32_t row_bytes = g->n_dims / 8 * g->bits;
    const int32_t n_columns = side == 0 ? g->n_dims : KERN_BLOCK_TOKENS;
    const int32_t n_squares = n_columns / FRAGMENT_SQUARE;
    memset(to, 0, (size_t)(KERN_BLOCK_TOKENS * row_bytes));
    for (int32_t i = 0; i < KERN_BLOCK_TOKENS * g->n_dims; i++) {
        const int32_t n = i % 4;
        const int32_t lane = i / 4 % FRAGMENT_LANES;
        const int32_t part = i / 4 / FRAGMENT_LANES % FRAGMENT_PARTS;
        const int32_t square = i / 4 / FRAGMENT_LANES / FRAGMENT_PARTS % n_squares;
        const int32_t band = i / 4 / FRAGMENT_LANES / FRAGMENT_PARTS / n_squares;
        const fragment_spot s = fragment_affine_at(side, band, part, square, lane, n);
        const int32_t word =
            fragment_affine_word(n_columns, g->bits, band, square, part * g->bits / 8, lane);
        for (int32_t k = 0; k < g->bits; k++) {
            const int32_t at = (fragment_affine_bit(g->bits, part, n) + k) % 32 + 8 * word;
            const int32_t plain = 8 * s.token * row_bytes + s.dim * g->bits + k;
            const int32_t a = from_plain ? plain : at;
            const int32_t b = from_plain ? at : plain;
            to[b / 8] = (uint8_t)(to[b / 8] | (from[a / 8] >> (a % 8) & 1) << (b % 8));
        }
    }
}

static void affine_permute(const kern_segment *g, int32_t side, bool from_plain,
                           const uint8_t *from, uint8_t *to)
{
    const int32_t n_groups = side == 0 ? 1 : g->n_dims / g->group;
    affine_codes(g, side, from_plain, from + g->codes_offset, to + g->codes_offset);
    for (int32_t i = 0; i < kern_segment_pairs(g); i++) {
        const int32_t there = 2 * fragment_affine_pair(side, n_groups, i);
        const int32_t a = from_plain ? 2 * i : there;
        const int32_t b = from_plain ? there : 2 * i;
        memcpy(to + g->scales_offset + b, from + g->scales_offset + a, 2);
        memcpy(to + g->minima_offset + b, from + g->minima_offset + a, 2);
    }
}

static void side_permute(const kern_side *side, int32_t number, bool from_plain,
                         const uint8_t *from, uint8_t *to)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        const uint8_t *a = from + g->codes_offset;
        uint8_t *b = to + g->codes_offset;
        if (kern_segment_is_affine(g)) {
            affine_permute(g, number, from_plain, from, to);
            continue;
        }
        if (g->kind == KERN_PLAIN) {
            for (int32_t j = 0; j < KERN_BLOCK_TOKENS * g->n_dims; j++) {
                const int32_t at =
                    fragment_plain_at(number, g->n_dims, j / g->n_dims, j % g->n_dims);
                memcpy(b + (from_plain ? at : 2 * j), a + (from_plain ? 2 * j : at), 2);
            }
            continue;
        }
        if (from_plain) {
            codes_from_plain(g, number, a, b);
        } else {
            codes_to_plain(g, number, a, b);
        }
        for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
            const int32_t at = g->norms_offset + 2 * fragment_norm_at(j);
            const int32_t plain = g->norms_offset + 2 * j;
            memcpy(to + (from_plain ? at : plain), from + (from_plain ? plain : at), 2);
        }
    }
}

static void page_permute(const kern_head_format *f, bool from_plain, const uint8_t *from,
                         uint8_t *to)
{
    memcpy(to, from, (size_t)f->head_page_bytes); /* what no section owns */
    side_permute(&f->k, 0, from_plain, from, to);
    side_permute(&f->v, 1, from_plain, from, to);
}

void kern_fragment_from_plain(const kern_head_format *format, const uint8_t *from, uint8_t *to)
{
    page_permute(format, true, from, to);
}

void kern_fragment_to_plain(const kern_head_format *format, const uint8_t *from, uint8_t *to)
{
    page_permute(format, false, from, to);
}

/* Affine segments are whole sides, as the policy makes them: K by channel, V by position. */
static bool segment_fits(const kern_segment *g, const kern_side *side, int32_t number,
                         int32_t head_dim)
{
    if (kern_segment_is_affine(g)) {
        return side->n_segments == 1 && (head_dim == 64 || head_dim == 128) &&
               g->kind == (number == 0 ? KERN_AFFINE_CHANNEL : KERN_AFFINE_POSITION);
    }
    return g->n_dims % FRAGMENT_SQUARE == 0;
}

static bool side_fits(const kern_side *side, int32_t number, int32_t head_dim)
{
    bool fits = true;
    for (int32_t i = 0; i < side->n_segments; i++) {
        fits = fits && segment_fits(&side->segments[i], side, number, head_dim);
    }
    return fits;
}

/* One segment, and no codebook. */
static bool side_is_whole(const kern_side *side)
{
    return side->n_segments == 1 && side->segments[0].kind != KERN_CODEBOOK;
}

bool kern_fragment_is_affine(const kern_head_format *format)
{
    return kern_segment_is_affine(&format->k.segments[0]) ||
           kern_segment_is_affine(&format->v.segments[0]);
}

bool kern_fragment_fits(const kern_head_format *format)
{
    return format->offset % 16 == 0 && side_fits(&format->k, 0, format->head_dim) &&
           side_fits(&format->v, 1, format->head_dim) &&
           (!kern_fragment_is_affine(format) ||
            (side_is_whole(&format->k) && side_is_whole(&format->v)));
}
