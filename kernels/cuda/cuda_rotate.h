/* kernels/cuda/cuda_rotate.h - into and out of a side's page basis (page.h), one row of one head a warp.
 *
 * A row of D dims lies in a warp's registers, E = D / 32 neighbours a lane.  Parts of a segment are powers of two of
 * at least 8 dims at multiples of 8, so groups of 8 never leave a part: butterflies up to 4 apart stay in a lane or
 * its next ones, wider ones swap whole groups between lanes, and every lane knows its partners beforehand.
 * Sums have the CPU's order and nothing is contracted: the same bits as cpu_rotate. */
#ifndef KERNELS_CUDA_CUDA_ROTATE_H
#define KERNELS_CUDA_CUDA_ROTATE_H

#include "kernels/page.h"

#include <stdint.h>

#define CUDA_WARP_ALL 0xffffffffu

/* Element j of row 0 of the circulant of m parts. */
__device__ __forceinline__ float cuda_mixer(int m, int j)
{
    switch (m) {
    case 3: return j == 0 ? 1.0f / 3 : -2.0f / 3;
    case 5: return j == 0 ? 0.6f : -0.4f;
    case 7: return j == 3 || j == 5 || j == 6 ? -0.261203875f : 0.445903002f;
    default: return 1.0f;
    }
}

/* What a lane knows of a side; made once, used for many rows. */
template <int D>
struct cuda_rotation {
    static constexpr int E = D / 32; /* dims a lane */

    const uint16_t *order; /* or NULL */
    bool rotated;
    bool mixed;     /* some segment of the side has m > 1: the same in all lanes */
    int n_parts;    /* m of the lane's segment */
    int part;       /* the lane's part of it */
    int part_lanes; /* lanes of a part */
    int lane_in_part;
    float scale; /* 1 / sqrt(h) */
    float signs[E];
};

/* Those of queries and outputs. */
__device__ __forceinline__ const float *cuda_query_signs(const kern_side *side)
{
    return side->query_signs != nullptr ? side->query_signs : side->signs;
}

/* signs: the side's, or its query_signs. */
template <int D>
__device__ inline cuda_rotation<D> cuda_rotation_of(const kern_side *side, const float *signs)
{
    using R = cuda_rotation<D>;
    const int lane = threadIdx.x % 32;
    const int dim = lane * R::E;
    R r = {};

    r.order = side->order;
    r.rotated = signs != nullptr;
    r.n_parts = 1;
    if (!r.rotated) {
        return r;
    }
    int offset = 0; /* of the lane in its segment */
    int h = 1;      /* dims of a part */
#pragma unroll 1
    for (int s = 0; s < side->n_segments; s++) {
        const int first = side->segments[s].first_dim;
        const int n = side->segments[s].n_dims;
        const int part_dims = n & -n; /* m is odd */
        r.mixed = r.mixed || n > part_dims;
        if (dim >= first && dim < first + n) {
            offset = dim - first;
            h = part_dims;
            r.n_parts = n >> (31 - __clz(h));
        }
    }
    r.part = offset >> (31 - __clz(h));
    r.part_lanes = h / R::E;
    r.lane_in_part = (offset & (h - 1)) / R::E;
    r.scale = 1.0f / sqrtf((float)h);
#pragma unroll
    for (int e = 0; e < R::E; e++) {
        r.signs[e] = signs[dim + e];
    }
    return r;
}

template <int D>
__device__ __forceinline__ void cuda_hadamard(const cuda_rotation<D> &r, float x[])
{
    constexpr int E = cuda_rotation<D>::E;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 1; half < E; half *= 2) {
#pragma unroll
        for (int e = 0; e < E; e++) {
            if ((e & half) == 0) {
                const float a = x[e];
                const float b = x[e + half];
                x[e] = a + b;
                x[e + half] = a - b;
            }
        }
    }
#pragma unroll 1 /* code that a launch brings in costs more than these few turns */
    for (int step = 1; step < 32; step *= 2) { /* lanes apart; parts end the walk one by one */
        const bool inside = step < r.part_lanes;
        const bool upper = (r.lane_in_part & step) != 0;
        const int partner = inside ? (upper ? lane - step : lane + step) : lane;
#pragma unroll
        for (int e = 0; e < E; e++) {
            const float other = __shfl_sync(CUDA_WARP_ALL, x[e], partner);
            const float y = upper ? other - x[e] : x[e] + other;
            x[e] = inside ? y : x[e];
        }
    }
}

/* y = (M (x) I) x over the parts of each segment, or with M's transpose. */
template <int D>
__device__ __forceinline__ void cuda_mix(const cuda_rotation<D> &r, bool inverse, float x[])
{
    constexpr int E = cuda_rotation<D>::E;
    const int lane = threadIdx.x % 32;
    const int first_lane = lane - r.part * r.part_lanes;
    float y[E] = {};
#pragma unroll 1
    for (int j = 0; j < 7; j++) { /* segments of fewer parts idle, but shuffle along */
        const bool inside = j < r.n_parts;
        const int from = inside ? first_lane + j * r.part_lanes : lane;
        const int at = (inverse ? r.part - j : j - r.part) + r.n_parts;
        const float w = cuda_mixer(r.n_parts, inside ? at % r.n_parts : 0);
#pragma unroll
        for (int e = 0; e < E; e++) {
            const float other = __shfl_sync(CUDA_WARP_ALL, x[e], from);
            y[e] = inside ? __fadd_rn(y[e], __fmul_rn(w, other)) : y[e];
        }
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] = r.n_parts > 1 ? y[e] : x[e];
    }
}

/* Rotation alone, in place; all lanes of the warp call it. */
template <int D>
__device__ __forceinline__ void cuda_rotate(const cuda_rotation<D> &r, bool inverse, float x[])
{
    constexpr int E = cuda_rotation<D>::E;
    if (!r.rotated) {
        return;
    }
    if (inverse && r.mixed) {
        cuda_mix<D>(r, true, x);
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] = inverse ? x[e] : __fmul_rn(x[e], r.signs[e]); /* else a sum might take it in */
    }
    cuda_hadamard<D>(r, x);
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] *= inverse ? __fmul_rn(r.scale, r.signs[e]) : r.scale;
    }
    if (!inverse && r.mixed) {
        cuda_mix<D>(r, false, x);
    }
}

/* E floats that lie one after another, as a vector. */
template <int E>
__device__ __forceinline__ void cuda_lane_load(const float *from, float x[])
{
    if constexpr (E == 4) {
        const float4 v = *reinterpret_cast<const float4 *>(from);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
        const float2 v = *reinterpret_cast<const float2 *>(from);
        x[0] = v.x, x[1] = v.y;
    }
}

/* The lane's dims of a row in model order, brought into the order of the page basis. */
template <int D>
__device__ __forceinline__ void cuda_row_load(const cuda_rotation<D> &r, const float *row,
                                              float x[])
{
    constexpr int E = cuda_rotation<D>::E;
    const int dim = threadIdx.x % 32 * E;
    if (r.order == nullptr) {
        cuda_lane_load<E>(row + dim, x);
        return;
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] = row[r.order[dim + e]];
    }
}

/* The lane's E dims to where they lie one after another. */
template <int E>
__device__ __forceinline__ void cuda_row_store(const float x[], float *row)
{
    if constexpr (E == 4) {
        *reinterpret_cast<float4 *>(row) = make_float4(x[0], x[1], x[2], x[3]);
    } else {
        *reinterpret_cast<float2 *>(row) = make_float2(x[0], x[1]);
    }
}

#endif /* KERNELS_CUDA_CUDA_ROTATE_H */
