/* The page writer of codebooks and bf16.  One CTA a side of a head page, one thread a row while codes are made, one warp
 * a tile while they are put into fragment order. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/pack_affine.h"
#include "kernels/cuda/pack_encode.cuh"

namespace {

constexpr int kWarps = PACK_ROWS / 32;
constexpr int kCtas = 6; /* of an SM, as its shared memory holds: their phases overlap */
constexpr int kPlain = 16;
constexpr unsigned kAhead = 3; /* times the SMs; with 6, rows leave L2 before they are read */

template <int B, int kPairs>
__device__ __forceinline__ void write_tile(const pack_pair *pair, uint8_t *tile)
{
    uint32_t word[kPairs * B / 4];
    pack_words<B, pack_step<B>, kPairs>(pair, word);
    pack_words_store<kPairs * B / 4>(word, tile);
}

template <int B, int D>
__device__ void write_codes(pack_rows<D> &rows, const cuda_segment &g, int side, uint8_t *codes)
{
    const int n_tiles = fragment_n_tiles(side, g.n_dims);
    for (int i = threadIdx.x / 32; i < n_tiles; i += kWarps) {
        const fragment_tile t = fragment_tile_at(side, g.n_dims, B, i);
        pack_pair pair[8];
        if (side == 1) {
            pack_pairs_of_v<D>(rows, t, g.first_dim, pair);
            write_tile<B, 8>(pair, codes + t.offset);
        } else if (t.n_pairs == 8) {
            pack_pairs_of_k<D, 8>(rows, t, g.first_dim, pair);
            write_tile<B, 8>(pair, codes + t.offset);
        } else {
            pack_pairs_of_k<D, 4>(rows, t, g.first_dim, pair);
            write_tile<B, 4>(pair, codes + t.offset);
        }
    }
}

template <int B, int D>
__device__ void write_segment(pack_rows<D> &rows, const pack_book &k, bool is_common,
                              const cuda_segment &g, int side, uint8_t *bytes)
{
    const int token = threadIdx.x;
    const uint16_t norm = pack_encode<B>(k, is_common, g.n_dims, rows.at(token, g.first_dim));
    *(uint16_t *)(bytes + g.norms_at + 2 * fragment_norm_at(token)) = norm;
    __syncthreads(); /* codes are whole */
    write_codes<B>(rows, g, side, bytes + g.codes_at);
}

template <int D>
__global__ void __launch_bounds__(PACK_ROWS, kCtas)
    pack_kernel(const kern_pack_args a, const cuda_layer layer, const unsigned ahead)
{
    __shared__ __align__(16) pack_rows<D> rows;
    __shared__ pack_book k;
    const int n_sides = 2 * a.n_kv_heads;
    const kern_pack pack = a.packs[blockIdx.x / n_sides];
    const int head_side = blockIdx.x % n_sides;
    const int side = head_side % 2;
    const cuda_head *head = &layer.heads[head_side / 2];
    uint8_t *page = a.pages + pack.page * a.page_stride + head->offset;

    pack_rows_load<D, PACK_ROWS>(rows,
                                 a.opens[pack.open].rows + (int64_t)head_side * PACK_ROWS * D);
    pack_rows_ahead<D>(a, ahead);
    pack_gaps<PACK_ROWS>(head, side, page);
    const cuda_side *s = &head->side[side];
    uint8_t *bytes = page + s->begin;
    for (int i = 0; i < s->n_segments; i++) {
        const cuda_segment g = s->segments[i];
        bool is_common = true;
        if (g.bits != kPlain) {
            is_common = pack_book_load(k, layer.floats + g.book, g.bits);
        }
        ptx_copies_wait();                        /* the first book came while rows did */
        is_common = __syncthreads_and(is_common); /* rows and book are here */
        switch (g.bits) {
        case 1: write_segment<1>(rows, k, is_common, g, side, bytes); break;
        case 2: write_segment<2>(rows, k, is_common, g, side, bytes); break;
        case 3: write_segment<3>(rows, k, is_common, g, side, bytes); break;
        case 4: write_segment<4>(rows, k, is_common, g, side, bytes); break;
        case 5: write_segment<5>(rows, k, is_common, g, side, bytes); break;
        case 6: write_segment<6>(rows, k, is_common, g, side, bytes); break;
        case 7: write_segment<7>(rows, k, is_common, g, side, bytes); break;
        case 8: write_segment<8>(rows, k, is_common, g, side, bytes); break;
        default:
            pack_plain<D, kWarps>(rows, g.first_dim, g.n_dims, side, bytes + g.codes_at);
            break;
        }
    }
}

pack_writer pack_coded_writer(int head_dim)
{
    return {head_dim == 64 ? pack_kernel<64> : pack_kernel<128>, PACK_ROWS};
}

} // namespace

extern "C" base_status kern_cuda_pack(void *stream, const kern_cuda_formats *formats,
                                      const kern_pack_args *a)
{
    const unsigned n_ctas = (unsigned)a->n_packs * 2u * (unsigned)a->n_kv_heads;
    const pack_writer w = formats->family == CUDA_AFFINE ? pack_affine_writer(formats->head_dim)
                                                         : pack_coded_writer(formats->head_dim);
    if (n_ctas == 0) {
        return BASE_OK;
    }
    const base_status st = cuda_to_status(cuda_wants_shared(w.kernel), "pack");
    if (st != BASE_OK) {
        return st;
    }
    /* bf16: nothing is computed, so DRAM does not wait; no CTA is so far ahead. */
    const unsigned ahead =
        formats->family == CUDA_DENSE ? n_ctas : kAhead * (unsigned)formats->n_sms;
    w.kernel<<<n_ctas, w.n_threads, 0, static_cast<cudaStream_t>(stream)>>>(*a, formats->layer,
                                                                            ahead);
    return CUDA_LAUNCHED("pack");
}
