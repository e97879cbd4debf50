/* Where the rows of a step's blocks live.  Of the blocks that a sequence touches in a step, the last one
 * lives in the slot's tail, the others in scratch.  So a block that stays open is in the tail, where the
 * next step looks for it.  If the first block has rows from earlier steps and is not the last, they
 * are still in the tail, about to be overwritten: they are its carry.
 *
 * A slot's table is the page list of its sequence: blocks ascend, so those that are full at the end of a
 * step are a prefix. */
#include "kvshard/shard.h"

#include "base/checked.h"
#include "kvshard/pool.h"

#include <assert.h>
#include <stddef.h>

#define MAX_SLOTS           65536
#define MAX_STEP_TOKENS     (1 << 24)
#define MAX_BLOCKS_PER_SLOT (1 << 24)
#define PAGE_ALIGN          64 /* so that a head page begins on a cache line */

typedef struct slot {
    int64_t position; /* of the next token */
    int32_t n_pages;  /* in the slot's part of the table */
    uint64_t step;    /* the last step it was in, 0: none */
} slot;

typedef struct place { /* of an open block's rows, in any layer */
    int32_t tail;      /* the slot whose tail holds them, or -1 */
    int32_t scratch;   /* index, if tail is -1 */
    int32_t carry;     /* the slot whose tail holds the rows of earlier steps, or -1 */
} place;

struct kv_shard {
    const kv_format *format;
    kv_shard_options options;
    base_alloc mem;
    int64_t open_elems;
    uint64_t n_steps;
    uint8_t *page_memory;
    uint16_t *tails;       /* [n_slots][L] of open_elems */
    uint16_t *scratch;     /* [max_scratch] of open_elems */
    slot *slots;           /* [n_slots] */
    kern_attn_page *table; /* [n_slots][max_blocks_per_slot] */
    kern_attn_seq *seqs;   /* [n_slots] */
    kern_open *opens;      /* [max_opens] */
    place *places;         /* [max_opens] */
    kern_pack *packs;      /* [max_opens] */
    int32_t *dest;         /* [max_step_tokens] */
    int64_t *positions;    /* [max_step_tokens] */
    kv_step step;
};

/* Sizes in bytes of what create allocates. */
typedef struct sizes {
    size_t pages;
    size_t tails;
    size_t scratch;
    size_t slots;
    size_t table;
    size_t seqs;
    size_t opens;
    size_t places;
    size_t packs;
    size_t dest;
    size_t positions;
    size_t total;
} sizes;

/* Every sequence has at most one block less in scratch than it touches, and touches at most n / 128 + 2. */
static int64_t max_scratch(const kv_shard_options *options)
{
    return (int64_t)options->max_step_tokens / KERN_BLOCK_TOKENS + options->n_slots;
}

static int64_t max_opens(const kv_shard_options *options)
{
    return max_scratch(options) + options->n_slots;
}

static base_status check_options(const kv_shard_options *o)
{
    const struct {
        const char *name;
        int32_t value;
        int32_t high;
    } limits[] = {
        {"n_pages", o->n_pages, KV_MAX_PAGES},
        {"n_slots", o->n_slots, MAX_SLOTS},
        {"max_step_tokens", o->max_step_tokens, MAX_STEP_TOKENS},
        {"max_blocks_per_slot", o->max_blocks_per_slot, MAX_BLOCKS_PER_SLOT},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (limits[i].value < 1 || limits[i].value > limits[i].high) {
            return BASE_FAIL(BASE_BAD_INPUT, "shard: %s is %d, allowed 1..%d", limits[i].name,
                             limits[i].value, limits[i].high);
        }
    }
    if ((int64_t)o->n_slots * o->max_blocks_per_slot > INT32_MAX) {
        return BASE_FAIL(BASE_BAD_INPUT, "shard: %d slots of %d blocks, allowed %d blocks in all",
                         o->n_slots, o->max_blocks_per_slot, INT32_MAX);
    }
    return BASE_OK;
}

static bool add_product(size_t *total, size_t a, size_t b, size_t *out)
{
    return base_checked_mul(a, b, out) && base_checked_add(*total, *out, total);
}

/* False on overflow.  The options have been checked. */
static bool measure(const kv_format *format, const kv_shard_options *o, sizes *out)
{
    const size_t n_slots = (size_t)o->n_slots;
    const size_t open_bytes =
        (size_t)kern_open_elems(format->shape.n_kv_heads, format->shape.head_dim) *
        sizeof(uint16_t);
    const size_t n_opens = (size_t)max_opens(o);
    size_t *total = &out->total;

    *out = (sizes){.total = sizeof(kv_shard)};
    const bool fits =
        base_checked_mul((size_t)o->n_pages, (size_t)format->page_bytes, &out->pages) &&
        base_checked_add(out->pages, PAGE_ALIGN, &out->pages) &&
        base_checked_add(*total, out->pages, total) &&
        add_product(total, n_slots * (size_t)format->shape.n_layers, open_bytes, &out->tails) &&
        add_product(total, (size_t)max_scratch(o), open_bytes, &out->scratch) &&
        add_product(total, n_slots, sizeof(slot), &out->slots) &&
        add_product(total, n_slots * (size_t)o->max_blocks_per_slot, sizeof(kern_attn_page),
                    &out->table) &&
        add_product(total, n_slots, sizeof(kern_attn_seq), &out->seqs) &&
        add_product(total, n_opens, sizeof(kern_open), &out->opens) &&
        add_product(total, n_opens, sizeof(place), &out->places) &&
        add_product(total, n_opens, sizeof(kern_pack), &out->packs) &&
        add_product(total, (size_t)o->max_step_tokens, sizeof(int32_t), &out->dest) &&
        add_product(total, (size_t)o->max_step_tokens, sizeof(int64_t), &out->positions);
    return fits && *total <= INT64_MAX;
}

int64_t kv_shard_bytes(const kv_format *format, const kv_shard_options *options)
{
    sizes bytes;
    return measure(format, options, &bytes) ? (int64_t)bytes.total : INT64_MAX;
}

/* Sets *ok to false if memory has run out. */
static void *get(const base_alloc *mem, size_t n_bytes, bool *ok)
{
    void *p = *ok ? mem->get(mem->ctx, n_bytes) : NULL;
    *ok = p != NULL;
    return p;
}

base_status kv_shard_create(const kv_format *format, const kv_shard_options *options,
                            const base_alloc *mem, kv_shard **shard_out)
{
    base_status st = BASE_OK;
    kv_shard *shard = NULL;
    sizes bytes;
    bool ok = true;

    BASE_TRY(st, out, check_options(options));
    if (!measure(format, options, &bytes)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "shard: %d pages of %lld bytes do not fit an address space",
                       options->n_pages, (long long)format->page_bytes);
        goto out;
    }
    shard = get(mem, sizeof *shard, &ok);
    if (ok) {
        shard->mem = *mem;
        shard->format = format;
        shard->options = *options;
        shard->open_elems = kern_open_elems(format->shape.n_kv_heads, format->shape.head_dim);
        shard->page_memory = get(mem, bytes.pages, &ok);
        shard->tails = get(mem, bytes.tails, &ok);
        shard->scratch = get(mem, bytes.scratch, &ok);
        shard->slots = get(mem, bytes.slots, &ok);
        shard->table = get(mem, bytes.table, &ok);
        shard->seqs = get(mem, bytes.seqs, &ok);
        shard->opens = get(mem, bytes.opens, &ok);
        shard->places = get(mem, bytes.places, &ok);
        shard->packs = get(mem, bytes.packs, &ok);
        shard->dest = get(mem, bytes.dest, &ok);
        shard->positions = get(mem, bytes.positions, &ok);
    }
    if (!ok) {
        st = BASE_FAIL(BASE_NO_MEMORY, "shard of %d pages and %d tails, %zu bytes in all",
                       options->n_pages, options->n_slots, bytes.total);
        goto out;
    }
    const uintptr_t misaligned = (uintptr_t)shard->page_memory % PAGE_ALIGN;
    shard->step.pages = shard->page_memory + (misaligned == 0 ? 0 : PAGE_ALIGN - misaligned);
    *shard_out = shard;
    shard = NULL;

out:
    kv_shard_destroy(shard);
    return st;
}

void kv_shard_destroy(kv_shard *shard)
{
    if (shard == NULL) {
        return;
    }
    const base_alloc mem = shard->mem;
    void *const parts[] = {shard->positions, shard->dest,  shard->packs,      shard->places,
                           shard->opens,     shard->seqs,  shard->table,      shard->slots,
                           shard->scratch,   shard->tails, shard->page_memory};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        mem.put(mem.ctx, parts[i]);
    }
    mem.put(mem.ctx, shard);
}

static kern_attn_page *slot_table(const kv_shard *shard, int32_t slot_id)
{
    return shard->table + (int64_t)slot_id * shard->options.max_blocks_per_slot;
}

static base_status check_slot(const kv_shard *shard, int32_t slot_id)
{
    if (slot_id < 0 || slot_id >= shard->options.n_slots) {
        return BASE_FAIL(BASE_BAD_INPUT, "shard: slot %d, allowed 0..%d", slot_id,
                         shard->options.n_slots - 1);
    }
    return BASE_OK;
}

void kv_shard_clear_slot(kv_shard *shard, int32_t slot_id)
{
    assert(slot_id >= 0 && slot_id < shard->options.n_slots);
    shard->slots[slot_id] = (slot){0};
}

base_status kv_shard_add_page(kv_shard *shard, int32_t slot_id, int32_t block, int32_t page)
{
    const base_status st = check_slot(shard, slot_id);
    if (st != BASE_OK) {
        return st;
    }
    slot *s = &shard->slots[slot_id];
    kern_attn_page *table = slot_table(shard, slot_id);
    const int32_t after = s->n_pages == 0 ? -1 : table[s->n_pages - 1].block;

    if (block <= after || block >= shard->options.max_blocks_per_slot) {
        return BASE_FAIL(BASE_BAD_INPUT, "shard: slot %d: block %d, allowed %d..%d", slot_id, block,
                         after + 1, shard->options.max_blocks_per_slot - 1);
    }
    if ((int64_t)block * KERN_BLOCK_TOKENS < s->position) {
        return BASE_FAIL(BASE_BAD_INPUT, "shard: slot %d: block %d comes late, position is %lld",
                         slot_id, block, (long long)s->position);
    }
    if (page < 0 || page >= shard->options.n_pages) {
        return BASE_FAIL(BASE_BAD_INPUT, "shard: slot %d: page %d, allowed 0..%d", slot_id, page,
                         shard->options.n_pages - 1);
    }
    table[s->n_pages++] = (kern_attn_page){.block = block, .page = page};
    return BASE_OK;
}

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
        const base_status st = check_slot(shard, seqs[i].slot);
        if (st != BASE_OK) {
            return st;
        }
        slot *s = &shard->slots[seqs[i].slot];
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

/* Adds a sequence to the step: its opens, packs and the destinations of its tokens. */
static void add_seq(kv_shard *shard, const kv_step_seq *seq, int32_t *n_scratch)
{
    kv_step *step = &shard->step;
    slot *s = &shard->slots[seq->slot];
    const kern_attn_page *table = slot_table(shard, seq->slot);
    const int64_t begin = seq->position;
    const int64_t end = begin + seq->n_tokens;
    const int64_t first_block = begin / KERN_BLOCK_TOKENS;
    const int64_t last_block = (end - 1) / KERN_BLOCK_TOKENS;
    const int32_t first_token = step->n_tokens;

    for (int32_t t = 0; t < seq->n_tokens; t++) {
        shard->positions[first_token + t] = begin + t;
        shard->dest[first_token + t] = -1;
    }
    shard->seqs[step->n_seqs++] = (kern_attn_seq){
        .position = begin,
        .first_token = first_token,
        .n_tokens = seq->n_tokens,
        .first_page = seq->slot * shard->options.max_blocks_per_slot,
        .n_pages = find_block(table, s->n_pages, end / KERN_BLOCK_TOKENS),
        .first_open = step->n_opens,
    };
    for (int32_t i = find_block(table, s->n_pages, first_block);
         i < s->n_pages && table[i].block <= last_block; i++) {
        const int32_t block = table[i].block;
        const int64_t block_begin = (int64_t)block * KERN_BLOCK_TOKENS;
        const int64_t block_end = block_begin + KERN_BLOCK_TOKENS;
        const bool in_tail = block == last_block;
        const bool has_carry = !in_tail && block_begin < begin;

        shard->places[step->n_opens] = (place){.tail = in_tail ? seq->slot : -1,
                                               .scratch = in_tail ? -1 : (*n_scratch)++,
                                               .carry = has_carry ? seq->slot : -1};
        shard->opens[step->n_opens] =
            (kern_open){.block = block, .n_carry = has_carry ? (int32_t)(begin - block_begin) : 0};
        if (block_end <= end) {
            shard->packs[step->n_packs++] =
                (kern_pack){.open = step->n_opens, .page = table[i].page};
        }
        const int64_t from = block_begin > begin ? block_begin : begin;
        const int64_t to = block_end < end ? block_end : end;
        for (int64_t p = from; p < to; p++) {
            shard->dest[first_token + (int32_t)(p - begin)] = step->n_opens;
        }
        step->n_opens++;
    }
    shard->seqs[step->n_seqs - 1].n_opens =
        step->n_opens - shard->seqs[step->n_seqs - 1].first_open;
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
        const place *at = &shard->places[i];
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
