/* coordinator/text/bpe.h - merging the symbols of one piece of text into token ids.
 *
 * Of all neighbours that have a merge, the one of the lowest rank is joined first, the leftmost
 * of equals; until none is left.
 * Symbols are what merging starts from: bytes here, characters in characters.h.
 * Time.    O(n log n) in the symbols of the piece; memory 28 bytes a symbol.
 * Threads. A text_bpe is only read after init; each thread has scratch of its own. */
#ifndef COORDINATOR_TEXT_BPE_H
#define COORDINATOR_TEXT_BPE_H

#include "base/view.h"
#include "coordinator/text/pairs.h"

#define TEXT_BPE_MAX_BYTES ((size_t)INT32_MAX) /* of one piece */

typedef struct text_bpe_merge {
    int32_t left;
    int32_t right;
    int32_t joined;
} text_bpe_merge;

typedef struct text_bpe {
    int32_t byte_ids[256];
    text_pairs merges; /* (left, right) -> rank << 32 | joined */
} text_bpe;

typedef struct text_bpe_scratch {
    void *block;
    size_t n_max;     /* symbols that block has room for */
    uint64_t n_steps; /* so far: merges looked up, entries compared or moved */
    base_alloc mem;
} text_bpe_scratch;

/* merges are in order of rank; of one pair that is there twice the later rank counts.  A joined
 * id is neither left nor right of its own merge.
 * Ended with text_bpe_reset.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_bpe_init(text_bpe *bpe, const int32_t byte_ids[256],
                                          const text_bpe_merge *merges, size_t n_merges,
                                          const base_alloc *mem);
void text_bpe_reset(text_bpe *bpe);

void text_bpe_scratch_init(text_bpe_scratch *scratch, const base_alloc *mem);
void text_bpe_scratch_reset(text_bpe_scratch *scratch);

/* Room for the ids of n symbols (1..TEXT_BPE_MAX_BYTES), for text_bpe_merge_ids.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_bpe_reserve(text_bpe_scratch *scratch, size_t n,
                                             int32_t **ids_out);
/* Merges the n ids that stand where text_bpe_reserve said, in place; gives how many are left. */
size_t text_bpe_merge_ids(const text_bpe *bpe, text_bpe_scratch *scratch, size_t n);

/* The ids of piece, a symbol a byte (1..TEXT_BPE_MAX_BYTES bytes).  *ids_out points into scratch and lives until
 * its next use.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_bpe_encode(const text_bpe *bpe, base_view piece,
                                            text_bpe_scratch *scratch, const int32_t **ids_out,
                                            size_t *n_ids_out);

#endif /* COORDINATOR_TEXT_BPE_H */
