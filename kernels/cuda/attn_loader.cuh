/* kernels/cuda/attn_loader.cuh - a warp's own stream of bytes: the items of its share, chunk after chunk, through a
 * ring that the copy engine fills.
 *
 * Of W warps, each takes every W-th item of the share: of a piece first pages, then tiles of 16 rows of opens; what no
 * row of the piece sees is passed over.  A page comes in two chunks, K and V, or, in the dense kernel, as eight
 * blocks of 16 tokens of K and then blocks of 16 dims of V; a tile of an open as its rows of K, then of V. */
#ifndef KERNELS_CUDA_ATTN_LOADER_CUH
#define KERNELS_CUDA_ATTN_LOADER_CUH

#include "kernels/cuda/attn_shared.cuh"

/* Of a warp. */
template <class C>
static __host__ __device__ __forceinline__ int attn_ring_bytes(const attn_job &job)
{
    return (C::slots - 1) * job.slot_bytes[0] + job.slot_bytes[1];
}

struct attn_item {
    int32_t block;
    int32_t first_row; /* of an open; -1: a page */
};

template <class C>
struct attn_loader {
    static constexpr bool pairs = C::slots == 2; /* slot 0 holds K, slot 1 V */
    const attn_job &job;
    uint8_t *ring;     /* this warp's slots */
    uint64_t *barrier; /* its [slots] */
    attn_item *items;  /* its [slots]: what a chunk begins */
    int put_slot = 0;
    int get_slot = 0;
    uint32_t phases = 0; /* a bit each slot */
    int turn = 0;        /* the warp whose item is the next piece's first */
    /* of the piece */
    const uint8_t *base = nullptr; /* K of the head in page 0 */
    int32_t v_from_k = 0;
    int32_t n_bytes[2] = {}; /* of K and V */
    int32_t n_pages = 0;
    int32_t n_items = 0;
    int32_t end_block = 0; /* pages of this one and later no row sees */
    int next = 0;          /* the item after those that the lanes have */
    int n_put = 0;         /* items begun */
    /* each lane's item */
    const uint8_t *from = nullptr;
    attn_item mine = {};
    uint32_t left = 0; /* lanes whose items are seen and have not begun */
    int putter = 32;   /* the lane of the item put last; 32: there is none left */
    int chunk = 0;     /* its next, if there are more than two */

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
        left = 0;
        put_slot = 0;
        get_slot = 0;
        end_block = p.last_query.block - job.a.window_blocks;
        base = job.a.pages + format.offset + format.side[0].begin;
        v_from_k = format.side[1].begin - format.side[0].begin;
        n_bytes[0] = format.side[0].n_bytes;
        n_bytes[1] = format.side[1].n_bytes;
    }

    /* A lane each takes the next items among the first `end`, until a row sees one of them or there is no more. */
    __device__ void look(const attn_piece &p, int end)
    {
        while (left == 0 && next < end) {
            const int i = next + (int)threadIdx.x % 32 * n_warps();
            bool seen = false;
            if (i < min(n_pages, end)) {
                const kern_attn_page page = job.a.page_list[p.head.seq.first_page + p.first + i];
                from = base + page.page * job.a.page_stride;
                mine = {page.block, -1};
                seen = page.block >= job.a.sink_blocks && page.block < end_block;
            } else if (i < end) {
                const int tile = i - n_pages;
                const kern_open *open = job.a.opens + p.head.seq.first_open + tile / 8;
                const int row = tile % 8 * C::chunk_rows;
                mine = {open->block, row};
                from = (const uint8_t *)open->rows +
                       ((int64_t)p.head.head * 2 * KERN_BLOCK_TOKENS + row) * 2 * C::D;
                seen = attn_most_rows_seen(job, p, mine.block) > row;
            }
            left = __ballot_sync(~0u, seen);
            next += __popc(__ballot_sync(~0u, i < end)) * n_warps();
        }
    }

    __device__ void copy(int slot, const uint8_t *source, int bytes)
    {
        ptx_copy(ptx_shared(ring) + (uint32_t)(slot * job.slot_bytes[0]), source, (uint32_t)bytes,
                 ptx_shared(barrier + slot));
    }

    /* Asks for the next chunk of the first `end` items, if there is one, into the slot that is free: CHUNK, if there
     * are two. */
    template <int CHUNK>
    __device__ bool put(const attn_piece &p, int end)
    {
        const bool begins = pairs ? CHUNK == 0 : chunk == 0;
        if (begins) {
            look(p, end);
            putter = left != 0 ? __ffs((int)left) - 1 : 32;
            left &= left - 1;
            n_put += putter != 32 ? 1 : 0;
        }
        if (putter == 32) {
            return false;
        }
        const int slot = pairs ? CHUNK : put_slot;
        const int at = pairs ? CHUNK : chunk;
        int n_chunks = 2;
        if constexpr (!pairs) {
            n_chunks = __shfl_sync(~0u, mine.first_row, putter) < 0 ? 8 + C::blocks : 2;
        }
        if ((int)threadIdx.x % 32 == putter) {
            if (begins) {
                items[slot] = mine;
            }
            const bool is_page = mine.first_row < 0;
            int skip = is_page ? v_from_k : KERN_BLOCK_TOKENS * 2 * C::D; /* from K to V */
            int bytes = is_page ? n_bytes[CHUNK] : C::chunk_bytes;
            if constexpr (C::family == CUDA_DENSE) {
                const int v = at - 8;
                skip = !is_page ? at * skip
                       : v < 0  ? at * C::chunk_bytes
                                : skip + v * (KERN_BLOCK_TOKENS * 32);
                bytes = is_page && v >= 0 ? KERN_BLOCK_TOKENS * 32 : C::chunk_bytes;
            } else {
                skip = CHUNK == 0 ? 0 : skip;
            }
            copy(slot, from + skip, bytes);
        }
        if constexpr (!pairs) {
            chunk = chunk + 1 == n_chunks ? 0 : chunk + 1;
            put_slot = put_slot + 1 == C::slots ? 0 : put_slot + 1;
        }
        return true;
    }

    /* Fills the first n_slots slots of the ring, of which n_full are full, from the first `end` items; returns how many
     * are. */
    __device__ int fill(const attn_piece &p, int end, int n_full, int n_slots)
    {
        if constexpr (pairs) {
            if (n_full == 0 && put<0>(p, end)) {
                n_full = 1;
            }
            if (n_full == 1 && n_slots == 2) {
                (void)put<1>(p, end);
                n_full = 2;
            }
        } else {
            while (n_full < n_slots && put<0>(p, end)) {
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
        ptx_barrier_wait(ptx_shared(barrier + slot), phases >> slot & 1u);
        return ring + slot * job.slot_bytes[0];
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
        phases ^= 1u << (pairs ? CHUNK : get_slot);
        if constexpr (!pairs) {
            get_slot = get_slot + 1 == C::slots ? 0 : get_slot + 1;
        }
    }
};

#endif /* KERNELS_CUDA_ATTN_LOADER_CUH */
