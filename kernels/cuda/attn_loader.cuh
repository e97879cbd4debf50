/* kernels/cuda/attn_loader.cuh - a warp's own stream of bytes: the items of its share, chunk after chunk, through a
 * ring that the copy engine fills.
 *
 * Of W warps, each takes every W-th item of the share: of a piece first pages, then tiles of 16 rows of opens; what no
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
    static constexpr bool pairs = C::slots == 2; /* slot 0 holds K, slot 1 V */
    const attn_job &job;
    uint8_t *ring;     /* this warp's [slots][slot_bytes] */
    uint64_t *barrier; /* its [slots] */
    attn_item *items;  /* its [slots]: what a chunk begins */
    int put_slot = 0;
    int get_slot = 0;
    uint32_t get_phase = 0;
    int turn = 0; /* the warp whose item is the next piece's first */
    /* of the piece */
    const kern_attn_page *list = nullptr; /* the page ahead */
    const uint8_t *base = nullptr;        /* K of the head in page 0 */
    int32_t v_from_k = 0;
    int32_t n_bytes[2] = {}; /* of K and V */
    int32_t n_pages = 0;
    int32_t n_items = 0;
    int32_t end_block = 0; /* pages of this one and later no row sees */
    kern_attn_page ahead = {};
    int next = 0;
    int n_put = 0; /* items begun */
    /* of the item put last */
    const uint8_t *from = nullptr;
    bool is_page = false;
    int chunk = 0; /* the next, if there are more than two */

    __device__ attn_loader(const attn_job &j, uint8_t *r, uint64_t *b, attn_item *i)
        : job(j), ring(r), barrier(b), items(i)
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

    /* The next piece of the share: all items of the one before have been taken. */
    __device__ void begin(const attn_piece &p, const cuda_head &format)
    {
        next = (int)threadIdx.x / 32 - turn;
        next += next < 0 ? n_warps() : 0;
        turn = (turn + p.n_pages + p.n_open_tiles) % n_warps();
        n_pages = p.n_pages;
        n_items = p.n_pages + p.n_open_tiles;
        n_put = 0;
        list = job.a.page_list + p.head.seq.first_page + p.first + next;
        if (next < n_pages) {
            ahead = *list;
        }
        end_block = p.last_query.block - job.a.window_blocks;
        base = job.a.pages + format.offset + format.side[0].begin;
        v_from_k = format.side[1].begin - format.side[0].begin;
        n_bytes[0] = format.side[0].n_bytes;
        n_bytes[1] = format.side[1].n_bytes;
    }

    /* Steps to the next item that a row sees, among the first `end`. */
    __device__ bool find(const attn_piece &p, int end, attn_item *item)
    {
        while (next < end) {
            const int i = next;
            next += n_warps();
            if (i < n_pages) {
                const kern_attn_page page = ahead;
                if (next < n_pages) {
                    list += n_warps();
                    ahead = *list;
                }
                if (page.block >= job.a.sink_blocks && page.block < end_block) {
                    from = base + page.page * job.a.page_stride;
                    is_page = true;
                    *item = {page.block, -1};
                    return true;
                }
            } else {
                const int tile = i - n_pages;
                const kern_open *open = job.a.opens + p.head.seq.first_open + tile / 8;
                const int row = tile % 8 * C::chunk_rows;
                const int32_t block = open->block;
                if (attn_most_rows_seen(job, p, block) > row) {
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

    __device__ void copy(int slot, const uint8_t *source, int bytes)
    {
        ptx_copy(ptx_shared(ring) + (uint32_t)(slot * job.slot_bytes), source, (uint32_t)bytes,
                 ptx_shared(barrier + slot));
    }

    /* Asks for the next chunk of the first `end` items, if there is one, into the slot that is free: CHUNK, if there
     * are two. */
    template <int CHUNK>
    __device__ bool put(const attn_piece &p, int end)
    {
        attn_item item = {};
        const bool begins = pairs ? CHUNK == 0 : chunk == 0;
        if (begins && !find(p, end, &item)) {
            from = nullptr;
            return false;
        }
        if (from == nullptr) {
            return false;
        }
        n_put += begins ? 1 : 0;
        const int slot = pairs ? CHUNK : put_slot;
        if (threadIdx.x % 32 == 0) {
            if (begins) {
                items[slot] = item;
            }
            const int at = pairs ? CHUNK : chunk;
            if (!is_page) {
                copy(slot, from + at * (KERN_BLOCK_TOKENS * 2 * C::D), C::chunk_bytes);
            } else if constexpr (C::family == CUDA_DENSE) {
                const int v = at - 8;
                copy(slot,
                     from + (v < 0 ? at * C::chunk_bytes : v_from_k + v * (KERN_BLOCK_TOKENS * 32)),
                     v < 0 ? C::chunk_bytes : KERN_BLOCK_TOKENS * 32);
            } else {
                copy(slot, from + (CHUNK == 0 ? 0 : v_from_k), n_bytes[CHUNK]);
            }
        }
        if constexpr (!pairs) {
            const int n_chunks = is_page ? 8 + C::blocks : 2;
            chunk = chunk + 1 == n_chunks ? 0 : chunk + 1;
            put_slot = put_slot + 1 == C::slots ? 0 : put_slot + 1;
        }
        return true;
    }

    /* Fills the ring, of which `n_full` slots are full, from the first `end` items; returns how many are. */
    __device__ int fill(const attn_piece &p, int end, int n_full)
    {
        if constexpr (pairs) {
            if (n_full == 0 && put<0>(p, end)) {
                (void)put<1>(p, end);
                n_full = 2;
            }
        } else {
            while (n_full < C::slots && put<0>(p, end)) {
                n_full++;
            }
        }
        return n_full;
    }

    /* The next chunk, when it has come. */
    template <int CHUNK>
    __device__ const uint8_t *take()
    {
        const int slot = pairs ? CHUNK : get_slot;
        ptx_barrier_wait(ptx_shared(barrier + slot), get_phase);
        return ring + slot * job.slot_bytes;
    }

    __device__ attn_item item() const
    {
        return items[pairs ? 0 : get_slot];
    }

    /* The chunk has been read by all lanes: its slot is free. */
    template <int CHUNK>
    __device__ void give(const attn_piece &p)
    {
        __syncwarp();
        (void)put<CHUNK>(p, n_items);
        if constexpr (pairs) {
            get_phase ^= (uint32_t)CHUNK;
        } else if (++get_slot == C::slots) {
            get_slot = 0;
            get_phase ^= 1u;
        }
    }
};

#endif /* KERNELS_CUDA_ATTN_LOADER_CUH */
