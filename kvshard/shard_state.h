/* kvshard/shard_state.h - what a shard holds.  Only shard.c, which makes it, and shard_step.c, which lays out
 * steps in it, include this. */
#ifndef KVSHARD_SHARD_STATE_H
#define KVSHARD_SHARD_STATE_H

#include "kvshard/shard.h"

typedef struct kv_slot {
    int64_t position; /* of the next token */
    int32_t n_pages;  /* in the slot's part of the table */
    int32_t n_sent;   /* of them, that ops know of */
    uint64_t step;    /* the last step it was in, 0: none */
} kv_slot;

/* The arrays of a step, that kv_step shows: one behind the other in this order, opens of all layers among them,
 * so that one send serves the step. */
typedef struct kv_step_arrays {
    int64_t *positions;
    kern_open *opens; /* [L][open_stride] */
    kern_attn_seq *seqs;
    kern_pack *packs; /* [n_opens], at most */
    int32_t *dest;
} kv_step_arrays;

#define KV_STEP_ARRAYS 5

struct kv_shard {
    const kv_format *format;
    kv_shard_options options;
    kern_ctx *ctx;
    base_alloc mem;
    int64_t open_elems;
    uint64_t n_steps;
    kv_slot *slots; /* [n_slots] */
    /* only ops touch these */
    uint8_t *page_memory;
    uint16_t *tails;   /* [n_slots][tails_per_slot][L] of open_elems */
    uint16_t *scratch; /* [max_scratch] of open_elems */
    /* mirrors */
    kern_attn_page *table; /* [n_slots][max_blocks_per_slot] */
    char *step_memory;
    size_t step_n_bytes;   /* that the step uses of it */
    kv_step_arrays arrays; /* in step_memory */
    int32_t open_stride;   /* n_opens, and one more where that keeps every layer's aligned */
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

/* Bytes from the start of a step's memory at which each array begins, and the last ends. */
void kv_step_layout(int64_t n_layers, int64_t n_tokens, int64_t n_seqs, int64_t n_opens,
                    size_t at_out[KV_STEP_ARRAYS + 1]);

#endif /* KVSHARD_SHARD_STATE_H */
