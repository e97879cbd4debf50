/* kernels/cuda/attn_decode.cuh - decode attention: one CTA an equal share of all heads' bytes, a warp whole pages.
 *
 * Per piece of the share: the queries become factors; every warp goes through its pages and rows with a softmax of its
 * own; the warps' sums are added, and written as the result or as a part of one. */
#ifndef KERNELS_CUDA_ATTN_DECODE_CUH
#define KERNELS_CUDA_ATTN_DECODE_CUH

#include "kernels/cuda/attn_affine.cuh"
#include "kernels/cuda/attn_coded.cuh"
#include "kernels/cuda/attn_combine.cuh"
#include "kernels/cuda/attn_rows.cuh"
#include "kernels/cuda/attn_table.cuh"
#include "kernels/cuda/cuda_check.h"

/* Where things lie in dynamic shared memory; the staged rows of finish lie where the ring was. */
template <class C>
struct attn_layout {
    int ring;
    int halves;
    int barriers;
    int items;
    int shared;
    int n_bytes;

    __host__ __device__ attn_layout(int n_warps, int slot_bytes, int n_halves)
    {
        const int slots = n_warps * C::slots;
        const int stage = n_warps * C::R * C::pitch * 4;
        ring = 0;
        halves = slots * slot_bytes > stage ? slots * slot_bytes : stage;
        barriers = halves + (n_halves * 4 + 15) / 16 * 16;
        items = barriers + slots * 8;
        shared = (items + slots * (int)sizeof(attn_item) + 15) / 16 * 16;
        n_bytes = shared + (int)sizeof(attn_shared<C>);
    }
};

/* One warp: the part of the head that lies in [begin, end) of the line; returns whether there is one. */
template <class C>
static __device__ bool attn_cut(const attn_job &job, const attn_head &head, uint32_t begin,
                                uint32_t end, attn_piece *piece)
{
    const int first = head.first_item(begin);
    const int last = head.first_item(end);
    const int n_items = (int)head.cost.n_pages + 1;
    if (threadIdx.x % 32 == 0) {
        piece->head = head;
        piece->first = first;
        piece->n_pages = min(last, n_items - 1) - min(first, n_items - 1);
        piece->begins = first == 0;
        piece->ends = last == n_items && first < last;
        piece->is_there = first < last;
        piece->n_open_tiles = piece->ends ? head.seq.n_opens * 8 : 0;
        piece->first_position = attn_row_position<C>(job, *piece, 0);
        piece->last_position = attn_row_position<C>(job, *piece, C::R - 1);
    }
    return first < last;
}

/* Adds the warps' sums and writes them.  The ring is empty, and is written over. */
template <class C>
static __device__ void attn_finish(const attn_job &job, attn_shared<C> &shared, float *stage,
                                   attn_state<C> &state)
{
    const int lane = threadIdx.x % 32;
    const int warp = (int)threadIdx.x / 32;
    const int n_warps = (int)blockDim.x / 32;
    const int g = lane / 4;
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        for (int step = 4; step < 32; step *= 2) {
            state.l[j] += __shfl_xor_sync(~0u, state.l[j], step);
        }
    }
    __syncthreads(); /* no warp reads the ring any more */
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        const int row = lane % 4 * C::NC + j;
        if (g == 0) {
            shared.ml[warp][row] = make_float2(state.m[j], state.l[j]);
        }
#pragma unroll
        for (int d = 0; d < C::blocks; d++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                stage[(warp * C::R + row) * C::pitch + d * 16 + r * 8 + g] = state.o[d][r][j];
            }
        }
    }
    __syncthreads(); /* sums are staged */

    if ((int)threadIdx.x < C::R) {
        const int row = (int)threadIdx.x;
        float m = -INFINITY;
        float l = 0.0f;
        for (int w = 0; w < n_warps; w++) {
            m = fmaxf(m, shared.ml[w][row].x);
        }
        for (int w = 0; w < n_warps; w++) {
            const float2 ml = shared.ml[w][row];
            const float k = ml.x == -INFINITY ? 0.0f : ptx_exp2(ml.x - m);
            l = fmaf(k, ml.y, l);
            shared.ml[w][row].x = k;
        }
        shared.total[row] = make_float2(m, l);
    }
    __syncthreads(); /* weights are here */

    const attn_piece &p = shared.piece;
    const bool whole = p.begins && p.ends;
    const int part = (int)blockIdx.x * ATTN_PARTS + (p.begins ? 1 : 0);
    for (int i = (int)threadIdx.x; i < C::R * C::D; i += (int)blockDim.x) {
        const int row = i / C::D;
        const int dim = i % C::D;
        const float2 ml = shared.total[row];
        float o = 0.0f;
#pragma unroll 8
        for (int w = 0; w < n_warps; w++) {
            o = fmaf(shared.ml[w][row].x, stage[(w * C::R + row) * C::pitch + dim], o);
        }
        if (!whole) {
            job.part_o[((int64_t)part * ATTN_MAX_ROWS + row) * C::D + dim] = o;
            if (dim == 0) {
                job.part_ml[part * ATTN_MAX_ROWS + row] = ml;
            }
            continue;
        }
        const int at = p.head.tile * C::R + row;
        if (at < p.head.seq.n_tokens * job.group) {
            attn_write(job, p.head.seq.first_token + at / job.group,
                       p.head.head * job.group + at % job.group, C::D, dim, o, ml.x, ml.y);
        }
    }
}

template <class C>
static __global__ void __launch_bounds__(C::NC == 2 ? 256 : 384, 1)
    attn_kernel(const __grid_constant__ attn_job job)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = (int)threadIdx.x / 32;
    const attn_layout<C> layout((int)blockDim.x / 32, job.slot_bytes, job.n_halves);
    attn_shared<C> &shared = *(attn_shared<C> *)(memory + layout.shared);
    uint32_t *halves = (uint32_t *)(memory + layout.halves);
    attn_loader<C> loader(job, shared, memory + layout.ring + warp * C::slots * job.slot_bytes,
                          (uint64_t *)(memory + layout.barriers) + warp * C::slots,
                          (attn_item *)(memory + layout.items) + warp * C::slots);
    ptx_wait_for_launch_before();
    ptx_let_next_launch_begin();

    attn_head head; /* of warp 0 */
    uint32_t begin = 0;
    uint32_t end = 0;
    if (warp == 0) {
        const uint32_t total = attn_total<C::D, C::R>(job);
        const attn_shares shares(total, job.n_ctas);
        begin = shares.begin(blockIdx.x);
        end = shares.begin(blockIdx.x + 1);
        if (begin < end) {
            attn_find<C::D, C::R>(job, begin, -1, 0, &head);
        }
    }
    for (;;) {
        if (warp == 0) {
            if (threadIdx.x == 0) {
                shared.piece.is_there = false;
            }
            __syncwarp();
            while (begin < end && head.at < end) {
                const bool is_there = attn_cut<C>(job, head, begin, end, &shared.piece);
                if (head.at + head.length() < end) {
                    attn_next<C::D, C::R>(job, &head);
                } else {
                    end = begin;
                }
                if (is_there) {
                    break;
                }
            }
        }
        __syncthreads(); /* the piece is here, the last one is finished */
        if (!shared.piece.is_there) {
            return;
        }
        loader.begin();
        const float4 query = attn_query_load<C>(job, shared.piece, warp);
        {
            const int4 *from = (const int4 *)&job.layer.heads[shared.piece.head.head];
            for (int i = (int)threadIdx.x; i < (int)(sizeof(cuda_head) / 16);
                 i += (int)blockDim.x) {
                ((int4 *)&shared.format)[i] = from[i];
            }
        }
        ptx_copy_may_write(); /* where rows were staged */
        __syncthreads();      /* the format is here */
        loader.fill();
        attn_query_build<C>(job, &shared, query);
        if constexpr (C::family == CUDA_TABLE) {
            int first = -1;
            for (int s = 0; s < KERN_MAX_SEGMENTS && first < 0; s++) {
                first = s < shared.format.side[0].n_segments
                            ? shared.format.side[0].segments[s].halves
                            : -1;
            }
            for (int s = 0; s < KERN_MAX_SEGMENTS && first < 0; s++) {
                first = s < shared.format.side[1].n_segments
                            ? shared.format.side[1].segments[s].halves
                            : -1;
            }
            for (int i = (int)threadIdx.x; i < job.n_halves && first >= 0; i += (int)blockDim.x) {
                halves[i] = job.layer.halves[first + i];
            }
            halves -= first;
        }
        __syncthreads(); /* the query is here */

        attn_state<C> state;
        state.clear();
        int64_t position[C::NC];
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            position[j] = attn_row_position<C>(job, shared.piece, (int)threadIdx.x % 4 * C::NC + j);
        }
#pragma unroll 1
        for (int got = 0; got < loader.n_put; got++) {
            (void)loader.take();
            const attn_item item = loader.item();
            if (item.first_row >= 0) {
                attn_open_tile<C>(job, shared, loader, state, item, position);
                continue;
            }
            bool sees[C::NC];
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                sees[j] = attn_sees_page(job, position[j], item.block);
            }
            if constexpr (C::family == CUDA_CODED) {
                coded_page<C>(shared, loader, state, sees);
            } else if constexpr (C::family == CUDA_DENSE) {
                attn_dense_page<C>(job, shared, loader, state, sees);
            } else if constexpr (C::family == CUDA_AFFINE) {
                affine_page<C>(job, shared.query, shared.format, loader, state, sees);
            } else {
                table_page<C>(shared, halves, loader, state, sees);
            }
        }
        attn_finish<C>(job, shared, (float *)(memory + layout.ring), state);
        if constexpr (C::family == CUDA_TABLE) {
            halves = (uint32_t *)(memory + layout.halves);
        }
        __syncthreads(); /* everyone is done with the piece */
    }
}

/* Warps a CTA: what fits, and no more than the registers allow. */
template <class C>
static base_status attn_launch(cudaStream_t stream, const attn_job &job, int max_warps)
{
    constexpr int kMaxBytes = 227 * 1024;
    static_assert(sizeof(cuda_head) % 16 == 0, "copied in 16 bytes");
    int n_warps = max_warps;
    while (n_warps > 1 &&
           attn_layout<C>(n_warps, job.slot_bytes, job.n_halves).n_bytes > kMaxBytes) {
        n_warps--;
    }
    const attn_layout<C> layout(n_warps, job.slot_bytes, job.n_halves);
    base_status st = cuda_to_status(
        cudaFuncSetAttribute(attn_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             layout.n_bytes),
        "attn");
    if (st != BASE_OK) {
        return st;
    }
    cudaLaunchAttribute overlap[1];
    overlap[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)job.n_ctas);
    config.blockDim = dim3((unsigned)n_warps * 32);
    config.dynamicSmemBytes = (size_t)layout.n_bytes;
    config.stream = stream;
    config.attrs = overlap;
    config.numAttrs = 1;
    st = cuda_to_status(cudaLaunchKernelEx(&config, attn_kernel<C>, job), "launch of attn");
    if (st != BASE_OK) {
        return st;
    }
    config.gridDim = dim3((unsigned)job.a.n_tokens, (unsigned)job.a.n_heads);
    config.blockDim = dim3(ATTN_COMBINE_THREADS);
    config.dynamicSmemBytes = 0;
    return cuda_to_status(cudaLaunchKernelEx(&config, attn_combine<C>, job),
                          "launch of attn's merge");
}

#endif /* KERNELS_CUDA_ATTN_DECODE_CUH */
