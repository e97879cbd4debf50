/* Where the rows of a step's blocks live.  A slot has a tail for every block that the queries of the next step
 * may see as rows: a ring of window + 1 blocks, block % (window + 1), and one for each sink.  A block of the
 * step lives in its tail if that stays true at the end of the step, else in scratch.  So what the next step
 * needs is in a tail, where it looks for it.  A block in scratch that has rows from earlier steps finds them in
 * its tail, about to be overwritten by a newer block: they are its carry.
 *
 * A slot's table is the page list of its sequence: blocks ascend, so those that are full at the end of a
 * step are a prefix. */
#include "kvshard/shard_state.h"

#define STEP_ALIGN 16 /* of each array of a step */

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
    int64_t last_block; /* that it touches */
} span;

/* The only tail that may hold the rows of a block. */
static int32_t tail_of(const kv_shard *shard, int32_t slot_id, int32_t block)
{
    const kv_format *f = shard->format;
    const int32_t ring = f->window_blocks + 1;
    const int32_t in_slot = block < f->sink_blocks ? ring + block : block % ring;
    return slot_id * kv_shard_tails_per_slot(f) + in_slot;
}

/* Entries of a slot's table that a step's queries see as rows: sinks [0, sinks_end), then [begin, end). */
typedef struct row_entries {
    int32_t sinks_end;
    int32_t begin;
    int32_t end;
} row_entries;

static row_entries find_rows(const kv_shard *shard, const kv_step_seq *seq)
{
    const kern_attn_page *table = kv_shard_table(shard, seq->slot);
    const kv_format *f = shard->format;
    const int32_t n_pages = shard->slots[seq->slot].n_pages;
    const int64_t oldest = seq->position / KERN_BLOCK_TOKENS - f->window_blocks;
    const int64_t last = (seq->position + seq->n_tokens - 1) / KERN_BLOCK_TOKENS;
    const int64_t sinks = oldest < f->sink_blocks ? oldest : f->sink_blocks;
    return (row_entries){.sinks_end = find_block(table, n_pages, sinks),
                         .begin = find_block(table, n_pages, oldest),
                         .end = find_block(table, n_pages, last + 1)};
}

static int32_t count_rows(const kv_shard *shard, const kv_step_seq *seq)
{
    const row_entries rows = find_rows(shard, seq);
    return rows.sinks_end + rows.end - rows.begin;
}

static int64_t stride_of(int64_t n_opens)
{
    return n_opens + n_opens % 2; /* two opens are 48 bytes */
}

/* The limits of a shard's options and of kv_shape keep this far from overflow. */
void kv_step_layout(int64_t n_layers, int64_t n_tokens, int64_t n_seqs, int64_t n_opens,
                    size_t at_out[KV_STEP_ARRAYS + 1])
{
    const int64_t n_bytes[KV_STEP_ARRAYS] = {
        n_tokens * (int64_t)sizeof(int64_t),
        n_layers * stride_of(n_opens) * (int64_t)sizeof(kern_open),
        n_seqs * (int64_t)sizeof(kern_attn_seq),
        n_opens * (int64_t)sizeof(kern_pack),
        n_tokens * (int64_t)sizeof(int32_t),
    };
    at_out[0] = 0;
    for (int32_t i = 0; i < KV_STEP_ARRAYS; i++) {
        const size_t end = at_out[i] + (size_t)n_bytes[i];
        at_out[i + 1] = (end + STEP_ALIGN - 1) / STEP_ALIGN * STEP_ALIGN;
    }
}

/* Gives each array of the step its place. */
static void carve(kv_shard *shard, int32_t n_tokens, int32_t n_seqs, int32_t n_opens)
{
    kv_step_arrays *a = &shard->arrays;
    char *memory = shard->step_memory;
    size_t at[KV_STEP_ARRAYS + 1];

    kv_step_layout(shard->format->shape.n_layers, n_tokens, n_seqs, n_opens, at);
    a->positions = (int64_t *)(void *)(memory + at[0]);
    a->opens = (kern_open *)(void *)(memory + at[1]);
    a->seqs = (kern_attn_seq *)(void *)(memory + at[2]);
    a->packs = (kern_pack *)(void *)(memory + at[3]);
    a->dest = (int32_t *)(void *)(memory + at[4]);
    shard->step_n_bytes = at[KV_STEP_ARRAYS];
    shard->open_stride = (int32_t)stride_of(n_opens);
    shard->step = (kv_step){
        .seqs = a->seqs,
        .page_list = shard->table,
        .dest = a->dest,
        .positions = a->positions,
        .packs = a->packs,
        .pages = shard->step.pages,
        .page_stride = shard->format->page_bytes,
        .n_pages_total = shard->options.n_pages,
        .n_page_list = shard->options.n_slots * shard->options.max_blocks_per_slot,
        .window_blocks = shard->format->window_blocks,
        .sink_blocks = shard->format->sink_blocks,
    };
}

/* The step's next open, whose rows are in a tail, or in scratch if tail is NULL; the same for every layer. */
static void set_opens(kv_shard *shard, kern_open open, uint16_t *tail, uint16_t *scratch,
                      const uint16_t *carry)
{
    for (int64_t layer = 0; layer < shard->format->shape.n_layers; layer++) {
        open.rows = tail != NULL ? tail + layer * shard->open_elems : scratch;
        open.carry = carry != NULL ? carry + layer * shard->open_elems : NULL;
        shard->arrays.opens[layer * shard->open_stride + shard->step.n_opens] = open;
    }
    shard->step.n_opens++;
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
    uint16_t *const tail = shard->tails + tail_of(shard, in->slot, block) *
                                              (int64_t)shard->format->shape.n_layers *
                                              shard->open_elems;
    const bool stays = block < shard->format->sink_blocks ||
                       block >= in->last_block - shard->format->window_blocks;
    const int64_t n_old = in->begin < block_end ? in->begin - block_begin : KERN_BLOCK_TOKENS;
    const bool has_carry = !stays && n_old > 0;
    const kern_open open = {.block = block, .n_carry = has_carry ? (int32_t)n_old : 0};

    if (from < to && block_end <= in->end) {
        shard->arrays.packs[step->n_packs++] =
            (kern_pack){.open = step->n_opens, .page = entry->page};
    }
    for (int64_t p = from; p < to; p++) {
        shard->arrays.dest[in->first_token + (int32_t)(p - in->begin)] = step->n_opens;
    }
    set_opens(shard, open, stays ? tail : NULL, shard->scratch + *n_scratch * shard->open_elems,
              has_carry ? tail : NULL);
    *n_scratch += !stays;
}

/* Adds a sequence to the step: its tokens, and every block that a query of it sees as rows. */
static void add_seq(kv_shard *shard, const kv_step_seq *seq, int32_t *n_scratch)
{
    kv_step *step = &shard->step;
    const kv_step_arrays *a = &shard->arrays;
    kv_slot *s = &shard->slots[seq->slot];
    const kern_attn_page *table = kv_shard_table(shard, seq->slot);
    const int64_t end = seq->position + seq->n_tokens;
    const span in = {.slot = seq->slot,
                     .first_token = step->n_tokens,
                     .begin = seq->position,
                     .end = end,
                     .last_block = (end - 1) / KERN_BLOCK_TOKENS};
    const row_entries rows = find_rows(shard, seq);
    const int32_t first_open = step->n_opens;

    for (int32_t t = 0; t < seq->n_tokens; t++) {
        a->positions[in.first_token + t] = in.begin + t;
        a->dest[in.first_token + t] = -1;
    }
    for (int32_t i = 0; i < rows.sinks_end; i++) {
        add_open(shard, &in, &table[i], n_scratch);
    }
    for (int32_t i = rows.begin; i < rows.end; i++) {
        add_open(shard, &in, &table[i], n_scratch);
    }
    a->seqs[step->n_seqs++] = (kern_attn_seq){
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

/* What ops do not know yet: the step, and what is new in its sequences' tables. */
static base_status send(kv_shard *shard, const kv_step_seq *seqs, int32_t n_seqs)
{
    base_status st = BASE_OK;

    for (int32_t i = 0; i < n_seqs; i++) {
        kv_slot *s = &shard->slots[seqs[i].slot];
        if (s->n_sent < s->n_pages) {
            BASE_TRY(st, out,
                     kern_send(shard->ctx, kv_shard_table(shard, seqs[i].slot) + s->n_sent,
                               (size_t)(s->n_pages - s->n_sent) * sizeof(kern_attn_page)));
            s->n_sent = s->n_pages;
        }
    }
    st = kern_send(shard->ctx, shard->step_memory, shard->step_n_bytes);
out:
    return st;
}

base_status kv_shard_begin_step(kv_shard *shard, const kv_step_seq *seqs, int32_t n_seqs,
                                const kv_step **step_out)
{
    base_status st = BASE_OK;
    int32_t n_tokens = 0, n_opens = 0, n_scratch = 0;

    BASE_TRY(st, out, check_step(shard, seqs, n_seqs));
    for (int32_t i = 0; i < n_seqs; i++) {
        n_tokens += seqs[i].n_tokens;
        n_opens += count_rows(shard, &seqs[i]);
    }
    carve(shard, n_tokens, n_seqs, n_opens);
    for (int32_t i = 0; i < n_seqs; i++) {
        add_seq(shard, &seqs[i], &n_scratch);
    }
    BASE_TRY(st, out, send(shard, seqs, n_seqs));
    *step_out = &shard->step;
out:
    return st;
}

const kern_open *kv_shard_layer_opens(const kv_shard *shard, int32_t layer)
{
    return shard->arrays.opens + (int64_t)layer * shard->open_stride;
}
