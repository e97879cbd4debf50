#include "kvshard/shard_state.h"

#include "base/checked.h"
#include "kvshard/pool.h"

#include <assert.h>
#include <stddef.h>

#define MAX_SLOTS           65536
#define MAX_STEP_TOKENS     (1 << 24)
#define MAX_BLOCKS_PER_SLOT (1 << 24)
#define PAGE_ALIGN          64 /* so that a head page begins on a cache line */

/* Sizes in bytes of what create allocates. */
typedef struct sizes {
    size_t pages;
    size_t tails;
    size_t scratch;
    size_t slots;
    size_t table;
    size_t step;
    size_t total;
} sizes;

/* A sequence sees rows from window blocks before its first block on, and keeps as many before its last block
 * in tails: in scratch is at most one block less than it touches, and it touches at most n / 128 + 2. */
static int64_t max_scratch(const kv_shard_options *options)
{
    return (int64_t)options->max_step_tokens / KERN_BLOCK_TOKENS + options->n_slots;
}

static int64_t max_opens(const kv_format *format, const kv_shard_options *options)
{
    return max_scratch(options) + (int64_t)options->n_slots * kv_shard_tails_per_slot(format);
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
    const int32_t n_layers = format->shape.n_layers;
    const size_t open_bytes =
        (size_t)kern_open_elems(format->shape.n_kv_heads, format->shape.head_dim) *
        sizeof(uint16_t);
    size_t *total = &out->total;
    size_t step[KV_STEP_ARRAYS + 1];

    const size_t n_tails = n_slots * (size_t)kv_shard_tails_per_slot(format);

    kv_step_layout(n_layers, o->max_step_tokens, o->n_slots, max_opens(format, o), step);
    *out = (sizes){.step = step[KV_STEP_ARRAYS], .total = sizeof(kv_shard)};
    const bool fits =
        base_checked_mul((size_t)o->n_pages, (size_t)format->page_bytes, &out->pages) &&
        base_checked_add(out->pages, PAGE_ALIGN, &out->pages) &&
        base_checked_add(*total, out->pages, total) &&
        add_product(total, n_tails * (size_t)n_layers, open_bytes, &out->tails) &&
        add_product(total, (size_t)max_scratch(o), open_bytes, &out->scratch) &&
        add_product(total, n_slots, sizeof(kv_slot), &out->slots) &&
        add_product(total, n_slots * (size_t)o->max_blocks_per_slot, sizeof(kern_attn_page),
                    &out->table) &&
        base_checked_add(*total, out->step, total);
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

base_status kv_shard_create(const kv_format *format, const kv_shard_options *options, kern_ctx *ctx,
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
        shard->ctx = ctx;
        shard->open_elems = kern_open_elems(format->shape.n_kv_heads, format->shape.head_dim);
        shard->slots = get(mem, bytes.slots, &ok);
        shard->page_memory = get(kern_memory(ctx), bytes.pages, &ok);
        shard->tails = get(kern_memory(ctx), bytes.tails, &ok);
        shard->scratch = get(kern_memory(ctx), bytes.scratch, &ok);
        shard->table = get(kern_mirror(ctx), bytes.table, &ok);
        shard->step_memory = get(kern_mirror(ctx), bytes.step, &ok);
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
    const base_alloc *memory = kern_memory(shard->ctx);
    const base_alloc *mirror = kern_mirror(shard->ctx);
    mirror->put(mirror->ctx, shard->step_memory);
    mirror->put(mirror->ctx, shard->table);
    memory->put(memory->ctx, shard->scratch);
    memory->put(memory->ctx, shard->tails);
    memory->put(memory->ctx, shard->page_memory);
    mem.put(mem.ctx, shard->slots);
    mem.put(mem.ctx, shard);
}

base_status kv_shard_check_slot(const kv_shard *shard, int32_t slot_id)
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
    shard->slots[slot_id] = (kv_slot){0};
}

base_status kv_shard_add_page(kv_shard *shard, int32_t slot_id, int32_t block, int32_t page)
{
    const base_status st = kv_shard_check_slot(shard, slot_id);
    if (st != BASE_OK) {
        return st;
    }
    kv_slot *s = &shard->slots[slot_id];
    kern_attn_page *table = kv_shard_table(shard, slot_id);
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
