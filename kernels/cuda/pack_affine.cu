/* One CTA a side of a head page.  Minima and maxima of 32 elements first, then those of a group, then every thread
 * makes 16 bytes of codes.  No operation here depends on an order, so the bytes are the CPU writer's. */
#include "kernels/cuda/pack_affine.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/fragment_order.h"

#include <cuda_fp16.h>

namespace {

constexpr int kThreads = 256;
constexpr int kTokens = KERN_BLOCK_TOKENS;
constexpr int kSpan = 32; /* the smallest group */
constexpr float kLargestHalf = 65504.0f;
constexpr float kRoundMagic = 0x1.8p23f; /* adding it rounds to an integer, left in the low bits */
constexpr uint16_t kMinusZero = 0x8000;

struct limits {
    float low;
    float high;

    __device__ void add(float low_of, float high_of) /* NaN is passed over */
    {
        low = fminf(low, low_of);
        high = fmaxf(high, high_of);
    }
};

struct affine_pair {
    float scale;
    float min;
};

template <int D>
struct side_shared {
    static constexpr int pitch = D / 2 + 1; /* odd: a column of rows is spread over the banks */
    static constexpr int n_spans = kTokens * D / kSpan;
    uint32_t row[kTokens * pitch]; /* bf16, a word for two dims */
    limits span[n_spans];          /* K: [4][D]; V: [128][D / 32] */
    affine_pair pair[n_spans];     /* as the page has them, plain order */

    /* Saturated; NaN stays NaN. */
    __device__ float at(int token, int dim) const
    {
        const uint32_t w = row[token * pitch + dim / 2];
        const float x = __uint_as_float(dim % 2 == 0 ? w << 16 : w & 0xffff0000u);
        return x > kLargestHalf ? kLargestHalf : x < -kLargestHalf ? -kLargestHalf : x;
    }
};

template <int D>
__device__ void measure_spans(side_shared<D> &s, int side)
{
    for (int i = threadIdx.x; i < s.n_spans; i += kThreads) {
        limits l = {INFINITY, -INFINITY};
        for (int j = 0; j < kSpan; j++) {
            const float x = side == 0 ? s.at(i / D * kSpan + j, i % D)
                                      : s.at(i / (D / kSpan), i % (D / kSpan) * kSpan + j);
            l.add(x, x);
        }
        s.span[i] = l;
    }
}

/* The scale and min of every group, in shared memory and in the page. */
template <int D>
__device__ void make_pairs(side_shared<D> &s, const cuda_segment &g, int side, uint8_t *bytes)
{
    const int n_groups = side == 0 ? 1 : D / g.group; /* of a token */
    const int per = g.group / kSpan;
    const float levels = (float)((1 << g.bits) - 1);
    for (int i = threadIdx.x; i < kTokens * D / g.group; i += kThreads) {
        limits l = {INFINITY, -INFINITY};
        for (int j = 0; j < per; j++) {
            const limits &of = s.span[side == 0 ? (i / D * per + j) * D + i % D : i * per + j];
            l.add(of.low, of.high);
        }
        const bool empty = l.low > l.high;
        const __half scale =
            __float2half_rn(empty ? 0.0f : __fdiv_rn(__fsub_rn(l.high, l.low), levels));
        __half min = __float2half_rn(empty ? 0.0f : l.low);
        min = __half_as_ushort(min) == kMinusZero ? __ushort_as_half(0) : min;
        s.pair[i] = {__half2float(scale), __half2float(min)};
        const int at = 2 * fragment_affine_pair(side, n_groups, i);
        *(__half *)(bytes + g.norms_at + at) = scale;
        *(__half *)(bytes + g.minima_at + at) = min;
    }
}

__device__ uint32_t code_of(float x, affine_pair p, float top)
{
    if (p.scale == 0.0f) {
        return 0;
    }
    const float steps = __fdiv_rn(__fsub_rn(x, p.min), p.scale);
    const float positive = steps > 0.0f ? steps : 0.0f; /* NaN too */
    const float clamped = positive < top ? positive : top;
    return __float_as_uint(__fadd_rn(clamped, kRoundMagic)) & 255u;
}

template <int B, int D>
__device__ void write_codes(const side_shared<D> &s, const cuda_segment &g, int side,
                            uint8_t *codes)
{
    constexpr float kTop = (float)((1 << B) - 1);
    const int n_columns = side == 0 ? D : kTokens;
    const int n_vectors = n_columns * B / 128; /* of a lane in a band */
    for (int i = threadIdx.x; i < D * B; i += kThreads) {
        const int lane = i % FRAGMENT_LANES;
        const int vector = i / FRAGMENT_LANES % n_vectors;
        const int band = i / FRAGMENT_LANES / n_vectors;
        uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
        for (int k = 0; k < 4 * (32 / B); k++) {
            const int w = 4 * vector + k / (32 / B);
            const int n = k % 4;
            const int part = w % (B / 2) * (8 / B) + k / 4 % (8 / B);
            const fragment_spot at = fragment_affine_at(side, band, part, w / (B / 2), lane, n);
            const int pair =
                side == 0 ? at.token / g.group * D + at.dim : (at.token * D + at.dim) / g.group;
            const uint32_t code = code_of(s.at(at.token, at.dim), s.pair[pair], kTop);
            word[k / (32 / B)] |= __funnelshift_l(code, code, fragment_affine_bit(B, part, n));
        }
        *(uint4 *)(codes + 16 * i) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

template <int D>
__device__ void write_plain(const side_shared<D> &s, int side, uint8_t *values)
{
    for (int i = threadIdx.x; i < kTokens * D; i += kThreads) {
        const int token = i / D;
        const int dim = i % D;
        *(uint16_t *)(values + fragment_plain_at(side, D, token, dim)) =
            (uint16_t)(s.row[token * s.pitch + dim / 2] >> (dim % 2 * 16));
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    pack_affine_kernel(const kern_pack_args a, const cuda_layer layer)
{
    __shared__ side_shared<D> s;
    const int n_sides = 2 * a.n_kv_heads;
    const kern_pack pack = a.packs[blockIdx.x / n_sides];
    const int head_side = blockIdx.x % n_sides;
    const int side = head_side % 2;
    const cuda_head *head = &layer.heads[head_side / 2];
    const cuda_segment g = head->side[side].segments[0];
    const uint32_t *from =
        (const uint32_t *)(a.opens[pack.open].rows + (int64_t)head_side * kTokens * D);
    uint8_t *page = a.pages + pack.page * a.page_stride + head->offset;
    uint8_t *bytes = page + head->side[side].begin;

#pragma unroll 8
    for (int i = threadIdx.x; i < kTokens * D / 2; i += kThreads) {
        s.row[i / (D / 2) * s.pitch + i % (D / 2)] = from[i];
    }
    for (int i = 0; i < head->n_gaps && side == 0; i++) {
        for (int b = head->gaps[i].begin + (int)threadIdx.x * 16; b < head->gaps[i].end;
             b += kThreads * 16) {
            *(uint4 *)(page + b) = make_uint4(0, 0, 0, 0);
        }
    }
    __syncthreads(); /* rows are here */
    if (g.group == 0) {
        write_plain(s, side, bytes + g.codes_at);
        return;
    }
    measure_spans(s, side);
    __syncthreads(); /* spans are measured */
    make_pairs(s, g, side, bytes);
    __syncthreads(); /* pairs are here */
    switch (g.bits) {
    case 2: write_codes<2>(s, g, side, bytes + g.codes_at); break;
    case 4: write_codes<4>(s, g, side, bytes + g.codes_at); break;
    default: write_codes<8>(s, g, side, bytes + g.codes_at); break;
    }
}

} // namespace

base_status pack_affine(void *stream, const kern_cuda_formats *formats, const kern_pack_args *a)
{
    const unsigned n_ctas = (unsigned)a->n_packs * 2u * (unsigned)a->n_kv_heads;
    const auto kernel = formats->head_dim == 64 ? pack_affine_kernel<64> : pack_affine_kernel<128>;
    if (n_ctas == 0) {
        return BASE_OK;
    }
    kernel<<<n_ctas, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(*a, formats->layer);
    return CUDA_LAUNCHED("pack");
}
