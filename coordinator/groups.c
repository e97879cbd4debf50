#include "coordinator/groups.h"

#include "kvshard/owner.h"

#include <string.h>

#define MAX_BLOCKS ((int64_t)1 << 40) /* of a rank: sums over ranks stay far from overflow */

static void copy_blocks(int64_t *to, const int64_t *from, int32_t n_ranks)
{
    for (int32_t rank = 0; rank < n_ranks; rank++) {
        to[rank] = from[rank] < MAX_BLOCKS ? from[rank] : MAX_BLOCKS;
    }
}

base_status coord_group_create(const group_hello *hello, rpc_call *call, int64_t now_us,
                               const base_alloc *mem, coord_group **group_out)
{
    base_status st = BASE_OK;
    const size_t n_ranks = (size_t)hello->ranks;
    coord_group *group = mem->get(mem->ctx, sizeof *group);

    if (group == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "group");
        goto out;
    }
    group->mem = *mem;
    group->ranks = hello->ranks;
    group->max_context = hello->max_context;
    group->n_slots = hello->max_batch < COORD_MAX_SLOTS ? hello->max_batch : COORD_MAX_SLOTS;
    group->heard_us = now_us;
    group->pinged_us = now_us;
    group->n_admits = (uint64_t)now_us; /* seqs of an earlier stream of the same group differ */
    group->blocks_total = mem->get(mem->ctx, n_ranks * sizeof(int64_t));
    group->blocks_said = mem->get(mem->ctx, n_ranks * sizeof(int64_t));
    group->blocks_free = mem->get(mem->ctx, n_ranks * sizeof(int64_t));
    group->counts = mem->get(mem->ctx, n_ranks * sizeof(int32_t));
    group->slots = mem->get(mem->ctx, (size_t)group->n_slots * sizeof(coord_slot));
    group->weight_bytes = mem->get(mem->ctx, n_ranks * sizeof(int64_t));
    group->exchange = mem->get(mem->ctx, hello->exchange.n_bytes + 1);
    if (group->blocks_total == NULL || group->blocks_said == NULL || group->blocks_free == NULL ||
        group->counts == NULL || group->slots == NULL || group->weight_bytes == NULL ||
        group->exchange == NULL) {
        st =
            BASE_FAIL(BASE_NO_MEMORY, "group of %zu ranks, %d slots", n_ranks, (int)group->n_slots);
        goto out;
    }
    copy_blocks(group->blocks_total, hello->blocks_total_per_rank, group->ranks);
    copy_blocks(group->blocks_said, group->blocks_total, group->ranks);
    copy_blocks(group->blocks_free, group->blocks_total, group->ranks);
    memcpy(group->weight_bytes, hello->weight_bytes_per_rank, n_ranks * sizeof(int64_t));
    if (hello->exchange.n_bytes > 0) {
        memcpy(group->exchange, hello->exchange.data, hello->exchange.n_bytes);
    }
    if (call != NULL) {
        rpc_call_ref(call);
        group->call = call;
    }
    *group_out = group;
    group = NULL;

out:
    coord_group_destroy(group);
    return st;
}

void coord_group_destroy(coord_group *group)
{
    if (group == NULL) {
        return;
    }
    const base_alloc mem = group->mem;
    if (group->call != NULL) {
        rpc_call_unref(group->call);
    }
    mem.put(mem.ctx, group->blocks_total);
    mem.put(mem.ctx, group->blocks_said);
    mem.put(mem.ctx, group->blocks_free);
    mem.put(mem.ctx, group->counts);
    mem.put(mem.ctx, group->slots);
    mem.put(mem.ctx, group->weight_bytes);
    mem.put(mem.ctx, group->exchange);
    mem.put(mem.ctx, group);
}

coord_room coord_group_room(const coord_group *group)
{
    return (coord_room){
        .open = group->gate == COORD_GATE_OPEN,
        .max_context = group->max_context,
        .free_slots = group->n_slots - group->n_open,
        .running = group->n_open,
        .n_ranks = group->ranks,
        .free_blocks = group->blocks_free,
    };
}

static void take_blocks(coord_group *group, const coord_slot *slot)
{
    const kv_run run = {.first_block = 0, .start_rank = slot->start_rank};
    kv_owner_count(&run, 1, 0, slot->n_blocks, group->ranks, group->counts);
    for (int32_t rank = 0; rank < group->ranks; rank++) {
        group->blocks_free[rank] -= group->counts[rank];
    }
}

static void estimate_free(coord_group *group)
{
    copy_blocks(group->blocks_free, group->blocks_said, group->ranks);
    for (int32_t i = 0; i < group->n_slots; i++) {
        if (group->slots[i].seq != 0 && !group->slots[i].answered) {
            take_blocks(group, &group->slots[i]);
        }
    }
}

coord_slot *coord_group_open_slot(coord_group *group, coord_request *request, int32_t start_rank,
                                  int64_t n_tokens)
{
    int32_t i = 0;
    while (group->slots[i].seq != 0) {
        i++;
    }
    const int64_t n_blocks = kv_blocks_of_tokens(n_tokens);
    coord_slot *slot = &group->slots[i];
    *slot = (coord_slot){
        .seq = ++group->n_admits * COORD_MAX_SLOTS + (uint64_t)i,
        .request = request,
        .start_rank = start_rank,
        .n_blocks = n_blocks < INT32_MAX ? (int32_t)n_blocks : INT32_MAX,
    };
    group->n_open++;
    take_blocks(group, slot);
    return slot;
}

coord_slot *coord_group_find(coord_group *group, uint64_t seq)
{
    const uint64_t i = seq % COORD_MAX_SLOTS;
    if (seq == 0 || i >= (uint64_t)group->n_slots || group->slots[i].seq != seq) {
        return NULL;
    }
    return &group->slots[i];
}

void coord_group_close_slot(coord_group *group, coord_slot *slot)
{
    const bool answered = slot->answered;
    *slot = (coord_slot){.seq = 0};
    group->n_open--;
    if (!answered) {
        estimate_free(group);
    }
}

base_status coord_group_take_admitted(coord_group *group, coord_slot *slot, int32_t start_rank)
{
    if (start_rank < 0 || start_rank >= group->ranks) {
        return BASE_FAIL(BASE_BAD_INPUT, "admitted.start_rank %d, the group has %d ranks",
                         (int)start_rank, (int)group->ranks);
    }
    slot->answered = true;
    slot->start_rank = start_rank;
    return BASE_OK;
}

void coord_group_take_refusal(coord_group *group)
{
    group->gate = COORD_GATE_REFUSED;
}

static int64_t total(const int64_t *blocks, int32_t ranks)
{
    int64_t sum = 0;
    for (int32_t rank = 0; rank < ranks; rank++) {
        sum += blocks[rank];
    }
    return sum;
}

base_status coord_group_take_load(coord_group *group, const group_up *load)
{
    if (load->n_blocks_free != (size_t)group->ranks) {
        return BASE_FAIL(BASE_BAD_INPUT, "load.blocks_free_per_rank has %zu counts for %d ranks",
                         load->n_blocks_free, (int)group->ranks);
    }
    const int64_t before = total(group->blocks_said, group->ranks);
    copy_blocks(group->blocks_said, load->blocks_free_per_rank, group->ranks);
    const bool more_room =
        load->running < group->running || total(group->blocks_said, group->ranks) > before;
    const bool idle = load->running == 0 && load->waiting == 0;
    if (group->gate == COORD_GATE_REFUSED) {
        group->gate = idle ? COORD_GATE_OPEN : COORD_GATE_FULL;
    } else if (group->gate == COORD_GATE_FULL && (more_room || idle)) {
        group->gate = COORD_GATE_OPEN;
    }
    group->running = load->running;
    group->waiting = load->waiting;
    estimate_free(group);
    return BASE_OK;
}

bool coord_group_is_silent(const coord_group *group, int64_t now_us)
{
    return now_us - group->heard_us >= COORD_SILENCE_US;
}
