#include "coordinator/text/bpe.h"

#include <assert.h>
#include <string.h>

/* Up to here a scan for the best pair is quicker than a heap. */
#define SHORT_IDS 40

base_status text_bpe_init(text_bpe *bpe, const int32_t byte_ids[256], const text_bpe_merge *merges,
                          size_t n_merges, const base_alloc *mem)
{
    text_pairs pairs;
    const base_status st = text_pairs_init(&pairs, n_merges, mem);
    if (st != BASE_OK) {
        return st;
    }
    for (size_t i = 0; i < n_merges; i++) {
        text_pairs_set(&pairs, (uint32_t)merges[i].left, (uint32_t)merges[i].right,
                       (uint64_t)i << 32 | (uint32_t)merges[i].joined);
    }
    memcpy(bpe->byte_ids, byte_ids, sizeof bpe->byte_ids);
    bpe->merges = pairs;
    return BASE_OK;
}

void text_bpe_reset(text_bpe *bpe)
{
    text_pairs_reset(&bpe->merges);
}

void text_bpe_scratch_init(text_bpe_scratch *scratch, const base_alloc *mem)
{
    *scratch = (text_bpe_scratch){.mem = *mem};
}

void text_bpe_scratch_reset(text_bpe_scratch *scratch)
{
    scratch->mem.put(scratch->mem.ctx, scratch->block);
    scratch->block = NULL;
    scratch->n_max = 0;
}

/* For n symbols: a heap of 2n entries (a merge takes one and adds two), then ids, next and prev. */
static int32_t *ids_of(const text_bpe_scratch *scratch)
{
    return (int32_t *)((uint64_t *)scratch->block + 2 * scratch->n_max);
}

base_status text_bpe_reserve(text_bpe_scratch *scratch, size_t n, int32_t **ids_out)
{
    assert(n >= 1 && n <= TEXT_BPE_MAX_BYTES);
    if (n > scratch->n_max) {
        size_t n_max = 2 * scratch->n_max;
        if (n_max < n) {
            n_max = n < 256 ? 256 : n;
        }
        const size_t n_bytes = n_max * (2 * sizeof(uint64_t) + 3 * sizeof(int32_t));
        void *block = scratch->mem.get(scratch->mem.ctx, n_bytes);
        if (block == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "merging a run of %zu symbols", n);
        }
        scratch->mem.put(scratch->mem.ctx, scratch->block);
        scratch->block = block;
        scratch->n_max = n_max;
    }
    *ids_out = ids_of(scratch);
    return BASE_OK;
}

static uint64_t find_merge(const text_bpe *bpe, int32_t left, int32_t right)
{
    return text_pairs_get(&bpe->merges, (uint32_t)left, (uint32_t)right);
}

static size_t merge_short(const text_bpe *bpe, int32_t *ids, size_t n, uint64_t *n_steps)
{
    uint64_t joins[SHORT_IDS]; /* joins[i] is the merge of ids[i] and ids[i + 1] */
    for (size_t i = 0; i + 1 < n; i++) {
        joins[i] = find_merge(bpe, ids[i], ids[i + 1]);
    }
    *n_steps += n;
    while (n > 1) {
        size_t best = 0;
        *n_steps += n;
        for (size_t i = 1; i + 1 < n; i++) {
            if (joins[i] < joins[best]) {
                best = i;
            }
        }
        if (joins[best] == TEXT_PAIRS_NONE) {
            break;
        }
        ids[best] = (int32_t)(joins[best] & 0xffffffffu);
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            joins[i - 1] = joins[i];
        }
        if (best > 0) {
            joins[best - 1] = find_merge(bpe, ids[best - 1], ids[best]);
        }
        if (best + 1 < n) {
            joins[best] = find_merge(bpe, ids[best], ids[best + 1]);
        }
    }
    return n;
}

/* A min-heap of rank << 32 | position of the left neighbour. */
typedef struct heap {
    uint64_t *entries;
    size_t n;
    uint64_t n_steps;
} heap;

static void heap_sink(heap *h, size_t i)
{
    const uint64_t moved = h->entries[i];
    for (;;) {
        size_t child = 2 * i + 1;
        h->n_steps++;
        if (child >= h->n) {
            break;
        }
        if (child + 1 < h->n && h->entries[child + 1] < h->entries[child]) {
            child++;
        }
        if (h->entries[child] >= moved) {
            break;
        }
        h->entries[i] = h->entries[child];
        i = child;
    }
    h->entries[i] = moved;
}

static void heap_push(heap *h, uint64_t entry)
{
    size_t i = h->n++;
    while (i > 0 && h->entries[(i - 1) / 2] > entry) {
        h->entries[i] = h->entries[(i - 1) / 2];
        i = (i - 1) / 2;
        h->n_steps++;
    }
    h->entries[i] = entry;
}

static uint64_t heap_pop(heap *h)
{
    const uint64_t top = h->entries[0];
    h->entries[0] = h->entries[--h->n];
    if (h->n > 0) {
        heap_sink(h, 0);
    }
    return top;
}

static uint64_t heap_entry(uint64_t join, size_t pos)
{
    return (join & 0xffffffff00000000u) | pos;
}

static size_t merge_long(const text_bpe *bpe, heap *h, int32_t *ids, int32_t *next, int32_t *prev,
                         size_t n)
{
    const int32_t end = (int32_t)n;
    for (int32_t i = 0; i < end; i++) {
        next[i] = i + 1;
        prev[i] = i - 1;
        const uint64_t join = i + 1 < end ? find_merge(bpe, ids[i], ids[i + 1]) : TEXT_PAIRS_NONE;
        if (join != TEXT_PAIRS_NONE) {
            h->entries[h->n++] = heap_entry(join, (size_t)i);
        }
    }
    h->n_steps += n;
    for (size_t i = h->n / 2; i-- > 0;) {
        heap_sink(h, i);
    }
    while (h->n > 0) {
        const uint64_t entry = heap_pop(h);
        const int32_t at = (int32_t)(entry & 0xffffffffu);
        if (ids[at] < 0 || next[at] == end) {
            continue;
        }
        const int32_t right = next[at];
        uint64_t join = find_merge(bpe, ids[at], ids[right]);
        h->n_steps += 3; /* this one, and the two of a joined id with its neighbours */
        /* Entries are not removed when a neighbour changes; the stale ones end here. */
        if (join == TEXT_PAIRS_NONE || heap_entry(join, (size_t)at) != entry) {
            continue;
        }
        ids[at] = (int32_t)(join & 0xffffffffu);
        ids[right] = -1;
        next[at] = next[right];
        if (next[at] != end) {
            prev[next[at]] = at;
            join = find_merge(bpe, ids[at], ids[next[at]]);
            if (join != TEXT_PAIRS_NONE) {
                heap_push(h, heap_entry(join, (size_t)at));
            }
        }
        if (prev[at] >= 0) {
            join = find_merge(bpe, ids[prev[at]], ids[at]);
            if (join != TEXT_PAIRS_NONE) {
                heap_push(h, heap_entry(join, (size_t)prev[at]));
            }
        }
    }
    size_t n_ids = 0;
    for (int32_t i = 0; i != end; i = next[i]) {
        ids[n_ids++] = ids[i];
    }
    return n_ids;
}

size_t text_bpe_merge_ids(const text_bpe *bpe, text_bpe_scratch *scratch, size_t n)
{
    heap h = {scratch->block, 0, 0};
    int32_t *ids = ids_of(scratch);
    const size_t n_left = n <= SHORT_IDS ? merge_short(bpe, ids, n, &h.n_steps)
                                         : merge_long(bpe, &h, ids, ids + scratch->n_max,
                                                      ids + 2 * scratch->n_max, n);
    scratch->n_steps += h.n_steps;
    return n_left;
}

base_status text_bpe_encode(const text_bpe *bpe, base_view piece, text_bpe_scratch *scratch,
                            const int32_t **ids_out, size_t *n_ids_out)
{
    int32_t *ids = NULL;
    const base_status st = text_bpe_reserve(scratch, piece.n_bytes, &ids);
    if (st != BASE_OK) {
        return st;
    }
    for (size_t i = 0; i < piece.n_bytes; i++) {
        ids[i] = bpe->byte_ids[(unsigned char)piece.data[i]];
    }
    *n_ids_out = text_bpe_merge_ids(bpe, scratch, piece.n_bytes);
    *ids_out = ids;
    return BASE_OK;
}
