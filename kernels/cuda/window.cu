/* One CTA a slot, head and side: codes become halves in shared memory, laid out as the flash kernel wants them, and
 * leave in 16-byte pieces.  Reads packed bytes once, writes 4 D bytes a position: a few percent of the flash kernel's
 * time, so its instructions are not counted. */
#include "kernels/cuda/cuda_window.h"

#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_hopper.h"
#include "kernels/cuda/fragment_order.h"

namespace {

constexpr int kThreads = 256;
constexpr int kPlainBits = 16;

/* Code n of a pair from the lane's words of its tile (fragment_order.h). */
template <int kBits, typename Words>
__device__ __forceinline__ uint32_t code_of(const Words &word, int n_pairs, int pair, int n,
                                            int first = 0)
{
    if constexpr (kBits == 1) {
        return word(first + fragment_bit_word(n_pairs, pair)) >>
                   (n % 4 * 8 + n / 4 * 4 + fragment_bit_of(n_pairs, pair)) &
               1u;
    } else if constexpr (kBits == 2) {
        return word(first + pair / 2) >> (4 * n + pair % 2 * 2) & 3u;
    } else if constexpr (kBits == 3) {
        const int at = first + pair / 4 * 3;
        if (pair % 4 < 3) {
            return word(at + pair % 4) >> (4 * n) & 7u;
        }
        return (word(at + 2) >> (4 * n + 3) & 1u) | (word(at + 1) >> (4 * n + 3) & 1u) << 1 |
               (word(at) >> (4 * n + 3) & 1u) << 2;
    } else if constexpr (kBits == 4) {
        const uint32_t code = word(first + pair) >> (4 * n) & 15u;
        return code < 8u ? 8u + code : 15u - code;
    } else if constexpr (kBits == 8) {
        return word(first + 2 * pair + n / 4) >> (n % 4 * 8) & 255u;
    } else {
        return (word(first + pair) >> (4 * n) & 15u) |
               code_of<kBits - 4>(word, n_pairs, pair, n, first + n_pairs) << 4;
    }
}

__device__ __forceinline__ void put(uint8_t *image, int token, int dim, float x)
{
    const int at =
        dim / 64 * KERN_BLOCK_TOKENS * 128 + hopper_piece(token, dim % 64 / 8) + dim % 8 * 2;
    *reinterpret_cast<__half *>(image + at) = cuda_f16_nearest(x);
}

template <int kBits>
__device__ void widen_codes(const kern_segment &g, int side, const uint8_t *head_page,
                            uint8_t *image)
{
    __shared__ float centroids[1 << kBits];
    __shared__ float norms[KERN_BLOCK_TOKENS];
    __syncthreads(); /* the segment before is done with them */
    for (int i = threadIdx.x; i < 1 << kBits; i += kThreads) {
        centroids[i] = g.centroids[i];
    }
    for (int i = threadIdx.x; i < KERN_BLOCK_TOKENS; i += kThreads) {
        norms[i] = __half2float(*reinterpret_cast<const __half *>(head_page + g.norms_offset +
                                                                  2 * fragment_norm_at(i)));
    }
    __syncthreads(); /* tables are whole */

    const uint8_t *codes = head_page + g.codes_offset;
    const int n_pairs_all = fragment_n_tiles(side, g.n_dims) * 8; /* some tiles have only four */
    for (int i = threadIdx.x; i < n_pairs_all * FRAGMENT_LANES; i += kThreads) {
        const int lane = i % FRAGMENT_LANES;
        const int pair = i / FRAGMENT_LANES % 8;
        const fragment_tile t = fragment_tile_at(side, g.n_dims, kBits, i / FRAGMENT_LANES / 8);
        if (pair >= t.n_pairs) {
            continue;
        }
        const auto word = [&](int w) {
            return *reinterpret_cast<const uint32_t *>(
                codes + t.offset + fragment_word_at(t.n_pairs * kBits / 4, w, lane));
        };
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const fragment_spot s = fragment_code_at(side, t, pair, lane, n);
            const uint32_t code = code_of<kBits>(word, t.n_pairs, pair, n);
            put(image, s.token, g.first_dim + s.dim, norms[s.token] * centroids[code]);
        }
    }
}

template <int kBits>
__device__ void widen_affine(const kern_segment &g, int side, const uint8_t *head_page,
                             uint8_t *image)
{
    const int n_columns = side == 0 ? g.n_dims : KERN_BLOCK_TOKENS;
    const int n_squares = n_columns / FRAGMENT_SQUARE;
    const int n_groups = side == 0 ? 1 : g.n_dims / g.group; /* of a token */
    const auto half_at = [&](int32_t section, int pair) {
        return __half2float(*reinterpret_cast<const __half *>(
            head_page + section + 2 * fragment_affine_pair(side, n_groups, pair)));
    };
    for (int i = threadIdx.x; i < KERN_BLOCK_TOKENS * g.n_dims / 4; i += kThreads) {
        const int lane = i % FRAGMENT_LANES;
        const int part = i / FRAGMENT_LANES % FRAGMENT_PARTS;
        const int square = i / FRAGMENT_LANES / FRAGMENT_PARTS % n_squares;
        const int band = i / FRAGMENT_LANES / FRAGMENT_PARTS / n_squares;
        const uint32_t word = *reinterpret_cast<const uint32_t *>(
            head_page + g.codes_offset +
            fragment_affine_word(n_columns, kBits, band, square, part * kBits / 8, lane));
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const fragment_spot s = fragment_affine_at(side, band, part, square, lane, n);
            const uint32_t code = __funnelshift_r(word, word, fragment_affine_bit(kBits, part, n)) &
                                  ((1u << kBits) - 1u);
            const int pair = side == 0 ? s.token / g.group * g.n_dims + s.dim
                                       : (s.token * g.n_dims + s.dim) / g.group;
            put(image, s.token, g.first_dim + s.dim,
                fmaf(half_at(g.scales_offset, pair), (float)code, half_at(g.minima_offset, pair)));
        }
    }
}

__device__ void widen_plain(const kern_segment &g, int side, const uint8_t *head_page,
                            uint8_t *image)
{
    for (int i = threadIdx.x; i < KERN_BLOCK_TOKENS * g.n_dims; i += kThreads) {
        const int token = i / g.n_dims;
        const int dim = i % g.n_dims;
        const int at = g.codes_offset + fragment_plain_at(side, g.n_dims, token, dim);
        const uint32_t bits = *reinterpret_cast<const uint16_t *>(head_page + at);
        put(image, token, g.first_dim + dim, __uint_as_float(bits << 16));
    }
}

__device__ void widen_page(const kern_side *side, int number, const uint8_t *head_page,
                           uint8_t *image)
{
    for (int s = 0; s < side->n_segments; s++) {
        const kern_segment g = side->segments[s];
        if (g.kind == KERN_AFFINE_CHANNEL || g.kind == KERN_AFFINE_POSITION) {
            switch (g.bits) {
            case 2: widen_affine<2>(g, number, head_page, image); break;
            case 4: widen_affine<4>(g, number, head_page, image); break;
            case 8: widen_affine<8>(g, number, head_page, image); break;
            }
            continue;
        }
        switch (g.bits) {
        case 1: widen_codes<1>(g, number, head_page, image); break;
        case 2: widen_codes<2>(g, number, head_page, image); break;
        case 3: widen_codes<3>(g, number, head_page, image); break;
        case 4: widen_codes<4>(g, number, head_page, image); break;
        case 5: widen_codes<5>(g, number, head_page, image); break;
        case 6: widen_codes<6>(g, number, head_page, image); break;
        case 7: widen_codes<7>(g, number, head_page, image); break;
        case 8: widen_codes<8>(g, number, head_page, image); break;
        case kPlainBits: widen_plain(g, number, head_page, image); break;
        }
    }
}

/* rows [128][D] bf16 bits, of which n_rows were written.  broken [D] for V, else NULL. */
template <int D>
__device__ void widen_open(const uint16_t *rows, int n_rows, int *first_broken, uint8_t *image)
{
    for (int i = threadIdx.x; i < KERN_BLOCK_TOKENS * D; i += kThreads) {
        const int token = i / D;
        const int dim = i % D;
        float x = token < n_rows ? __uint_as_float((uint32_t)rows[i] << 16) : 0.0f;
        if (first_broken != nullptr && !isfinite(x)) {
            atomicMin(&first_broken[dim], token);
            x = 0.0f;
        }
        put(image, token, dim, x);
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads) fill_kernel(const kern_attn_args a, const cuda_window w)
{
    __shared__ alignas(16) uint8_t image[KERN_BLOCK_TOKENS * D * 2];
    __shared__ int first_broken[D];
    const int slot = blockIdx.x;
    const int head = blockIdx.y;
    const int side = blockIdx.z;
    const int64_t slot_head = (int64_t)slot * a.n_kv_heads + head;

    if (cuda_window_is_open(w, slot)) {
        const kern_open *open = cuda_window_open(a, w, slot);
        const int64_t written =
            w.seq.position + w.seq.n_tokens - (int64_t)open->block * KERN_BLOCK_TOKENS;
        const int n_rows = written < KERN_BLOCK_TOKENS ? (int)written : KERN_BLOCK_TOKENS;
        for (int d = threadIdx.x; d < D; d += kThreads) {
            first_broken[d] = KERN_BLOCK_TOKENS;
        }
        __syncthreads(); /* before the first atomicMin */
        widen_open<D>(open->rows + (head * 2 + side) * cuda_image_halves(D), n_rows,
                      side == 1 ? first_broken : nullptr, image);
        __syncthreads(); /* the last one is in */
        for (int d = threadIdx.x; d < D && side == 1; d += kThreads) {
            w.broken[slot_head * D + d] = (uint8_t)first_broken[d];
        }
    } else {
        const kern_head_format *f = &a.formats[head];
        const int64_t page = cuda_window_page(a, w, slot)->page;
        widen_page(side == 0 ? &f->k : &f->v, side, a.pages + page * a.page_stride + f->offset,
                   image);
    }
    __syncthreads(); /* the image is whole */
    uint4 *out =
        reinterpret_cast<uint4 *>(w.images + (slot_head * 2 + side) * cuda_image_halves(D));
    for (int i = threadIdx.x; i < KERN_BLOCK_TOKENS * D / 8; i += kThreads) {
        out[i] = reinterpret_cast<const uint4 *>(image)[i];
    }
}

} // namespace

void cuda_window_fill(void *stream, const kern_attn_args &a, const cuda_window &w)
{
    const auto s = static_cast<cudaStream_t>(stream);
    const dim3 grid(w.n_items, a.n_kv_heads, 2);
    if (w.n_items == 0) {
        return;
    }
    if (a.head_dim == 64) {
        fill_kernel<64><<<grid, kThreads, 0, s>>>(a, w);
    } else {
        fill_kernel<128><<<grid, kThreads, 0, s>>>(a, w);
    }
}
