/* kernels/cuda/attn_loader.cuh - a warp's own stream of bytes: the items of its share, chunk after chunk, through a
 * ring that the copy engine fills.
 *
 * Of W warps, warp w takes items w, w + W, ... of the piece: first pages, then tiles of 16 rows of opens; what no
 * row of the piece sees is passed over.  A page comes in two chunks, K and V, or, in the dense kernel, as eight
 * blocks of 16 tokens of K and then blocks of 16 dims of V; a tile of an open as its rows of K, then of V. */
#ifndef KERNELS_CUDA_ATTN_LOADER_CUH
#define KERNELS_CUDA_ATTN_LOADER_CUH

#include "kernels/cuda/attn_shared.cuh"

struct attn_item {
    int32_t block;
    int32_t first_row; /* of an open; -1: a page */
};

template <class C>
struct attn_loader {
    const attn_job &job;
    const attn_shared<C> &shared;
    uint8_t *ring;     /* this warp's [slots][slot_bytes] */
    uint64_t *barrier; /* its [slots] */
    attn_item *items;  /* its [slots]: what a chunk begins */
    int put_slot = 0;
    int get_slot = 0;
    uint32_t get_phase = 0;
    /* of the piece */
    int next = 0;
    int chunk = 0;
    int n_put = 0; /* items begun */
    const uint8_t *from = nullptr;
    bool is_page = false;
    kern_attn_page ahead = {};

    __device__ attn_loader(const attn_job &j, const attn_shared<C> &s, uint8_t *r, uint64_t *b,
                           attn_item *i)
        : job(j), shared(s), ring(r), barrier(b), items(i)
    {
        if (threadIdx.x % 32 == 0) {
            for (int k = 0; k < C::slots; k++) {
                ptx_barrier_init(ptx_shared(barrier + k));
            }
            ptx_barriers_made();
        }
        __syncwarp();
    }

    static __device__ int n_warps()
    {
        return (int)blockDim.x / 32;
    }

    __device__ const kern_attn_page *pages() const
    {
        const attn_piece &p = shared.piece;
        return job.a.page_list + p.head.seq.first_page + p.first;
    }

    /* The piece is in shared memory; the ring is empty. */
    __device__ void begin()
    {
        next = (int)threadIdx.x / 32;
        chunk = 0;
        n_put = 0;
        if (next < shared.piece.n_pages) {
            ahead = pages()[next];
        }
    }

    __device__ int most_rows_seen(int32_t block) const
    {
        const attn_piece &p = shared.piece;
        int most = 0;
        for (int64_t at = p.first_position; at <= p.last_position; at++) {
            most = max(most, attn_rows_seen(job, at, block));
        }
        return most;
    }

    /* Steps to the next item that a row sees. */
    __device__ bool find(attn_item *item)
    {
        const attn_piece &p = shared.piece;
        while (next < p.n_pages + p.n_open_tiles) {
            const int i = next;
            next += n_warps();
            if (i < p.n_pages) {
                const kern_attn_page page = ahead;
                if (next < p.n_pages) {
                    ahead = pages()[next];
                }
                if (attn_sees_page(job, p.last_position, page.block)) {
                    from = job.a.pages + page.page * job.a.page_stride + shared.format.offset;
                    is_page = true;
                    *item = {page.block, -1};
                    return true;
                }
            } else {
                const int tile = i - p.n_pages;
                const kern_open *open = job.a.opens + p.head.seq.first_open + tile / 8;
                const int row = tile % 8 * C::chunk_rows;
                const int32_t block = open->block;
                if (most_rows_seen(block) > row) {
                    from = (const uint8_t *)open->rows +
                           ((int64_t)p.head.head * 2 * KERN_BLOCK_TOKENS + row) * 2 * C::D;
                    is_page = false;
                    *item = {block, row};
                    return true;
                }
            }
        }
        return false;
    }

    /* Asks for the next chunk, if there is one, into the slot that is free. */
    __device__ void put()
    {
        attn_item item = {};
        if (chunk == 0) {
            if (!find(&item)) {
                return;
            }
            n_put++;
        }
        const uint8_t *source;
        int n_bytes;
        int n_chunks = 2;
        if (!is_page) {
            source = from + chunk * (KERN_BLOCK_TOKENS * 2 * C::D);
            n_bytes = C::chunk_bytes;
        } else if constexpr (C::family == CUDA_DENSE) {
            const int v = chunk - 8;
            source = from + (v < 0 ? shared.format.side[0].begin + chunk * C::chunk_bytes
                                   : shared.format.side[1].begin + v * (KERN_BLOCK_TOKENS * 32));
            n_bytes = v < 0 ? C::chunk_bytes : KERN_BLOCK_TOKENS * 32;
            n_chunks = 8 + C::blocks;
        } else {
            source = from + shared.format.side[chunk].begin;
            n_bytes = shared.format.side[chunk].n_bytes;
        }
        if (threadIdx.x % 32 == 0) {
            if (chunk == 0) {
                items[put_slot] = item;
            }
            ptx_copy(ptx_shared(ring) + (uint32_t)(put_slot * job.slot_bytes), source,
                     (uint32_t)n_bytes, ptx_shared(barrier + put_slot));
        }
        chunk = chunk + 1 == n_chunks ? 0 : chunk + 1;
        put_slot = put_slot + 1 == C::slots ? 0 : put_slot + 1;
    }

    __device__ void fill()
    {
        for (int k = 0; k < C::slots; k++) {
            put();
        }
    }

    /* The next chunk, when it has come. */
    __device__ const uint8_t *take()
    {
        ptx_barrier_wait(ptx_shared(barrier + get_slot), get_phase);
        return ring + get_slot * job.slot_bytes;
    }

    __device__ attn_item item() const
    {
        return items[get_slot];
    }

    /* The chunk has been read by all lanes: its slot is free. */
    __device__ void give()
    {
        __syncwarp();
        put();
        if (++get_slot == C::slots) {
            get_slot = 0;
            get_phase ^= 1u;
        }
    }
};

#endif /* KERNELS_CUDA_ATTN_LOADER_CUH */
