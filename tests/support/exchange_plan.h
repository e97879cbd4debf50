/* tests/support/exchange_plan.h - which calls of exchange.h the ranks of a test make, one after the other. */
#ifndef TESTS_SUPPORT_EXCHANGE_PLAN_H
#define TESTS_SUPPORT_EXCHANGE_PLAN_H

#include "kernels/cuda/exchange.h"

#include <stdbool.h>
#include <stdint.h>

#define MAX_RANKS  CUDA_EXCHANGE_MAX_RANKS
#define MAX_ROWS   1300
#define MAX_WORDS  300
#define MAX_CALLS  64
#define MAX_GATHER 20000
#define LINE       CUDA_EXCHANGE_LINE

/* ATTEND: a merge whose partials attention makes, of sequences of one token each. */
typedef enum call_kind { MERGE, MERGE_OWN, ATTEND, ATTEND_OWN, BROADCAST, SUM, GATHER } call_kind;

static inline bool is_own(call_kind kind)
{
    return kind == MERGE_OWN || kind == ATTEND_OWN;
}

static inline bool attends(call_kind kind)
{
    return kind == ATTEND || kind == ATTEND_OWN;
}

typedef struct call {
    call_kind kind;
    int32_t rows;    /* of the partials of a merge */
    int32_t n_words; /* of a broadcast, a sum, or what a rank brings to a gather */
    int32_t root;    /* of a broadcast */
} call;

typedef struct plan {
    int32_t n_ranks, head_dim, n_heads;
    bool formats;
    call calls[MAX_CALLS];
    int32_t n_calls;
    int32_t n_replays;
} plan;

static inline void add_merge(plan *p, call_kind kind, int32_t rows)
{
    p->calls[p->n_calls++] = (call){.kind = kind, .rows = rows};
}

static inline void add_broadcast(plan *p, int32_t n_words, int32_t root)
{
    p->calls[p->n_calls++] = (call){.kind = BROADCAST, .n_words = n_words, .root = root};
}

static inline void add_words(plan *p, call_kind kind, int32_t n_words)
{
    p->calls[p->n_calls++] = (call){.kind = kind, .n_words = n_words};
}

/* Elements of the i-th sum of a plan: a word, parts of a line, few lines and many, up to half the warps of a GPU for all
 * ranks; and more than go in one crossing, where they fit a call's outputs. */
static inline int32_t sum_words(const plan *p, int32_t i)
{
    const int32_t slab = MAX_ROWS * (p->head_dim + 1);
    const int32_t one_shot = 1024 / p->n_ranks * LINE;
    const int32_t two = p->n_ranks > 1 ? (1024 / (p->n_ranks - 1) + 2) * LINE + 5 : one_shot;
    const int32_t sizes[] = {4096, 1, 2048, 130, 8191, two};
    const int32_t n = sizes[i % 6];
    return n > one_shot && (n != two || n > slab) ? one_shot : n > slab ? slab : n;
}

static inline int32_t gather_words(const plan *p, int32_t i)
{
    const int32_t slab = MAX_ROWS * (p->head_dim + 1) / p->n_ranks;
    const int32_t at_once = 1024 / p->n_ranks * LINE;
    const int32_t most = slab < at_once ? slab : at_once;
    static const int32_t sizes[] = {1000, 1, 3 * LINE, 4097, 7, MAX_GATHER};
    return sizes[i % 6] < most ? sizes[i % 6] : most;
}

/* Few and many rows by turns, so that each row has its own count of turns; calls of up to max_tokens tokens. */
static inline plan plan_of(int32_t n_ranks, int32_t head_dim, int32_t n_heads, bool formats,
                           int32_t max_tokens)
{
    static const int32_t tokens[] = {1, 2, 1, 5, 1, 1, 40, 3, 1, 9, 1, 2};
    plan p = {.n_ranks = n_ranks,
              .head_dim = head_dim,
              .n_heads = n_heads,
              .formats = formats,
              .n_replays = 3};
    for (int32_t i = 0; i < 12; i++) {
        const int32_t n = tokens[i] < max_tokens ? tokens[i] : max_tokens;
        const int32_t n_own = tokens[11 - i] < max_tokens ? tokens[11 - i] : max_tokens;
        add_merge(&p, MERGE, n * n_heads);
        add_words(&p, SUM, sum_words(&p, i));
        add_broadcast(&p, i % 4 == 3 ? MAX_WORDS : 1 + i * 9, i % n_ranks);
        add_merge(&p, MERGE_OWN, n_own * n_heads);
        add_words(&p, i % 2 == 0 ? GATHER : SUM,
                  i % 2 == 0 ? gather_words(&p, i / 2) : sum_words(&p, i / 2));
    }
    return p;
}

/* Attention between merges of as many rows, whose turns it shares.  CTAs that wait for a peer keep a core each, and the peer's
 * attention needs one: so many ranks have few rows. */
static inline plan attend_plan_of(int32_t n_ranks, int32_t head_dim, int32_t n_heads, bool formats,
                                  int32_t max_tokens)
{
    plan p = {.n_ranks = n_ranks,
              .head_dim = head_dim,
              .n_heads = n_heads,
              .formats = formats,
              .n_replays = 20};
    for (int32_t i = 0; i < 6; i++) {
        const int32_t rows = (1 + i % max_tokens) * n_heads;
        add_merge(&p, ATTEND, rows);
        add_merge(&p, i % 2 == 0 || n_ranks > 4 ? MERGE : MERGE_OWN, rows);
        add_merge(&p, n_ranks <= 4 ? ATTEND_OWN : ATTEND, rows);
        add_words(&p, SUM, 1000);
        add_merge(&p, ATTEND, rows);
    }
    return p;
}

#endif /* TESTS_SUPPORT_EXCHANGE_PLAN_H */
