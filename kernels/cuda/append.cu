/* A row of a head of q, or of a side of a KV head, is a warp's, turned and brought into the page basis in registers.  A
 * carried element keeps its place inside the rows, so one thread copies it for every open in the order of the list:
 * whichever rows are the carry of which, the result is the CPU's.
 *
 * Few tokens: one launch, in which one CTA a head and side copies, waits, and writes the tokens, and others turn the
 * queries.  Many: a launch for the copies before.
 *
 * A launch of few tokens is all latency, much of it of code, formats and descriptors that the bytes of other launches
 * have driven out of the caches: so there is one loop for all rows, and a warp knows where its first row goes before the
 * launch ahead has ended (cuda_launch.h). */
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

/* The lane's dims of a row in model order; turned if there are turns [D/2] for it.  Lane 16 apart has the others of the
 * pairs. */
template <int D>
__device__ __forceinline__ void load_turned(const float *row, const float *turns, float x[])
{
    constexpr int E = D / 32;
    const int lane = threadIdx.x % 32;
    cuda_lane_load<E>(row + lane * E, x);
    if (turns == nullptr) {
        return;
    }
    float turn[2 * E];
    cuda_lane_load<E>(turns + lane % 16 * 2 * E, turn);
    cuda_lane_load<E>(turns + lane % 16 * 2 * E + E, turn + E);
#pragma unroll
    for (int e = 0; e < E; e++) {
        const float other = __shfl_xor_sync(CUDA_WARP_ALL, x[e], 16);
        x[e] = cuda_turned(x[e], other, make_float2(turn[2 * e], turn[2 * e + 1]), lane >= 16);
    }
}

/* From the model's order to the page's; `room` [D] is the warp's. */
template <int D>
__device__ __forceinline__ void reorder(const uint16_t *order, float *room, float x[])
{
    constexpr int E = D / 32;
    const int dim = threadIdx.x % 32 * E;
    __syncwarp(); /* the row before has been read */
    cuda_row_store<E>(x, room + dim);
    __syncwarp();
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] = room[order[dim + e]];
    }
}

/* Where token t's row of a head's side goes; NULL: there is no such token, or another rank owns its position. */
template <int D>
__device__ __forceinline__ uint16_t *place_of(const kern_append_args &a, int head_side, int64_t t)
{
    const int dest = t < a.n_tokens ? a.dest[t] : -1;
    if (dest < 0) {
        return nullptr;
    }
    const int row = head_side * KERN_BLOCK_TOKENS + (int)(a.positions[t] % KERN_BLOCK_TOKENS);
    return a.opens[dest].rows + (int64_t)row * D;
}

/* CTAs (column, part): columns are the sides of KV heads, then the heads of q; parts share a column's tokens.  Of few
 * tokens a side's are one CTA's. */
template <int D>
__global__ void __launch_bounds__(kThreads)
    append_rows(const kern_append_args a, const int n_sides, const int group, const bool is_few)
{
    constexpr int E = D / 32;
    __shared__ __align__(16) float room[kWarps][D];
    const int warp = threadIdx.x / 32;
    const int dim = threadIdx.x % 32 * E;
    const int column = blockIdx.x;
    const bool is_q = column >= n_sides;
    const bool is_alone = is_few && !is_q;
    if (is_alone && blockIdx.y > 0) {
        return;
    }
    const bool is_v = !is_q && column % 2 == 1;
    const int head = is_q ? column - n_sides : column / 2;
    const int n_heads = is_q ? a.n_heads : a.n_kv_heads;
    const kern_head_format *format = &a.formats[is_q ? head / group : head];
    const kern_side *side = is_v ? &format->v : &format->k;
    const float *x_all = is_q ? a.q : is_v ? a.v : a.k;
    const float *turns = is_v ? nullptr : a.turns;
    const cuda_rotation<D> r =
        cuda_rotation_of<D>(side, is_q ? cuda_query_signs(side) : side->signs);
    const int step = (is_alone ? 1 : gridDim.y) * kWarps;
    int64_t t = blockIdx.y * kWarps + warp;
    uint16_t *place = is_q ? nullptr : place_of<D>(a, column, t);

    cuda_after_previous();
    if (is_alone) {
        copy_carries<D>(a, column, threadIdx.x, kThreads);
        __syncthreads(); /* a token's row may lie in what another thread carried */
    }
    for (; t < a.n_tokens; t += step) {
        if (is_q || place != nullptr) {
            const int64_t row = (t * n_heads + head) * D;
            float x[E];
            load_turned<D>(x_all + row, turns == nullptr ? nullptr : turns + t * D, x);
            if (r.order != nullptr) {
                reorder<D>(r.order, room[warp], x);
            }
            cuda_rotate<D>(r, false, x);
            if (is_q) {
                cuda_row_store<E>(x, a.q + row + dim);
            } else {
                store_bf16<E>(x, place + dim);
            }
        }
        place = is_q ? nullptr : place_of<D>(a, column, t + step);
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads) append_carries(const kern_append_args a)
{
    cuda_after_previous();
    copy_carries<D>(a, blockIdx.x, blockIdx.y * kThreads + threadIdx.x, gridDim.y * kThreads);
}

template <int D>
void append(cudaStream_t stream, const kern_append_args &a)
{
    constexpr int kCopyCtas = KERN_BLOCK_TOKENS * D / kElems / kThreads;
    const bool is_few = a.n_tokens <= kFewTokens;
    const int per_cta = is_few ? kWarps : kWarps * kTokensPerWarp;
    const int n_ctas = (a.n_tokens + per_cta - 1) / per_cta;
    const int n_sides = a.n_opens == 0 ? 0 : a.n_kv_heads * 2; /* 0: another rank's tokens */
    const int n_heads = a.q == nullptr ? 0 : a.n_heads;
    const int group = n_heads / a.n_kv_heads;
    if (!is_few && n_sides > 0) {
        cuda_launch(append_carries<D>, dim3(n_sides, kCopyCtas), kThreads, stream, a);
    }
    if (n_sides + n_heads > 0) {
        cuda_launch(append_rows<D>, dim3(n_sides + n_heads, n_ctas > 0 ? n_ctas : 1), kThreads,
                    stream, a, n_sides, group, is_few);
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
