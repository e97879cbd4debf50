/* kernels/cuda/attn_decode.cuh - decode attention: one CTA an equal share of all heads' bytes, a warp whole pages.
 *
 * Per piece of the share: the queries become factors; every warp goes through its pages and rows with a softmax of its
 * own; the warps' sums are added, and written as the result or as a part of one.  What a piece begins with is already
 * on its way while the sums of the piece before are added, or, for the first, while the launch before ends. */
#ifndef KERNELS_CUDA_ATTN_DECODE_CUH
#define KERNELS_CUDA_ATTN_DECODE_CUH

#include "kernels/cuda/attn_affine.cuh"
#include "kernels/cuda/attn_coded_page.cuh"
#include "kernels/cuda/attn_rows.cuh"
#include "kernels/cuda/attn_sum.cuh"
#include "kernels/cuda/attn_table.cuh"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"

/* Where things lie in dynamic shared memory. */
template <class C>
struct attn_layout {
    int ring;
    int halves;
    int barriers;
    int items;
    int shared;
    int n_bytes;

    __host__ __device__ attn_layout(int n_warps, const attn_job &job)
    {
        const int slots = n_warps * C::slots;
        ring = 0;
        halves = n_warps * attn_ring_bytes<C>(job);
        barriers = halves + (job.n_halves * 4 + 15) / 16 * 16;
        items = barriers + slots * 8;
        shared = (items + slots * (int)sizeof(attn_item) + 15) / 16 * 16;
        n_bytes = shared + (int)sizeof(attn_shared<C>);
    }
};

/* The share of this CTA; any warp, all lanes. */
template <class C>
static __device__ attn_line attn_line_find(const attn_job &job, const kern_attn_seq &own)
{
    const attn_survey survey = attn_survey_of<C::D, C::R>(job, own);
    const attn_shares shares(job, survey.total);
    attn_line line = {{}, shares.begin(blockIdx.x), shares.begin(blockIdx.x + 1)};
    if (line.begin < line.end) {
        attn_find<C::D, C::R>(job, survey, line.begin, -1, 0, &line.head);
    }
    return line;
}

/* The part of the head that lies in [begin, end) of the line. */
template <class C>
static __device__ attn_piece attn_cut(const attn_job &job, const attn_head &head, uint32_t begin,
                                      uint32_t end)
{
    const int first = head.first_item(begin);
    const int last = head.first_item(end);
    const int n_items = (int)head.cost.n_pages + 1;
    attn_piece p;
    p.head = head;
    p.first = first;
    p.n_pages = min(last, n_items - 1) - min(first, n_items - 1);
    p.begins = first == 0;
    p.ends = last == n_items && first < last;
    p.is_there = first < last;
    p.n_open_tiles = p.ends ? head.seq.n_opens * 8 : 0;
    p.first_query = attn_row_place<C>(job, p, 0);
    p.last_query = attn_row_place<C>(job, p, C::R - 1);
    return p;
}

/* The next piece of the share. */
template <class C>
static __device__ attn_piece attn_line_cut(const attn_job &job, attn_line *line)
{
    attn_piece p = {};
    while (!p.is_there && line->begin < line->end && line->head.at < line->end) {
        p = attn_cut<C>(job, line->head, line->begin, line->end);
        if (line->head.at + line->head.length() < line->end) {
            attn_next<C::D, C::R>(job, &line->head);
        } else {
            line->end = line->begin;
        }
    }
    return p;
}

/* One warp: a piece, its head's format, which is on its way, and what is left of the share, for all. */
template <class C>
static __device__ void attn_publish(const attn_job &job, attn_shared<C> &shared, int n,
                                    const attn_piece &piece, const attn_line &line)
{
    const int lane = threadIdx.x % 32;
    if (lane == 0) {
        shared.line = line;
        shared.piece[n % 2] = piece;
    }
    if (piece.is_there) {
        const uint8_t *from = (const uint8_t *)&job.layer.heads[piece.head.head];
        for (int i = lane * 16; i < (int)sizeof(cuda_head); i += 32 * 16) {
            ptx_copy_16(ptx_shared(&shared.format[n % 2]) + (uint32_t)i, from + i);
        }
    }
}

/* Where a warp's sums of a piece, [R][pitch], lie: in the last slots of its ring. */
template <class C>
static __device__ __forceinline__ float *attn_sums(const attn_job &job, uint8_t *ring, int warp)
{
    return (float *)(ring + warp * attn_ring_bytes<C>(job) +
                     (C::slots - C::sum_slots) * job.slot_bytes[0]);
}

/* A warp's sums of a piece into shared memory. */
template <class C>
static __device__ void attn_stage(attn_shared<C> &shared, float *sums, attn_state<C> &state)
{
    const int lane = threadIdx.x % 32;
    const int warp = (int)threadIdx.x / 32;
    const int g = lane / 4;
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        const int row = lane % 4 * C::NC + j;
        float l = state.l[j];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            l += __shfl_xor_sync(~0u, l, step);
        }
        if (g == 0) {
            shared.ml[warp][row] = make_float2(state.m[j], l);
        }
        float *to = sums + row * C::pitch + g;
#pragma unroll
        for (int d = 0; d < C::blocks; d++) {
            to[d * 16] = state.o[d][0][j];
            to[d * 16 + 8] = state.o[d][1][j];
        }
    }
}

/* All warps: adds what they staged of a piece, and writes it, as the result or as a part of it. */
template <class C>
static __device__ void attn_finish(const attn_job &job, const attn_shared<C> &shared, uint8_t *ring,
                                   const attn_piece &p)
{
    constexpr int kVectors = C::D / 4;
    const int n_warps = (int)blockDim.x / 32;
    const int part = (int)blockIdx.x * ATTN_PARTS + (p.begins ? 1 : 0);
    for (int i = (int)threadIdx.x; i < C::R * kVectors; i += (int)blockDim.x) {
        const int row = i / kVectors;
        const int vector = i % kVectors;
        attn_sum x[C::max_warps];
#pragma unroll
        for (int w = 0; w < C::max_warps; w++) {
            x[w] = attn_no_sum();
            if (w < n_warps) {
                const float2 ml = shared.ml[w][row];
                const float *sums = attn_sums<C>(job, ring, w) + row * C::pitch;
                x[w] = {((const float4 *)sums)[vector], ml.x, ml.y};
            }
        }
        const attn_sum sum = attn_add(x);
        const int at = p.head.tile * C::R + row;
        if (!p.begins || !p.ends) {
            ((float4 *)job.part_o)[(part * ATTN_MAX_ROWS + row) * kVectors + vector] = sum.o;
            if (vector == 0) {
                job.part_ml[part * ATTN_MAX_ROWS + row] = make_float2(sum.m, sum.l);
            }
        } else if (at < p.head.seq.n_tokens * job.group) {
            const int64_t to = (int64_t)(p.head.seq.first_token + at / job.group) * job.a.n_heads +
                               p.head.head * job.group + at % job.group;
            ((float4 *)job.a.o)[to * kVectors + vector] = attn_mean(sum);
            if (vector == 0) {
                job.a.lse[to] = attn_lse(sum);
            }
        }
    }
}

/* The first table entry of a head among the layer's; -1: it has none. */
static __device__ int attn_first_half(const cuda_head &format)
{
    for (int side = 0; side < 2; side++) {
        for (int s = 0; s < format.side[side].n_segments; s++) {
            if (format.side[side].segments[s].halves >= 0) {
                return format.side[side].segments[s].halves;
            }
        }
    }
    return -1;
}

/* All warps: the tables of the head.  Returns where those of the layer would begin. */
template <class C>
static __device__ const uint32_t *attn_load_halves(const attn_job &job, const cuda_head &format,
                                                   uint32_t *halves)
{
    const int first = attn_first_half(format);
    for (int i = (int)threadIdx.x; i < job.n_halves && first >= 0; i += (int)blockDim.x) {
        const uint32_t x = job.layer.halves[first + i];
        halves[i] = C::family == CUDA_TABLE ? x : wide_entry((int32_t)x);
    }
    return halves - first;
}

template <class C>
static __global__ void __maxnreg__(C::max_registers)
    attn_kernel(const __grid_constant__ attn_job job)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = (int)threadIdx.x / 32;
    const int planner = (int)blockDim.x / 32 - 1; /* a warp */
    const attn_layout<C> layout((int)blockDim.x / 32, job);
    attn_shared<C> &shared = *(attn_shared<C> *)(memory + layout.shared);
    uint8_t *ring = memory + layout.ring;
    uint32_t *halves = (uint32_t *)(memory + layout.halves);
    ptx_let_next_launch_begin();
    const kern_attn_seq own = attn_own_seq(job);
    attn_loader<C> loader(job, ring + warp * attn_ring_bytes<C>(job),
                          (uint64_t *)(memory + layout.barriers) + warp * C::slots,
                          (attn_item *)(memory + layout.items) + warp * C::slots);
    float4 query = {};
    int n_full = 0; /* slots of the ring */
    { /* every warp finds the first piece, so that none waits for another; pages come while the launch before ends */
        attn_line line = attn_line_find<C>(job, own);
        const attn_piece piece = attn_line_cut<C>(job, &line);
        if (warp == planner) {
            attn_publish<C>(job, shared, 0, piece, line);
        }
        if (piece.is_there) {
            loader.begin(piece, job.layer.heads[piece.head.head]);
            n_full = loader.fill(piece, loader.n_pages, n_full, C::slots);
        }
        ptx_wait_for_launch_before();
        if (!piece.is_there) {
            return;
        }
        query = attn_query_load<C>(job, piece, warp);
        n_full = loader.fill(piece, loader.n_items, n_full, C::slots);
    }
    ptx_copies_wait();
    __syncthreads(); /* the piece is here */
    for (int n = 0;; n++) {
        const attn_piece &piece = shared.piece[n % 2];
        const cuda_head &format = shared.format[n % 2];
        attn_query_build<C>(job, piece, format, &shared.query, query);
        const uint32_t *tables = nullptr;
        if constexpr (C::family == CUDA_TABLE || (C::family == CUDA_CODED && C::KB == 0)) {
            tables = attn_load_halves<C>(job, format, halves);
        }
        __syncthreads(); /* the query is here, and the sums of the piece before have been read */
        ptx_copy_may_write();
        (void)loader.fill(piece, loader.n_items, n_full, C::slots);
        if (warp == planner) {
            attn_line line = shared.line;
            const attn_piece after = attn_line_cut<C>(job, &line);
            __syncwarp();
            attn_publish<C>(job, shared, n + 1, after, line);
        }

        attn_state<C> state;
        state.clear();
        attn_place place[C::NC];
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            place[j] = attn_row_place<C>(job, piece, (int)threadIdx.x % 4 * C::NC + j);
        }
#pragma unroll 1
        for (int got = 0; got < loader.n_put; got++) {
            (void)loader.template take<0>();
            const attn_item item = loader.item();
            if (item.first_row >= 0) {
                attn_open_tile<C>(job, shared.query, piece, loader, state, item, place);
                continue;
            }
            bool sees[C::NC];
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                sees[j] = attn_sees_page(job, place[j], item.block);
            }
            if constexpr (C::family == CUDA_CODED) {
                coded_page<C>(shared.query, tables, piece, format, loader, state, sees);
            } else if constexpr (C::family == CUDA_DENSE) {
                attn_dense_page<C>(job, shared.query, piece, loader, state, sees);
            } else if constexpr (C::family == CUDA_AFFINE) {
                affine_page<C>(job, shared.query, piece, format, loader, state, sees);
            } else {
                table_page<C>(shared.query, tables, piece, format, loader, state, sees);
            }
        }
        attn_stage<C>(shared, attn_sums<C>(job, ring, warp), state);
        ptx_copies_wait();
        __syncthreads(); /* the sums are here, and the next piece */
        const attn_piece &after = shared.piece[(n + 1) % 2];
        if (after.is_there) {
            loader.begin(after, shared.format[(n + 1) % 2]);
            query = attn_query_load<C>(job, after, warp);
            n_full = loader.fill(after, loader.n_items, 0, C::slots - C::sum_slots);
        }
        attn_finish<C>(job, shared, ring, piece);
        if (!after.is_there) {
            return;
        }
    }
}

/* Warps a CTA: what fits, and no more than the registers allow. */
template <class C>
static base_status attn_launch(cudaStream_t stream, const attn_job &job)
{
    constexpr int kMaxBytes = 227 * 1024;
    static_assert(sizeof(cuda_head) % 16 == 0, "copied in 16 bytes");
    int n_warps = C::max_warps;
    while (n_warps > 1 && attn_layout<C>(n_warps, job).n_bytes > kMaxBytes) {
        n_warps -= n_warps > 8 ? 4 : 1; /* as many a scheduler */
    }
    const attn_layout<C> layout(n_warps, job);
    base_status st = cuda_to_status(
        cudaFuncSetAttribute(attn_kernel<C>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             layout.n_bytes),
        "attn");
    if (st == BASE_OK) {
        st = cuda_to_status(cuda_wants_shared(attn_kernel<C>), "attn");
    }
    if (st != BASE_OK) {
        return st;
    }
    cudaLaunchAttribute overlap[1] = {};
    overlap[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)job.n_ctas);
    config.blockDim = dim3((unsigned)n_warps * 32);
    config.dynamicSmemBytes = (size_t)layout.n_bytes;
    config.stream = stream;
    config.attrs = overlap;
    config.numAttrs = job.begins_early ? 1 : 0;
    return cuda_to_status(cudaLaunchKernelEx(&config, attn_kernel<C>, job), "launch of attn");
}

#endif /* KERNELS_CUDA_ATTN_DECODE_CUH */
