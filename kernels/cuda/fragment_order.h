/* kernels/cuda/fragment_order.h - where each code of a page lies in CUDA fragment order.
 *
 * Both sides are multiplied from the left: K as tokens x dims with the queries, V as dims x tokens with the
 * weights.  Lane 4g + c of a warp holds rows g and g + 8 of a 16 x 16 square, four columns each: a pair of
 * registers, eight codes n = 4 r + i, row 8 r + g.  Columns are numbered so that
 *      K: i of lane c is dim 4c + i           V: i of lane c is token 8 (i & 1) + 2c + (i >> 1)
 * (the second because a transposed weight matrix arrives so).  A tile is eight pairs:
 *      K: 64 tokens x 32 dims, pair 2u + b = square of tokens 16u.., dims 16b..; tiles run over dims, then over
 *         the two halves of the page.  Where n_dims is an odd multiple of 16, the last tile of each half has
 *         four pairs u.
 *      V: 16 dims x 128 tokens, pair s = tokens 16s..; tiles run over dims.
 *
 * A tile of P pairs at b bits is P b / 4 words of a lane, and lies as vectors of 16 bytes a lane, then, for what
 * is left, 8 and 4 bytes a lane: every load of a warp is contiguous.  Bits inside the words, so that 16 bits of a
 * word, shifted if need be, select four codes of one register (nibble n belongs to code n); of 1 bit, so that a mask
 * makes them:
 *      1   word p%2 of two, bit p/2 + 4 r of byte i; of four pairs one word, bit p + 4 r
 *      2   word p/2, bits 2(p%2).. of the nibble
 *      3   of four pairs, three words: pair m < 3 in the low three bits of word m; bits 2, 1, 0 of the fourth in
 *          the top bits of the nibbles of words 0, 1, 2
 *      4   word p.  Low three bits: magnitude, c >= 8 ? c - 8 : 7 - c; the top bit: c < 8
 *      5-7 low four bits in word p, plainly; the rest as codes of b - 4 bits in the words after
 *      8   words 2p + r, a byte a code
 * bf16 values: squares of 512 bytes, 16 a lane, word r + 2h = row 8r + g, columns 8h + 2c and the next; K's lie
 * tokens first, V's dims first.
 * Norms: that of token 16u + 8r + g is number 16g + 2u + r.
 *
 * Affine sides (a segment of 64 or 128 dims) are multiplied as 16-bit floats, in bands of 32 rows: part p of a band
 * is rows 8p + g.  A square of 16 columns has four of them on a lane, n = 0 .. 3:
 *      K: dim 32(s / 2) + 8c + 4(s % 2) + n        V: token 16s + 8(n / 2) + 2c + n % 2
 * A lane's words of a band run over squares, b / 2 to a square, 8 / b parts to a word, and lie as vectors of 16 bytes
 * a lane.  A code lies where one mask makes it the mantissa of a half, if need be after a rotation by 8: code n of
 * part p is bits 8(n / 2) + 16(n % 2) + 2 + b (p % (8 / b)) and on, past bit 31 from bit 0.
 * Scales and minima: K's in plain order.  V's group by group of dims, 128 tokens each, that of token
 * 32q + 16y + 8k + 2c + e being number 32q + 8c + 4y + 2k + e. */
#ifndef KERNELS_CUDA_FRAGMENT_ORDER_H
#define KERNELS_CUDA_FRAGMENT_ORDER_H

#include "kernels/page.h"

#include <stdint.h>

#ifdef __CUDACC__
#define FRAGMENT_FN static __host__ __device__ __forceinline__
#else
#define FRAGMENT_FN static inline
#endif

#define FRAGMENT_LANES  32
#define FRAGMENT_SQUARE 16 /* rows and columns */
#define FRAGMENT_BAND   32 /* rows */
#define FRAGMENT_PARTS  4  /* of a band */

typedef struct fragment_tile {
    int32_t offset; /* bytes from the start of the segment's codes */
    int32_t n_pairs;
    int32_t first_token;
    int32_t first_dim; /* in the segment */
} fragment_tile;

typedef struct fragment_spot {
    int32_t token;
    int32_t dim; /* in the segment */
} fragment_spot;

FRAGMENT_FN int32_t fragment_n_tiles(int32_t side, int32_t n_dims)
{
    return side == 0 ? 2 * ((n_dims + 31) / 32) : n_dims / FRAGMENT_SQUARE;
}

FRAGMENT_FN fragment_tile fragment_tile_at(int32_t side, int32_t n_dims, int32_t bits, int32_t tile)
{
    fragment_tile t;
    if (side == 0) {
        const int32_t n = (n_dims + 31) / 32;
        const int32_t step = tile % n;
        t.first_token = tile / n * 64;
        t.first_dim = step * 32;
        t.offset = tile / n * 8 * n_dims * bits + step * 256 * bits;
        t.n_pairs = t.first_dim + 32 <= n_dims ? 8 : 4;
    } else {
        t.first_token = 0;
        t.first_dim = tile * FRAGMENT_SQUARE;
        t.offset = tile * 256 * bits;
        t.n_pairs = 8;
    }
    return t;
}

/* Code n of a pair in a lane. */
FRAGMENT_FN fragment_spot fragment_code_at(int32_t side, fragment_tile t, int32_t pair,
                                           int32_t lane, int32_t n)
{
    const int32_t row = n / 4 * 8 + lane / 4;
    const int32_t i = n % 4;
    const int32_t c = lane % 4;
    fragment_spot s;
    if (side == 0) {
        const int32_t u = t.n_pairs == 8 ? pair / 2 : pair;
        const int32_t b = t.n_pairs == 8 ? pair % 2 : 0;
        s.token = t.first_token + FRAGMENT_SQUARE * u + row;
        s.dim = t.first_dim + FRAGMENT_SQUARE * b + 4 * c + i;
    } else {
        s.token = t.first_token + FRAGMENT_SQUARE * pair + 8 * (i & 1) + 2 * c + (i >> 1);
        s.dim = t.first_dim + row;
    }
    return s;
}

/* Of 1 bit: the word of a pair among the lane's, and the bit in each byte that row 0 of the pair has; row 1 has the
 * fourth from there. */
FRAGMENT_FN int32_t fragment_bit_word(int32_t n_pairs, int32_t pair)
{
    return n_pairs == 8 ? pair % 2 : 0;
}

FRAGMENT_FN int32_t fragment_bit_of(int32_t n_pairs, int32_t pair)
{
    return n_pairs == 8 ? pair / 2 : pair;
}

/* Bytes from the start of a tile of n_words a lane to word w of a lane. */
FRAGMENT_FN int32_t fragment_word_at(int32_t n_words, int32_t w, int32_t lane)
{
    const int32_t whole = n_words / 4 * 4;
    if (w < whole) {
        return w / 4 * 512 + lane * 16 + w % 4 * 4;
    }
    const int32_t left = n_words - whole;
    if (left >= 2 && w < whole + 2) {
        return whole * 128 + lane * 8 + (w - whole) * 4;
    }
    return whole * 128 + (left >= 2 ? 256 : 0) + lane * 4;
}

/* Bytes from the start of a bf16 segment to the value of (token, dim). */
FRAGMENT_FN int32_t fragment_plain_at(int32_t side, int32_t n_dims, int32_t token, int32_t dim)
{
    const int32_t row = side == 0 ? token : dim;
    const int32_t col = side == 0 ? dim : token;
    const int32_t n_cols = side == 0 ? n_dims : KERN_BLOCK_TOKENS;
    const int32_t lane = row % 8 * 4 + col % 8 / 2;
    return row / 16 * 32 * n_cols + col / 16 * 512 + lane * 16 + row % 16 / 8 * 4 +
           col % 16 / 8 * 8 + col % 2 * 2;
}

FRAGMENT_FN int32_t fragment_norm_at(int32_t token)
{
    return token % 8 * 16 + token / 16 * 2 + token / 8 % 2;
}

/* Code n of a square of a band in a lane. */
FRAGMENT_FN fragment_spot fragment_affine_at(int32_t side, int32_t band, int32_t part,
                                             int32_t square, int32_t lane, int32_t n)
{
    const int32_t row = FRAGMENT_BAND * band + 8 * part + lane / 4;
    const int32_t c = lane % 4;
    fragment_spot s;
    if (side == 0) {
        s.token = row;
        s.dim = square / 2 * 32 + 8 * c + square % 2 * 4 + n;
    } else {
        s.token = FRAGMENT_SQUARE * square + n / 2 * 8 + 2 * c + n % 2;
        s.dim = row;
    }
    return s;
}

/* Its first bit; bit k of it is the k-th from there, past bit 31 from bit 0. */
FRAGMENT_FN int32_t fragment_affine_bit(int32_t bits, int32_t part, int32_t n)
{
    return (n / 2 * 8 + n % 2 * 16 + 2 + bits * (part % (8 / bits))) % 32;
}

/* Bytes from the start of the codes to the word of a lane that has parts (8 / bits) m and on. */
FRAGMENT_FN int32_t fragment_affine_word(int32_t n_columns, int32_t bits, int32_t band,
                                         int32_t square, int32_t m, int32_t lane)
{
    const int32_t w = square * (bits / 2) + m;
    return FRAGMENT_BAND / 8 * n_columns * bits * band + w / 4 * 512 + lane * 16 + w % 4 * 4;
}

/* Where the scale and min of plain number i lie in theirs, of n_groups to a token on V's side. */
FRAGMENT_FN int32_t fragment_affine_pair(int32_t side, int32_t n_groups, int32_t i)
{
    const int32_t t = i / n_groups;
    return side == 0 ? i
                     : i % n_groups * KERN_BLOCK_TOKENS + t / 32 * 32 + t / 2 % 4 * 8 +
                           t / 8 % 4 * 2 + t % 2;
}

#endif /* KERNELS_CUDA_FRAGMENT_ORDER_H */
