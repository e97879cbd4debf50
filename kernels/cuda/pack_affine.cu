/* The page writer of affine sides.  One CTA a side of a head page, in the terms of fragment_order.h: "rows" are what a
 * group runs over (K: tokens, V: dims), "columns" the rest, and a column is numbered as its scale lies in the page, which
 * is where lane c has it: column 32 S + 8 c + 2 w + e is half e of word w of the lanes with that c.  A tile is a band
 * of 32 rows by 32 columns, 16 words a lane.
 *
 * Three steps, a barrier between them: minima and maxima of tiles, packed two to a word; scale and min of groups, one
 * thread each; codes, from the rows that are still in registers.  No operation here depends on an order.
 *
 * No value is divided.  A code is y / scale rounded to an integer, y = x - min, and a scale has 11 bits, so the edges
 * h scale between codes, h = 1/2, 3/2 .., are floats, and a y that is not one of them is further from it than half a
 * unit in the last place of h.  So a quotient within 2^-40 of y / scale, once rounded to a float, is h where y is h
 * scale and on the right side of h elsewhere: the integer that it rounds to, half to even, is the CPU's. */
#include "kernels/cuda/pack_affine.h"

#include "kernels/cuda/pack_rows.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kCtas = 3; /* of an SM */
constexpr int kTokens = KERN_BLOCK_TOKENS;
constexpr int kBand = FRAGMENT_BAND;
constexpr int kParts = FRAGMENT_PARTS;
constexpr int kWords = 4; /* of a lane of a part: two squares, two words each */
constexpr float kLargestHalf = 65504.0f;
constexpr uint16_t kMinusZero = 0x8000;

/* What codes of a group are made with.  inverse + rest = 2^-bits / scale; scale 0: all are 0 but min. */
struct coder {
    float min;
    float top; /* scale times the largest code */
    float inverse;
    float rest;
};

template <int D>
constexpr int kOwn = kTokens *D / (kBand * 32) / kWarps; /* tiles of a warp */

template <int D, int kSide>
constexpr int kColumns = kSide == 0 ? D : kTokens;

template <int D>
struct side_shared {
    pack_rows<D> rows;                  /* of V and of bf16 sides */
    uint32_t span[kTokens * D / kBand]; /* [band][column]: lowest and highest bf16 (upper half) */
    coder coders[kTokens * D / kBand];  /* [rows / group][columns, as coder_at has them] */
};

struct tile {
    uint32_t word[kParts][kWords]; /* bf16, of columns 2 w and 2 w + 1 */
};

__device__ __forceinline__ uint32_t lowest(uint32_t a, uint32_t b) /* NaN is passed over */
{
    const __nv_bfloat162 m = __hmin2(*(__nv_bfloat162 *)&a, *(__nv_bfloat162 *)&b);
    return *(const uint32_t *)&m;
}

__device__ __forceinline__ uint32_t highest(uint32_t a, uint32_t b)
{
    const __nv_bfloat162 m = __hmax2(*(__nv_bfloat162 *)&a, *(__nv_bfloat162 *)&b);
    return *(const uint32_t *)&m;
}

__device__ __forceinline__ float low_half(uint32_t word)
{
    return __uint_as_float(word << 16);
}

__device__ __forceinline__ float high_half(uint32_t word)
{
    return __uint_as_float(word & 0xffff0000u);
}

__device__ __forceinline__ float saturated(float x)
{
    return fminf(fmaxf(x, -kLargestHalf), kLargestHalf);
}

/* Of a column: those that the lanes of a warp read at once lie together. */
__device__ __forceinline__ int coder_at(int column)
{
    return column / 32 * 32 + column % 8 * 4 + column / 8 % 4;
}

/* from: the rows of a K side. */
template <int D>
__device__ __forceinline__ void load_k(tile &t, const uint16_t *from, int band, int across)
{
    const int lane = threadIdx.x % 32;
    from += (band * kBand + lane / 4) * D + across * 32 + lane % 4 * 8;
#pragma unroll
    for (int p = 0; p < kParts; p++) {
        const uint4 v = __ldg((const uint4 *)(from + 8 * p * D));
        t.word[p][0] = v.x;
        t.word[p][1] = v.y;
        t.word[p][2] = v.z;
        t.word[p][3] = v.w;
    }
}

template <int D>
__device__ __forceinline__ void load_v(tile &t, pack_rows<D> &rows, int band, int across)
{
    const uint32_t base = ptx_shared(rows.at(across * 32 + threadIdx.x % 32, band * kBand));
#pragma unroll
    for (int p = 0; p < kParts; p++) { /* matrices: tokens 8 w and on, dims 8 p and on */
        const uint4 v = ptx_load_matrices_transposed(base + 16 * p);
        t.word[p][0] = v.x;
        t.word[p][1] = v.y;
        t.word[p][2] = v.z;
        t.word[p][3] = v.w;
    }
}

/* to: [32], of the tile's columns. */
__device__ __forceinline__ void measure(const tile &t, uint32_t *to)
{
    const int lane = threadIdx.x % 32;
    uint32_t low[kWords];
    uint32_t high[kWords];
#pragma unroll
    for (int w = 0; w < kWords; w++) {
        low[w] = lowest(lowest(t.word[0][w], t.word[1][w]), lowest(t.word[2][w], t.word[3][w]));
        high[w] = highest(highest(t.word[0][w], t.word[1][w]), highest(t.word[2][w], t.word[3][w]));
    }
    /* Of the lanes with a column: each keeps half of its words and gives the other half away. */
#pragma unroll
    for (int n = kWords / 2, bit = 16; n > 0; n /= 2, bit /= 2) {
        const bool keeps_upper = (lane & bit) != 0;
#pragma unroll
        for (int w = 0; w < n; w++) {
            const uint32_t low_given = keeps_upper ? low[w] : low[w + n];
            const uint32_t high_given = keeps_upper ? high[w] : high[w + n];
            const uint32_t low_kept = keeps_upper ? low[w + n] : low[w];
            const uint32_t high_kept = keeps_upper ? high[w + n] : high[w];
            low[w] = lowest(low_kept, __shfl_xor_sync(~0u, low_given, bit));
            high[w] = highest(high_kept, __shfl_xor_sync(~0u, high_given, bit));
        }
    }
    low[0] = lowest(low[0], __shfl_xor_sync(~0u, low[0], 4));
    high[0] = highest(high[0], __shfl_xor_sync(~0u, high[0], 4));
    const int e = lane / 4 % 2;
    to[lane % 4 * 8 + lane / 8 * 2 + e] = ptx_prmt(low[0], high[0], e == 0 ? 0x5410 : 0x7632);
}

/* A group's rows are 32, 64 or 128: 32 << this. */
__device__ __forceinline__ int group_bands_log(const cuda_segment &g)
{
    return g.group / kBand / 2;
}

/* Of all groups, in the page and in shared memory. */
template <int D, int kSide>
__device__ __forceinline__ void make_coders(side_shared<D> &s, const cuda_segment &g,
                                            uint8_t *bytes)
{
    constexpr int n_columns = kColumns<D, kSide>;
    const int bands_log = group_bands_log(g);
    const float top_code = (float)((1 << g.bits) - 1);
    for (int i = threadIdx.x; i < kTokens * D / kBand >> bands_log; i += kThreads) {
        const int column = i % n_columns;
        const uint32_t *spans = s.span + (i / n_columns << bands_log) * n_columns + column;
        uint32_t low_bits = spans[0];
        uint32_t high_bits = spans[0];
        for (int b = 1; b < 1 << bands_log; b++) {
            low_bits = lowest(low_bits, spans[b * n_columns]);
            high_bits = highest(high_bits, spans[b * n_columns]);
        }
        const float low = low_half(low_bits);
        const bool empty = isnan(low);
        const float width = __fsub_rn(saturated(high_half(high_bits)), saturated(low));
        const __half scale = __float2half_rn(empty ? 0.0f : __fdiv_rn(width, top_code));
        __half min = __float2half_rn(empty ? 0.0f : saturated(low));
        min = __half_as_ushort(min) == kMinusZero ? __ushort_as_half(0) : min;
        *(__half *)(bytes + g.norms_at + 2 * i) = scale;
        *(__half *)(bytes + g.minima_at + 2 * i) = min;

        const float f = __half2float(scale);
        const float unit = __uint_as_float((uint32_t)(127 - g.bits) << 23);
        const float inverse = f == 0.0f ? 0.0f : ptx_reciprocal(f);
        const float rest = __fmul_rn(__fmaf_rn(-inverse, f, 1.0f), inverse);
        s.coders[i - column + coder_at(column)] = {__half2float(min), __fmul_rn(f, top_code),
                                                   __fmul_rn(inverse, unit), __fmul_rn(rest, unit)};
    }
}

/* The code, in the low bits of a word whose others are kMagic's.  NaN gives 0. */
template <int B>
__device__ __forceinline__ uint32_t code_of(float x, const coder &c)
{
    constexpr float kMagic = 1.5f * (float)(1 << (23 - B)); /* rounds to multiples of 2^-B */
    const float y = ptx_min_nan(__fsub_rn(x, c.min), c.top);
    const float quotient = __saturatef(__fmaf_rn(y, c.inverse, __fmul_rn(y, c.rest)));
    return __float_as_uint(__fadd_rn(quotient, kMagic));
}

/* coders: of the tile's group and columns.  codes: where the tile's first word lies in the page. */
template <int B>
__device__ __forceinline__ void write_tile(const tile &t, const coder *coders, uint8_t *codes)
{
    constexpr int kTogether = 8 / B; /* parts of a word */
    uint32_t word[B];
#pragma unroll
    for (int square = 0; square < 2; square++) {
        uint32_t bytes[B / 2][4]; /* of a word, that of code n; only the low one of each counts */
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const coder c = coders[(4 * square + n) * 4 + threadIdx.x % 4];
#pragma unroll
            for (int m = 0; m < B / 2; m++) {
                bytes[m][n] = 0;
#pragma unroll
                for (int k = 0; k < kTogether; k++) {
                    const uint32_t of = t.word[m * kTogether + k][2 * square + n / 2];
                    const float x = n % 2 == 0 ? low_half(of) : high_half(of);
                    bytes[m][n] += code_of<B>(x, c) << (k * B);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < B / 2; m++) {
            const uint32_t even = ptx_prmt(bytes[m][0], bytes[m][2], 0x0040);
            const uint32_t odd = ptx_prmt(bytes[m][1], bytes[m][3], 0x0040);
            const uint32_t w = ptx_prmt(even, odd, 0x5410);
            word[square * (B / 2) + m] = __funnelshift_l(w, w, 2);
        }
    }
    if constexpr (B == 2) {
        *(uint2 *)codes = make_uint2(word[0], word[1]);
    } else {
#pragma unroll
        for (int w = 0; w < B; w += 4) {
            *(uint4 *)(codes + w / 4 * 512) =
                make_uint4(word[w], word[w + 1], word[w + 2], word[w + 3]);
        }
    }
}

/* Tile i of this warp. */
template <int D, int kSide>
struct tile_spot {
    int band;
    int across; /* 32 columns */

    __device__ explicit tile_spot(int i)
    {
        const int own = threadIdx.x / 32 * kOwn<D> + i;
        band = own / (kColumns<D, kSide> / 32);
        across = own % (kColumns<D, kSide> / 32);
    }
};

template <int B, int D, int kSide>
__device__ __forceinline__ void write_codes(const tile *tiles, const side_shared<D> &s,
                                            const cuda_segment &g, uint8_t *codes)
{
    constexpr int n_columns = kColumns<D, kSide>;
    const int lane = threadIdx.x % FRAGMENT_LANES;
#pragma unroll
    for (int i = 0; i < kOwn<D>; i++) {
        const tile_spot<D, kSide> at(i);
        write_tile<B>(tiles[i],
                      s.coders + (at.band >> group_bands_log(g)) * n_columns + at.across * 32,
                      codes + fragment_affine_word(n_columns, B, at.band, at.across * 2, 0, lane));
    }
}

template <int D, int kSide>
__device__ __forceinline__ void write_affine(side_shared<D> &s, const cuda_segment &g,
                                             const uint16_t *rows, uint8_t *bytes)
{
    tile tiles[kOwn<D>];
#pragma unroll
    for (int i = 0; i < kOwn<D>; i++) {
        const tile_spot<D, kSide> at(i);
        if constexpr (kSide == 0) {
            load_k<D>(tiles[i], rows, at.band, at.across);
        } else {
            load_v<D>(tiles[i], s.rows, at.band, at.across);
        }
    }
#pragma unroll
    for (int i = 0; i < kOwn<D>; i++) {
        measure(tiles[i], s.span + (threadIdx.x / 32 * kOwn<D> + i) * 32);
    }
    __syncthreads(); /* spans are measured */
    make_coders<D, kSide>(s, g, bytes);
    __syncthreads(); /* coders are here */
    uint8_t *codes = bytes + g.codes_at;
    switch (g.bits) {
    case 2: write_codes<2, D, kSide>(tiles, s, g, codes); break;
    case 4: write_codes<4, D, kSide>(tiles, s, g, codes); break;
    default: write_codes<8, D, kSide>(tiles, s, g, codes); break;
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads, kCtas)
    pack_affine_kernel(const kern_pack_args a, const cuda_layer layer, const unsigned ahead)
{
    __shared__ __align__(16) side_shared<D> s;
    const int n_sides = 2 * a.n_kv_heads;
    const kern_pack pack = a.packs[blockIdx.x / n_sides];
    const int head_side = blockIdx.x % n_sides;
    const int side = head_side % 2;
    const cuda_head *head = &layer.heads[head_side / 2];
    const cuda_segment g = head->side[side].segments[0];
    const uint16_t *rows = a.opens[pack.open].rows + (int64_t)head_side * kTokens * D;
    uint8_t *page = a.pages + pack.page * a.page_stride + head->offset;
    uint8_t *bytes = page + head->side[side].begin;

    if (side == 1 || g.group == 0) {
        pack_rows_load<D, kThreads>(s.rows, rows);
    }
    pack_rows_ahead<D>(a, ahead);
    pack_gaps<kThreads>(head, side, page);
    if (side == 1 || g.group == 0) {
        ptx_copies_wait();
        __syncthreads(); /* rows are here */
    }
    if (g.group == 0) {
        pack_plain<D, kWarps>(s.rows, 0, D, side, bytes + g.codes_at);
    } else if (side == 0) {
        write_affine<D, 0>(s, g, rows, bytes);
    } else {
        write_affine<D, 1>(s, g, rows, bytes);
    }
}

} // namespace

pack_writer pack_affine_writer(int head_dim)
{
    return {head_dim == 64 ? pack_affine_kernel<64> : pack_affine_kernel<128>, kThreads};
}
