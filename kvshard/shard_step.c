/* Where the rows of a step's blocks live.  A slot has a tail for every block that the queries of the next step
 * may see as rows: a ring of window + 1 blocks, block % (window + 1), and one for each sink.  A block of the
 * step lives in its tail if that stays true at the end of the step, else in scratch.  So what the next step
 * needs is in a tail, where it looks for it.  A block in scratch that has rows from earlier steps finds them in
 * its tail, about to be overwritten by a newer block: they are its carry.
 *
 * A slot's table is the page list of its sequence: blocks ascend, so those that are full at the end of a
 * step are a prefix. */
#include "kvshard/shard_state.h"

/* Everything that can be wrong with a step; marks the slots it is in. */
static base_status check_step(kv_shard *shard, const kv_step_seq *seqs, int32_t n_seqs)
{
    int64_t n_tokens = 0;

    if (n_seqs < 0 || n_seqs > shard->options.n_slots) {
        return BASE_FAIL(BASE_BAD_INPUT, "step: %d sequences, allowed 0..%d", n_seqs,
                         shard->options.n_slots);
    }
    shard->n_steps++;
    for (int32_t i = 0; i < n_seqs; i++) {
        const base_status st = kv_shard_check_slot(shard, seqs[i].slot);
        if (st != BASE_OK) {
            return st;
        }
        kv_slot *s = &shard->slots[seqs[i].slot];
        if (s->step == shard->n_steps) {
            return BASE_FAIL(BASE_BAD_INPUT, "step: slot %d comes twice", seqs[i].slot);
        }
        s->step = shard->n_steps;
        const int64_t limit = (int64_t)shard->options.max_blocks_per_slot * KERN_BLOCK_TOKENS;
        if (seqs[i].position != s->position) {
            return BASE_FAIL(BASE_BAD_INPUT, "step: slot %d: position %lld, the next one is %lld",
                             seqs[i].slot, (long long)seqs[i].position, (long long)s->position);
        }
        if (seqs[i].n_tokens < 1 || seqs[i].n_tokens > limit - s->position) {
            return BASE_FAIL(BASE_BAD_INPUT, "step: slot %d: %d tokens, allowed 1..%lld",
                             seqs[i].slot, seqs[i].n_tokens, (long long)(limit - s->position));
        }
        n_tokens += seqs[i].n_tokens;
    }
    if (n_tokens > shard->options.max_step_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "step: %lld tokens, allowed %d", (long long)n_tokens,
                         shard->options.max_step_tokens);
    }
    return BASE_OK;
}

/* Index of the first entry of the slot's table whose block is not below `block`. */
static int32_t find_block(const kern_attn_page *table, int32_t n_pages, int64_t block)
{
    int32_t low = 0;
    int32_t high = n_pages;
    while (low < high) {
        const int32_t mid = low + (high - low) / 2;
        if (table[mid].block < block) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

typedef struct span { /* of a sequence in a step */
    int32_t slot;
    int32_t first_token; /* in the step */
    int64_t begin;       /* positions */
    int64_t end;
    int64_t first_block; /* that it touches */
    int64_t last_block;
} span;

/* The only tail that may hold the rows of a block. */
static int32_t tail_of(const kv_shard *shard, int32_t slot_id, int32_t block)
{
    const kv_format *f = shard->format;
    const int32_t ring = f->window_blocks + 1;
    const int32_t in_slot = block < f->sink_blocks ? ring + block : block % ring;
    return slot_id * kv_shard_tails_per_slot(f) + in_slot;
}

/* Adds a block to the step: its rows, its pack if the step fills it, the destinations of its tokens. */
static void add_open(kv_shard *shard, const span *in, const kern_attn_page *entry,
                     int32_t *n_scratch)
{
    kv_step *step = &shard->step;
    const int32_t block = entry->block;
    const int64_t block_begin = (int64_t)block * KERN_BLOCK_TOKENS;
    const int64_t block_end = block_begin + KERN_BLOCK_TOKENS;
    const int64_t from = block_begin > in->begin ? block_begin : in->begin;
    const int64_t to = block_end < in->end ? block_end : in->end;
    const int32_t tail = tail_of(shard, in->slot, block);
    const bool stays = block < shard->format->sink_blocks ||
                       block >= in->last_block - shard->format->window_blocks;
    const int64_t n_old = in->begin < block_end ? in->begin - block_begin : KERN_BLOCK_TOKENS;
    const bool has_carry = !stays && n_old > 0;

    shard->places[step->n_opens] = (kv_place){.tail = stays ? tail : -1,
                                              .scratch = stays ? -1 : (*n_scratch)++,
                                              .carry = has_carry ? tail : -1};
    shard->opens[step->n_opens] =
        (kern_open){.block = block, .n_carry = has_carry ? (int32_t)n_old : 0};
    if (from < to && block_end <= in->end) {
        shard->packs[step->n_packs++] = (kern_pack){.open = step->n_opens, .page = entry->page};
    }
    for (int64_t p = from; p < to; p++) {
        shard->dest[in->first_token + (int32_t)(p - in->begin)] = step->n_opens;
    }
    step->n_opens++;
}

/* Adds a sequence to the step: its tokens, and every block that a query of it sees as rows. */
static void add_seq(kv_shard *shard, const kv_step_seq *seq, int32_t *n_scratch)
{
    kv_step *step = &shard->step;
    kv_slot *s = &shard->slots[seq->slot];
    const kern_attn_page *table = kv_shard_table(shard, seq->slot);
    const int64_t end = seq->position + seq->n_tokens;
    const span in = {.slot = seq->slot,
                     .first_token = step->n_tokens,
                     .begin = seq->position,
                     .end = end,
                     .first_block = seq->position / KERN_BLOCK_TOKENS,
                     .last_block = (end - 1) / KERN_BLOCK_TOKENS};
    const int64_t oldest = in.first_block - shard->format->window_blocks;
    const int32_t first_open = step->n_opens;

    for (int32_t t = 0; t < seq->n_tokens; t++) {
        shard->positions[in.first_token + t] = in.begin + t;
        shard->dest[in.first_token + t] = -1;
    }
    for (int32_t i = 0;
         i < s->n_pages && table[i].block < shard->format->sink_blocks && table[i].block < oldest;
         i++) {
        add_open(shard, &in, &table[i], n_scratch);
    }
    for (int32_t i = find_block(table, s->n_pages, oldest);
         i < s->n_pages && table[i].block <= in.last_block; i++) {
        add_open(shard, &in, &table[i], n_scratch);
    }
    shard->seqs[step->n_seqs++] = (kern_attn_seq){
        .position = in.begin,
        .first_token = in.first_token,
        .n_tokens = seq->n_tokens,
        .first_page = seq->slot * shard->options.max_blocks_per_slot,
        .n_pages = find_block(table, s->n_pages, end / KERN_BLOCK_TOKENS),
        .first_open = first_open,
        .n_opens = step->n_opens - first_open,
    };
    step->n_tokens += seq->n_tokens;
    s->position = end;
}

base_status kv_shard_begin_step(kv_shard *shard, const kv_step_seq *seqs, int32_t n_seqs,
                                const kv_step **step_out)
{
    const base_status st = check_step(shard, seqs, n_seqs);
    if (st != BASE_OK) {
        return st;
    }
    int32_t n_scratch = 0;

    shard->step = (kv_step){
        .seqs = shard->seqs,
        .page_list = shard->table,
        .dest = shard->dest,
        .positions = shard->positions,
        .packs = shard->packs,
        .pages = shard->step.pages,
        .page_stride = shard->format->page_bytes,
        .n_pages_total = shard->options.n_pages,
        .n_page_list = shard->options.n_slots * shard->options.max_blocks_per_slot,
        .window_blocks = shard->format->window_blocks,
        .sink_blocks = shard->format->sink_blocks,
    };
    for (int32_t i = 0; i < n_seqs; i++) {
        add_seq(shard, &seqs[i], &n_scratch);
    }
    *step_out = &shard->step;
    return BASE_OK;
}

const kern_open *kv_shard_layer_opens(kv_shard *shard, int32_t layer)
{
    const int64_t n_layers = shard->format->shape.n_layers;

    for (int32_t i = 0; i < shard->step.n_opens; i++) {
        const kv_place *at = &shard->places[i];
        kern_open *open = &shard->opens[i];
        open->rows = at->tail >= 0
                         ? shard->tails + (at->tail * n_layers + layer) * shard->open_elems
                         : shard->scratch + at->scratch * shard->open_elems;
        open->carry = at->carry >= 0
                          ? shard->tails + (at->carry * n_layers + layer) * shard->open_elems
                          : NULL;
    }
    return shard->opens;
}
