/* worker/engine/ledger.h - rank 0's book of what runs: slots, page ids of every rank, owners.
 *
 * A sequence is admitted with all pages that its prompt and max_new_tokens can ever need, so nothing that
 * runs is evicted, truncated or left waiting for memory.  Until its end they are its own.
 * Pure bookkeeping: no bytes of the cache, no communication.
 * Threads.  One owner: the step loop of rank 0.  Allocates in ledger_admit only. */
#ifndef WORKER_ENGINE_LEDGER_H
#define WORKER_ENGINE_LEDGER_H

#include "base/alloc.h"
#include "base/status.h"
#include "kvshard/owner.h"
#include "proto/group_codec.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ledger ledger;

typedef struct ledger_limits {
    int32_t n_ranks;
    int32_t n_slots;
    int32_t n_pages; /* of each rank */
    int32_t n_vocab;
    int64_t max_context;
} ledger_limits;

/* A running sequence.  The engine moves position, n_left, credit and what is under way; the rest stays as
 * admitted. */
typedef struct ledger_seq {
    uint64_t seq;
    int32_t slot;
    int32_t n_blocks; /* reserved */
    kv_run run;       /* owners of all its blocks */
    int32_t *pages;   /* [n_blocks] in the owner's pool */
    int32_t *prompt;  /* [n_prompt], tokens of a replay included */
    int64_t n_prompt;
    int64_t position; /* tokens that are in the cache */
    int32_t n_left;   /* tokens it may still generate */
    int64_t credit;   /* tokens that may be sent */
    int64_t n_ahead;  /* tokens that the steps under way bring to the cache */
    int32_t n_making; /* and tokens that they make */
    inference_sampling sampling;
    int32_t logprobs;
    int32_t n_stop_ids;
    int32_t n_eos_ids;
    int32_t stop_ids[INFERENCE_MAX_STOP_IDS];
    int32_t eos_ids[GROUP_MAX_EOS_IDS];
} ledger_seq;

/* Errors: BAD_INPUT (limits), NO_MEMORY. */
BASE_MUST_CHECK base_status ledger_create(const ledger_limits *limits, const base_alloc *mem,
                                          ledger **ledger_out);
void ledger_destroy(ledger *l); /* NULL is allowed; ends what runs */

/* Admits a sequence at the proposed rank if every rank has room that way, else where kv_owner_place says.
 * Errors, with nothing changed:
 *   EXHAUSTED (bare)  no slot or not enough pages now; with an empty ledger it would fit
 *   OUT_OF_RANGE      it can never run here: context, pages of all ranks (naming the limit)
 *   BAD_INPUT         an id outside the vocabulary, a sequence that runs already, broken counts
 *   NO_MEMORY */
BASE_MUST_CHECK base_status ledger_admit(ledger *l, uint64_t seq, const group_admit *admit,
                                         ledger_seq **seq_out);

/* NULL if it does not run. */
ledger_seq *ledger_find(const ledger *l, uint64_t seq);
/* Frees slot and pages; s is gone afterwards. */
void ledger_end(ledger *l, ledger_seq *s);

/* What runs, in order of arrival: [ledger_n_running], valid until the next admit or end. */
ledger_seq *const *ledger_running(const ledger *l);
int32_t ledger_n_running(const ledger *l);

/* Pages that nobody reserved, [n_ranks]. */
const int64_t *ledger_free_pages(const ledger *l);

int32_t ledger_owner(const ledger *l, const ledger_seq *s, int32_t block);
/* Blocks that hold a position of s, by rank: counts_out [n_ranks]. */
void ledger_used_blocks(const ledger *l, const ledger_seq *s, int32_t *counts_out);

#endif /* WORKER_ENGINE_LEDGER_H */
