/* One CTA a side of a head page, one thread a row: sums go in ascending order, so that the bytes are the CPU
 * writer's.  Compiled without contraction of a multiply and an add; where one is meant it says fmaf. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/fragment_order.h"
#include "kernels/cuda/pack_affine.h"

#include <cuda_fp16.h>

namespace {

constexpr int kRows = KERN_BLOCK_TOKENS; /* and threads */
constexpr int kPlain = 16;
constexpr int kMaxBook = 256;
constexpr uint16_t kLargestHalf = 0x7bff;

/* Rows in shared memory, a word for two dims: bf16 values, then, in their place, codes.  The odd pitch spreads
 * a column of rows over the banks. */
template <int D>
struct rows_of {
    static constexpr int pitch = D / 2 + 1;
    uint32_t word[kRows * pitch];

    __device__ uint32_t at(int token, int dim) const
    {
        return word[token * pitch + dim / 2] >> (dim % 2 * 16) & 0xffffu;
    }
};

struct book {
    float centroids[kMaxBook];
    float thresholds[kMaxBook];
};

/* Correctly rounded x / nu for many x: two corrections of a quotient that is off by less than two units, with
 * the correctly rounded reciprocal (Markstein).  Values near the ends of the range take the instruction. */
struct divisor {
    float nu;
    float inverse;
    bool is_middling;

    __device__ float divide(float x) const
    {
        if (!is_middling || !(fabsf(x) >= 0x1p-60f)) {
            return __fdiv_rn(x, nu);
        }
        float q = x * inverse;
        q = fmaf(fmaf(-q, nu, x), inverse, q);
        return fmaf(fmaf(-q, nu, x), inverse, q);
    }
};

template <int B>
__device__ uint32_t code_of(const book &k, float u)
{
    uint32_t code = 0;
#pragma unroll
    for (int bit = B - 1; bit >= 0; bit--) {
        code += (uint32_t)(k.thresholds[code + (1u << bit) - 1] < u) << bit;
    }
    return code;
}

/* Turns the row's values into codes; returns the norm. */
template <int B>
__device__ uint16_t encode(const book &k, int n_dims, uint32_t *row)
{
    float sum = 0.0f;
#pragma unroll 8
    for (int w = 0; w < n_dims / 2; w++) {
        const float a = __uint_as_float(row[w] << 16);
        const float b = __uint_as_float(row[w] & 0xffff0000u);
        sum += a * a;
        sum += b * b;
    }
    const float nu = __fsqrt_rn(sum);
    const bool empty = !(nu > 1e-10f); /* true for NaN as well */
    const divisor by = {nu, __frcp_rn(nu), nu > 0x1p-34f && nu < 0x1p60f};

    float code_sum = 0.0f;
#pragma unroll 4
    for (int w = 0; w < n_dims / 2; w++) {
        const float a = __uint_as_float(row[w] << 16);
        const float b = __uint_as_float(row[w] & 0xffff0000u);
        const uint32_t x = code_of<B>(k, empty ? 0.0f : by.divide(a));
        const uint32_t y = code_of<B>(k, empty ? 0.0f : by.divide(b));
        code_sum += k.centroids[x] * k.centroids[x];
        code_sum += k.centroids[y] * k.centroids[y];
        row[w] = x | y << 16;
    }
    if (empty) {
        return 0;
    }
    const uint16_t norm = __half_as_ushort(__float2half_rn(__fdiv_rn(nu, __fsqrt_rn(code_sum))));
    return norm > kLargestHalf ? kLargestHalf : norm;
}

/* Word w of a lane's part of a tile; see fragment_order.h. */
template <int B, typename F>
__device__ uint32_t word_of(int n_pairs, int w, F code)
{
    uint32_t word = 0;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        if constexpr (B == 1) {
            for (int q = 0; q < 4; q++) {
                word |= code(4 * w + q, n) << (4 * n + q);
            }
        } else if constexpr (B == 2) {
            word |= (code(2 * w, n) | code(2 * w + 1, n) << 2) << (4 * n);
        } else if constexpr (B == 3) {
            const int first = w / 3 * 4;
            const int m = w % 3;
            word |= code(first + m, n) << (4 * n);
            word |= (code(first + 3, n) >> (2 - m) & 1u) << (4 * n + 3);
        } else if constexpr (B == 4) {
            const uint32_t c = code(w, n);
            word |= ((c & 8u) != 0 ? c & 7u : 7u - c) << (4 * n);
            word |= (~c >> 3 & 1u) << (n < 4 ? 8 * n + 7 : 8 * (n - 4) + 3);
        } else if constexpr (B == 8) {
            if (n / 4 == w % 2) {
                word |= code(w / 2, n) << (8 * (n % 4));
            }
        } else if (w < n_pairs) {
            word |= (code(w, n) & 15u) << (4 * n);
        }
    }
    if constexpr (B >= 5 && B <= 7) {
        if (w >= n_pairs) {
            return word_of<B - 4>(n_pairs, w - n_pairs,
                                  [&](int pair, int n) { return code(pair, n) >> 4; });
        }
    }
    return word;
}

/* One warp a word of all lanes. */
template <int B, int D>
__device__ void write_codes(const rows_of<D> &rows, const cuda_segment &g, int side, uint8_t *codes)
{
    const int lane = threadIdx.x % 32;
    const int n_words = 2 * B; /* of a whole tile */
    const int n_tiles = fragment_n_tiles(side, g.n_dims);
    for (int i = threadIdx.x / 32; i < n_tiles * n_words; i += kRows / 32) {
        const fragment_tile t = fragment_tile_at(side, g.n_dims, B, i / n_words);
        const int w = i % n_words;
        const int n_tile_words = t.n_pairs * B / 4;
        if (w >= n_tile_words) {
            continue;
        }
        const uint32_t word = word_of<B>(t.n_pairs, w, [&](int pair, int n) {
            const fragment_spot s = fragment_code_at(side, t, pair, lane, n);
            return rows.at(s.token, g.first_dim + s.dim);
        });
        *(uint32_t *)(codes + t.offset + fragment_word_at(n_tile_words, w, lane)) = word;
    }
}

template <int D>
__device__ void write_plain(const rows_of<D> &rows, const cuda_segment &g, int side,
                            uint8_t *values)
{
    const int lane = threadIdx.x % 32;
    const int n_squares = KERN_BLOCK_TOKENS / 16 * g.n_dims / 16;
    const int n_across = (side == 0 ? g.n_dims : KERN_BLOCK_TOKENS) / 16;
    for (int i = threadIdx.x / 32; i < n_squares; i += kRows / 32) {
        uint32_t word[4];
        for (int r = 0; r < 4; r++) {
            const int row = i / n_across * 16 + r % 2 * 8 + lane / 4;
            const int col = i % n_across * 16 + r / 2 * 8 + lane % 4 * 2;
            const int dim = g.first_dim + (side == 0 ? col : row);
            word[r] = side == 0 ? rows.at(row, dim) | rows.at(row, dim + 1) << 16
                                : rows.at(col, dim) | rows.at(col + 1, dim) << 16;
        }
        *(uint4 *)(values + i * 512 + lane * 16) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

template <int B, int D>
__device__ void write_segment(rows_of<D> &rows, const book &k, const cuda_segment &g, int side,
                              uint8_t *bytes)
{
    const int token = threadIdx.x;
    const uint16_t norm = encode<B>(k, g.n_dims, rows.word + token * rows.pitch + g.first_dim / 2);
    *(uint16_t *)(bytes + g.norms_at + 2 * fragment_norm_at(token)) = norm;
    __syncthreads(); /* codes are whole */
    write_codes<B>(rows, g, side, bytes + g.codes_at);
}

template <int D>
__global__ void __launch_bounds__(kRows) pack_kernel(const kern_pack_args a, const cuda_layer layer)
{
    __shared__ rows_of<D> rows;
    __shared__ book k;
    const int n_sides = 2 * a.n_kv_heads;
    const kern_pack pack = a.packs[blockIdx.x / n_sides];
    const int head_side = blockIdx.x % n_sides;
    const int side = head_side % 2;
    const cuda_head *head = &layer.heads[head_side / 2];
    const uint32_t *from =
        (const uint32_t *)(a.opens[pack.open].rows + (int64_t)head_side * kRows * D);
    uint8_t *page = a.pages + pack.page * a.page_stride + head->offset;

#pragma unroll 16
    for (int i = threadIdx.x; i < kRows * D / 2; i += kRows) {
        rows.word[i / (D / 2) * rows.pitch + i % (D / 2)] = from[i];
    }
    for (int i = 0; i < head->n_gaps && side == 0; i++) {
        for (int b = head->gaps[i].begin + (int)threadIdx.x * 16; b < head->gaps[i].end;
             b += kRows * 16) {
            *(uint4 *)(page + b) = make_uint4(0, 0, 0, 0);
        }
    }
    const cuda_side *s = &head->side[side];
    uint8_t *bytes = page + s->begin;
    for (int i = 0; i < s->n_segments; i++) {
        const cuda_segment g = s->segments[i];
        if (g.bits != kPlain) {
            const int n = 1 << g.bits;
            for (int j = threadIdx.x; j < n; j += kRows) {
                k.centroids[j] = layer.floats[g.book + j];
                k.thresholds[j] = layer.floats[g.book + n + j];
            }
        }
        __syncthreads(); /* rows and book are here */
        switch (g.bits) {
        case 1: write_segment<1>(rows, k, g, side, bytes); break;
        case 2: write_segment<2>(rows, k, g, side, bytes); break;
        case 3: write_segment<3>(rows, k, g, side, bytes); break;
        case 4: write_segment<4>(rows, k, g, side, bytes); break;
        case 5: write_segment<5>(rows, k, g, side, bytes); break;
        case 6: write_segment<6>(rows, k, g, side, bytes); break;
        case 7: write_segment<7>(rows, k, g, side, bytes); break;
        case 8: write_segment<8>(rows, k, g, side, bytes); break;
        default: write_plain(rows, g, side, bytes + g.codes_at); break;
        }
    }
}

} // namespace

extern "C" base_status kern_cuda_pack(void *stream, const kern_cuda_formats *formats,
                                      const kern_pack_args *a)
{
    const unsigned n_ctas = (unsigned)a->n_packs * 2u * (unsigned)a->n_kv_heads;
    const auto s = static_cast<cudaStream_t>(stream);
    const auto kernel = formats->head_dim == 64 ? pack_kernel<64> : pack_kernel<128>;
    if (n_ctas == 0) {
        return BASE_OK;
    }
    if (formats->family == CUDA_AFFINE) {
        return pack_affine(stream, formats, a);
    }
    /* As many CTAs an SM as shared memory holds: their phases overlap. */
    base_status st =
        cuda_to_status(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       "pack");
    if (st != BASE_OK) {
        return st;
    }
    kernel<<<n_ctas, kRows, 0, s>>>(*a, formats->layer);
    return CUDA_LAUNCHED("pack");
}
