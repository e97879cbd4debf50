/* tests/support/naive_bpe.h - byte pair merging by its definition, as slow as it is plain. */
#ifndef TESTS_SUPPORT_NAIVE_BPE_H
#define TESTS_SUPPORT_NAIVE_BPE_H

#include "coordinator/text/bpe.h"

/* The last merge of the pair, as text_bpe_init reads a list; n_merges if there is none. */
static inline size_t naive_rank(const text_bpe_merge *merges, size_t n_merges, int32_t left,
                                int32_t right)
{
    for (size_t i = n_merges; i-- > 0;) {
        if (merges[i].left == left && merges[i].right == right) {
            return i;
        }
    }
    return n_merges;
}

/* Merges ids[0..n) in place and gives how many are left. */
static inline size_t naive_merge(const text_bpe_merge *merges, size_t n_merges, int32_t *ids,
                                 size_t n)
{
    for (;;) {
        size_t best = n_merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const size_t rank = naive_rank(merges, n_merges, ids[i], ids[i + 1]);
            if (rank < best) {
                best = rank;
                at = i;
            }
        }
        if (best == n_merges) {
            return n;
        }
        ids[at] = merges[best].joined;
        n--;
        for (size_t i = at + 1; i < n; i++) {
            ids[i] = ids[i + 1];
        }
    }
}

#endif /* TESTS_SUPPORT_NAIVE_BPE_H */
