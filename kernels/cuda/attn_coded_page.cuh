/* kernels/cuda/attn_coded_page.cuh - a page of codes whose levels are int8, or 16 bits in two halves. */
#ifndef KERNELS_CUDA_ATTN_CODED_PAGE_CUH
#define KERNELS_CUDA_ATTN_CODED_PAGE_CUH

#include "kernels/cuda/attn_wide.cuh"

/* levels: the layer's tables, of which those of the head are in shared memory. */
template <class C>
static __device__ __forceinline__ void coded_page(const attn_query<C> &query,
                                                  const uint32_t *levels, const attn_piece &piece,
                                                  const cuda_head &format, attn_loader<C> &loader,
                                                  attn_state<C> &state, const bool (&sees)[C::NC])
{
    const int c = threadIdx.x % 4;
    const cuda_side &keys = format.side[0];
    const cuda_side &values = format.side[1];
    float x[8][2][C::NC] = {};
    float unit[C::NC];
    float factor[C::NC];
    {
        const uint8_t *k = loader.template take<0>();
        const int n_segments = C::KB != 0 ? 1 : keys.n_segments;
#pragma unroll 1
        for (int s = 0; s < n_segments; s++) {
            const cuda_segment &g = keys.segments[s];
            int code_sum[C::NC];
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                code_sum[j] = query.code_sum[s][c * C::NC + j];
            }
            if constexpr (C::KB != 0) {
                coded_keys<C::KB, C>(k, g, C::D, query.codes, code_sum, x);
            } else if (g.halves >= 0) {
                const uint32_t *table = levels + g.halves;
                switch (g.bits) {
                case 5: wide_keys<5, C>(k, g, table, query.codes, x); break;
                case 6: wide_keys<6, C>(k, g, table, query.codes, x); break;
                case 7: wide_keys<7, C>(k, g, table, query.codes, x); break;
                default: wide_keys<8, C>(k, g, table, query.codes, x); break;
                }
            } else if (g.bits == 1) {
                coded_keys<1, C>(k, g, g.n_dims, query.codes, code_sum, x);
            } else if (g.bits == 2) {
                coded_keys<2, C>(k, g, g.n_dims, query.codes, code_sum, x);
            } else if (g.bits == 3) {
                coded_keys<3, C>(k, g, g.n_dims, query.codes, code_sum, x);
            } else {
                coded_keys<4, C>(k, g, g.n_dims, query.codes, code_sum, x);
            }
        }
        loader.template give<0>(piece);
    }
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = query.unit[c * C::NC + j];
    }
    state.template weigh<8>(x, unit, sees, factor);
    {
        const uint8_t *v = loader.template take<1>();
        const int n_segments = C::VB != 0 ? 1 : values.n_segments;
#pragma unroll 1
        for (int s = 0; s < n_segments; s++) {
            const cuda_segment &g = values.segments[s];
            coded_weights<C> weights;
            float weight_unit;
            float f[C::NC];
            weights.make(v + g.norms_at, x, coded_offset(C::VB != 0 ? C::VB : g.bits),
                         &weight_unit);
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                f[j] = sees[j] ? factor[j] * weight_unit * g.scale : 0.0f;
            }
            if constexpr (C::VB != 0) {
                coded_values<C::VB, true, C>(v, g, weights, f, state);
            } else if (g.halves >= 0) {
                const uint32_t *table = levels + g.halves;
                switch (g.bits) {
                case 5: wide_values<5, C>(v, g, table, weights, f, state); break;
                case 6: wide_values<6, C>(v, g, table, weights, f, state); break;
                case 7: wide_values<7, C>(v, g, table, weights, f, state); break;
                default: wide_values<8, C>(v, g, table, weights, f, state); break;
                }
            } else if (g.bits == 1) {
                coded_values<1, false, C>(v, g, weights, f, state);
            } else if (g.bits == 2) {
                coded_values<2, false, C>(v, g, weights, f, state);
            } else if (g.bits == 3) {
                coded_values<3, false, C>(v, g, weights, f, state);
            } else {
                coded_values<4, false, C>(v, g, weights, f, state);
            }
        }
        loader.template give<1>(piece);
    }
}

#endif /* KERNELS_CUDA_ATTN_CODED_PAGE_CUH */
