#include "coordinator/text/pairs.h"

base_status text_pairs_init(text_pairs *pairs, size_t n_max, const base_alloc *mem)
{
    unsigned log2_slots = 4;
    /* At most half full, so that probes stay short. */
    while (((size_t)1 << log2_slots) < 2 * n_max) {
        log2_slots++;
    }
    const size_t n_slots = (size_t)1 << log2_slots;

    text_pairs_slot *slots = mem->get(mem->ctx, n_slots * sizeof *slots);
    if (slots == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "tokenizer table of %zu slots", n_slots);
    }
    for (size_t i = 0; i < n_slots; i++) {
        slots[i].value = TEXT_PAIRS_NONE;
    }
    *pairs = (text_pairs){slots, 64 - log2_slots, *mem};
    return BASE_OK;
}

void text_pairs_reset(text_pairs *pairs)
{
    pairs->mem.put(pairs->mem.ctx, pairs->slots);
    pairs->slots = NULL;
}

void text_pairs_set(text_pairs *pairs, uint32_t a, uint32_t b, uint64_t value)
{
    const uint64_t key = (uint64_t)a << 32 | b;
    const size_t mask = ((size_t)1 << (64 - pairs->shift)) - 1;
    size_t i = text_pairs_slot_of(pairs, key);
    while (pairs->slots[i].value != TEXT_PAIRS_NONE && pairs->slots[i].key != key) {
        i = (i + 1) & mask;
    }
    pairs->slots[i] = (text_pairs_slot){key, value};
}
