/* kvshard/shard.h - what one rank holds of the cache: page bytes, tails, and the block tables of
 * the sequences in its slots.
 *
 * A slot is a running sequence's number, 0..n_slots-1, the same on all ranks.  Rank 0's ledger decides
 * everything (owners, page ids); the plan of each step carries it; this module follows.
 * Memory.   n_pages pages; for each slot window + 1 + sink blocks (format.h) of bf16 rows [L][Hkv][2][128][D],
 *           its tails; and the rows of one layer for the blocks that a step may fill or that leave the window
 *           in it (max_step_tokens / 128 + n_slots): fixed at create.  Pages and rows are the context's
 *           (kern_memory): only ops touch them.  Tables and steps are mirrors, sent by kv_shard_begin_step:
 *           of a table what is new, of a step what it uses.
 * Threads.  One owner: the step loop. */
#ifndef KVSHARD_SHARD_H
#define KVSHARD_SHARD_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/kern.h"
#include "kvshard/format.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct kv_shard kv_shard;

typedef struct kv_shard_options {
    int32_t n_pages;
    int32_t n_slots;
    int32_t max_step_tokens;
    int32_t max_blocks_per_slot; /* of one sequence, all ranks together */
} kv_shard_options;

/* format and ctx are borrowed.  Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status kv_shard_create(const kv_format *format,
                                            const kv_shard_options *options, kern_ctx *ctx,
                                            const base_alloc *mem, kv_shard **shard_out);
void kv_shard_destroy(kv_shard *shard); /* NULL is allowed */
/* Bytes that create would take; INT64_MAX on overflow. */
int64_t kv_shard_bytes(const kv_format *format, const kv_shard_options *options);

/* Empties a slot's table.  Its page ids belong to the ledger. */
void kv_shard_clear_slot(kv_shard *shard, int32_t slot);
/* This rank owns `block` of the slot's sequence and keeps it in `page`.  Ascending by block.
 * Errors: BAD_INPUT (slot, order, page range: a broken plan). */
BASE_MUST_CHECK base_status kv_shard_add_page(kv_shard *shard, int32_t slot, int32_t block,
                                              int32_t page);

typedef struct kv_step_seq { /* a sequence's part in a step */
    int32_t slot;
    int32_t n_tokens;
    int64_t position; /* of the first token; where the last step of this slot ended */
} kv_step_seq;

/* What the ops of one step need, the same for all layers but opens.  Owned by the shard, valid until the
 * next kv_shard_begin_step; the host reads it like any op. */
typedef struct kv_step {
    const kern_attn_seq *seqs; /* [n_seqs] */
    const kern_attn_page *page_list;
    const int32_t *dest;      /* [n_tokens] */
    const int64_t *positions; /* [n_tokens] */
    const kern_pack *packs;   /* [n_packs] */
    uint8_t *pages;
    int64_t page_stride;
    int32_t n_pages_total;
    int32_t n_seqs;
    int32_t n_tokens;
    int32_t n_page_list;
    int32_t n_opens;
    int32_t n_packs;
    int32_t window_blocks; /* what a query sees as rows: kernels/op_attn.h */
    int32_t sink_blocks;
} kv_step;

/* Lays out a step.  Every block that the step's tokens touch and this rank owns must have been added.
 * Errors: BAD_INPUT (tokens above max_step_tokens, a slot twice, a position that is not the next one),
 * DEVICE_LOST. */
BASE_MUST_CHECK base_status kv_shard_begin_step(kv_shard *shard, const kv_step_seq *seqs,
                                                int32_t n_seqs, const kv_step **step_out);

/* The opens [n_opens] of a layer of the step: rows in a tail or in scratch that all layers share, so layers go
 * in order: append, pack, attend, then the next. */
const kern_open *kv_shard_layer_opens(const kv_shard *shard, int32_t layer);

#endif /* KVSHARD_SHARD_H */
