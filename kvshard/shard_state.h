/* kvshard/shard_state.h - what a shard holds.  Only shard.c, which makes it, and shard_step.c, which lays out
 * steps in it, include this. */
#ifndef KVSHARD_SHARD_STATE_H
#define KVSHARD_SHARD_STATE_H

#include "kvshard/shard.h"

typedef struct kv_slot {
    int64_t position; /* of the next token */
    int32_t n_pages;  /* in the slot's part of the table */
    uint64_t step;    /* the last step it was in, 0: none */
} kv_slot;

typedef struct kv_place { /* of an open block's rows, in any layer */
    int32_t tail;         /* index of the tail that holds them, or -1 */
    int32_t scratch;      /* index, if tail is -1 */
    int32_t carry;        /* index of the tail that holds the rows of earlier steps, or -1 */
} kv_place;

struct kv_shard {
    const kv_format *format;
    kv_shard_options options;
    base_alloc mem;
    int64_t open_elems;
    uint64_t n_steps;
    uint8_t *page_memory;
    uint16_t *tails;       /* [n_slots][tails_per_slot][L] of open_elems */
    uint16_t *scratch;     /* [max_scratch] of open_elems */
    kv_slot *slots;        /* [n_slots] */
    kern_attn_page *table; /* [n_slots][max_blocks_per_slot] */
    kern_attn_seq *seqs;   /* [n_slots] */
    kern_open *opens;      /* [max_opens] */
    kv_place *places;      /* [max_opens] */
    kern_pack *packs;      /* [max_opens] */
    int32_t *dest;         /* [max_step_tokens] */
    int64_t *positions;    /* [max_step_tokens] */
    kv_step step;
};

static inline int32_t kv_shard_tails_per_slot(const kv_format *format)
{
    return format->window_blocks + 1 + format->sink_blocks;
}

/* The slot's part of the table. */
static inline kern_attn_page *kv_shard_table(const kv_shard *shard, int32_t slot_id)
{
    return shard->table + (int64_t)slot_id * shard->options.max_blocks_per_slot;
}

/* Errors: BAD_INPUT (a slot that does not exist). */
BASE_MUST_CHECK base_status kv_shard_check_slot(const kv_shard *shard, int32_t slot_id);

#endif /* KVSHARD_SHARD_STATE_H */
