/* coordinator/text/pairs.h - a map from two numbers to one, made once and then only read.
 *
 * Holds the merges (left id, right id) and the edges of the trie of added tokens (node, byte).
 * Any number of threads may get at once; adding is for one thread. */
#ifndef COORDINATOR_TEXT_PAIRS_H
#define COORDINATOR_TEXT_PAIRS_H

#include "base/alloc.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define TEXT_PAIRS_NONE UINT64_MAX

typedef struct text_pairs_slot {
    uint64_t key;
    uint64_t value; /* TEXT_PAIRS_NONE marks a free slot */
} text_pairs_slot;

typedef struct text_pairs {
    text_pairs_slot *slots;
    unsigned shift; /* 64 - log2(number of slots) */
    base_alloc mem;
} text_pairs;

/* Room for n_max pairs.  Ended with text_pairs_reset; so may be a zeroed text_pairs whose mem is
 * set.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_pairs_init(text_pairs *pairs, size_t n_max, const base_alloc *mem);
void text_pairs_reset(text_pairs *pairs);
/* A pair that is there gets the new value.  value is not TEXT_PAIRS_NONE. */
void text_pairs_set(text_pairs *pairs, uint32_t a, uint32_t b, uint64_t value);

static inline size_t text_pairs_slot_of(const text_pairs *pairs, uint64_t key)
{
    /* Fibonacci hashing, after folding so that both halves reach the upper bits. */
    return (size_t)(((key ^ key >> 29) * 0x9e3779b97f4a7c15u) >> pairs->shift);
}

/* TEXT_PAIRS_NONE if there is none. */
static inline uint64_t text_pairs_get(const text_pairs *pairs, uint32_t a, uint32_t b)
{
    const uint64_t key = (uint64_t)a << 32 | b;
    const size_t mask = ((size_t)1 << (64 - pairs->shift)) - 1;
    size_t i = text_pairs_slot_of(pairs, key);
    while (pairs->slots[i].value != TEXT_PAIRS_NONE && pairs->slots[i].key != key) {
        i = (i + 1) & mask;
    }
    return pairs->slots[i].value;
}

#endif /* COORDINATOR_TEXT_PAIRS_H */
