/* One warp a row of one head and side.  A carried element keeps its place inside the rows, so one thread copies it for
 * every open in the order of the list: whichever rows are the carry of which, the result is the CPU's.
 *
 * Few tokens: one launch, in which one CTA a head and side copies, waits, and writes the tokens, and others turn the
 * queries.  Many: a launch each. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_rotate.h"
#include "kernels/cuda/cuda_turn.h"

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kFewTokens = 64;
constexpr int kTokensPerWarp = 4;
constexpr int kElems = 8; /* of a 16-byte access */

/* Threads `thread` of n_threads share the elements of one head and side. */
template <int D>
__device__ void copy_carries(const kern_append_args &a, int head_side, int thread, int n_threads)
{
    constexpr int kSide = KERN_BLOCK_TOKENS * D;
    for (int o = 0; o < a.n_opens; o++) {
        const kern_open open = a.opens[o];
        if (open.carry == nullptr) {
            continue;
        }
        for (int i = thread * kElems; i < open.n_carry * D; i += n_threads * kElems) {
            const int64_t at = (int64_t)head_side * kSide + i;
            *reinterpret_cast<uint4 *>(open.rows + at) =
                *reinterpret_cast<const uint4 *>(open.carry + at);
        }
    }
}

template <int E>
__device__ void store_bf16(const float *x, uint16_t *out)
{
    uint32_t packed[E / 2];
#pragma unroll
    for (int e = 0; e < E; e += 2) {
        packed[e / 2] = cuda_bf16_bits(x[e]) | (uint32_t)cuda_bf16_bits(x[e + 1]) << 16;
    }
    if constexpr (E == 4) {
        *reinterpret_cast<uint2 *>(out) = make_uint2(packed[0], packed[1]);
    } else {
        *reinterpret_cast<uint32_t *>(out) = packed[0];
    }
}

template <int D>
__device__ cuda_rotation<D> rotation_at(const kern_append_args &a, int head_side)
{
    const kern_head_format *format = &a.formats[head_side / 2];
    const kern_side *side = head_side % 2 == 0 ? &format->k : &format->v;
    return cuda_rotation_of<D>(side, side->signs);
}

/* The lane's dims of a row, turned if there are turns [D/2] for it, in the order of the page basis. */
template <int D>
__device__ void load_row(const cuda_rotation<D> &r, const float *row, const float *turns, float x[])
{
    constexpr int E = cuda_rotation<D>::E;
    const int dim = threadIdx.x % 32 * E;
    cuda_row_load<D>(r, row, x);
    if (turns == nullptr) {
        return;
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        const int d = r.order == nullptr ? dim + e : r.order[dim + e];
        const bool second = d >= D / 2;
        const float other = row[second ? d - D / 2 : d + D / 2];
        const float2 turn = reinterpret_cast<const float2 *>(turns)[d % (D / 2)];
        x[e] = cuda_turned(x[e], other, turn, second);
    }
}

template <int D>
__device__ const float *turns_of(const kern_append_args &a, int64_t token)
{
    return a.turns == nullptr ? nullptr : a.turns + token * D;
}

/* Warp `warp` of n_warps writes its tokens' rows of one head and side. */
template <int D>
__device__ void append_tokens(const kern_append_args &a, const cuda_rotation<D> &r, int head_side,
                              int warp, int n_warps)
{
    constexpr int E = cuda_rotation<D>::E;
    const bool is_k = head_side % 2 == 0;
    const float *from = is_k ? a.k : a.v;

    for (int64_t t = warp; t < a.n_tokens; t += n_warps) {
        const int dest = a.dest[t];
        if (dest < 0) {
            continue;
        }
        float x[E];
        load_row<D>(r, from + (t * a.n_kv_heads + head_side / 2) * D,
                    is_k ? turns_of<D>(a, t) : nullptr, x);
        cuda_rotate<D>(r, false, x);
        const int64_t row =
            (int64_t)head_side * KERN_BLOCK_TOKENS + a.positions[t] % KERN_BLOCK_TOKENS;
        store_bf16<E>(x, a.opens[dest].rows + row * D + threadIdx.x % 32 * E);
    }
}

/* A warp a row of q, `first` rows on. */
template <int D>
__device__ void turn_queries(const kern_append_args &a, int64_t first)
{
    constexpr int E = cuda_rotation<D>::E;
    const int64_t row = first + threadIdx.x / 32;
    const int head = (int)(row % a.n_heads);
    const bool is_there = row < (int64_t)a.n_tokens * a.n_heads;
    const kern_side *side = &a.formats[head / (a.n_heads / a.n_kv_heads)].k;
    const cuda_rotation<D> r = cuda_rotation_of<D>(side, cuda_query_signs(side));
    cuda_after_previous();
    if (!is_there) {
        return;
    }
    float x[E];
    float *q = a.q + row * D;
    load_row<D>(r, q, turns_of<D>(a, row / a.n_heads), x);
    cuda_rotate<D>(r, false, x);
    __syncwarp(); /* the whole row is read before any of it is written */
    cuda_row_store<E>(x, q + threadIdx.x % 32 * E);
}

template <int D>
__global__ void __launch_bounds__(kThreads) append_few(const kern_append_args a, const int n_sides)
{
    const int block = (int)blockIdx.x - n_sides;
    if (block >= 0) {
        turn_queries<D>(a, (int64_t)block * kWarps);
        return;
    }
    const cuda_rotation<D> r = rotation_at<D>(a, blockIdx.x);
    cuda_after_previous();
    copy_carries<D>(a, blockIdx.x, threadIdx.x, kThreads);
    __syncthreads(); /* a token's row may lie in what another thread carried */
    append_tokens<D>(a, r, blockIdx.x, threadIdx.x / 32, kWarps);
}

template <int D>
__global__ void __launch_bounds__(kThreads) append_carries(const kern_append_args a)
{
    cuda_after_previous();
    copy_carries<D>(a, blockIdx.x, blockIdx.y * kThreads + threadIdx.x, gridDim.y * kThreads);
}

template <int D>
__global__ void __launch_bounds__(kThreads) append_many(const kern_append_args a)
{
    const cuda_rotation<D> r = rotation_at<D>(a, blockIdx.x);
    cuda_after_previous();
    append_tokens<D>(a, r, blockIdx.x, blockIdx.y * kWarps + threadIdx.x / 32, gridDim.y * kWarps);
}

/* Of many tokens: grids are high enough that no warp has more than a few. */
template <int D>
__global__ void __launch_bounds__(kThreads) append_queries(const kern_append_args a)
{
    turn_queries<D>(a, (int64_t)blockIdx.x * kWarps);
}

template <int D>
void append(cudaStream_t stream, const kern_append_args &a)
{
    const int64_t n_rows = a.q == nullptr ? 0 : (int64_t)a.n_tokens * a.n_heads;
    const unsigned n_query_ctas = static_cast<unsigned>((n_rows + kWarps - 1) / kWarps);
    const unsigned n_sides = a.n_opens == 0 ? 0 : a.n_kv_heads * 2; /* 0: another rank's tokens */
    if (a.n_tokens <= kFewTokens) {
        if (n_sides + n_query_ctas > 0) {
            cuda_launch(append_few<D>, dim3(n_sides + n_query_ctas), kThreads, stream, a, n_sides);
        }
        return;
    }
    constexpr int kPerCta = kWarps * kTokensPerWarp;
    constexpr int kCopyCtas = KERN_BLOCK_TOKENS * D / kElems / kThreads;
    const int n_ctas = (a.n_tokens + kPerCta - 1) / kPerCta;
    if (n_sides > 0) {
        cuda_launch(append_carries<D>, dim3(n_sides, kCopyCtas), kThreads, stream, a);
        cuda_launch(append_many<D>, dim3(n_sides, n_ctas < 65535 ? n_ctas : 65535), kThreads,
                    stream, a);
    }
    if (n_query_ctas > 0) {
        cuda_launch(append_queries<D>, dim3(n_query_ctas), kThreads, stream, a);
    }
}

} // namespace

extern "C" base_status kern_cuda_append(void *stream, const kern_append_args *a)
{
    if (a->head_dim == 64) {
        append<64>(static_cast<cudaStream_t>(stream), *a);
    } else {
        append<128>(static_cast<cudaStream_t>(stream), *a);
    }
    return CUDA_LAUNCHED("append");
}
