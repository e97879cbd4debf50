#include "coordinator/placement.h"

#include "kvshard/owner.h"

static int32_t emptiest_rank(const coord_room *room)
{
    int32_t best = 0;
    for (int32_t rank = 1; rank < room->n_ranks; rank++) {
        best = room->free_blocks[rank] > room->free_blocks[best] ? rank : best;
    }
    return best;
}

static int64_t total_free(const coord_room *room)
{
    int64_t total = 0;
    for (int32_t rank = 0; rank < room->n_ranks; rank++) {
        total += room->free_blocks[rank];
    }
    return total;
}

/* -1: no room now. */
static int32_t start_rank_in(const coord_room *room, int64_t n_tokens)
{
    if (!room->open || room->free_slots < 1) {
        return -1;
    }
    const int32_t start =
        kv_owner_place(room->free_blocks, room->n_ranks, kv_blocks_of_tokens(n_tokens));
    return start < 0 && room->running == 0 ? emptiest_rank(room) : start;
}

coord_fit coord_placement_choose(const coord_room *rooms, int32_t n_rooms, int64_t n_tokens,
                                 coord_place *place_out)
{
    coord_fit fit = COORD_FIT_NEVER;
    coord_place best = {.room = -1};

    for (int32_t i = 0; i < n_rooms; i++) {
        const coord_room *room = &rooms[i];
        if (room->max_context < n_tokens) {
            continue;
        }
        if (fit == COORD_FIT_NEVER) {
            fit = COORD_FIT_LATER;
        }
        const int32_t start = start_rank_in(room, n_tokens);
        if (start < 0) {
            continue;
        }
        if (best.room >= 0) {
            const coord_room *other = &rooms[best.room];
            const int64_t more = total_free(room) - total_free(other);
            if (more < 0 || (more == 0 && room->running >= other->running)) {
                continue;
            }
        }
        best = (coord_place){.room = i, .start_rank = start};
        fit = COORD_FIT_NOW;
    }
    if (fit == COORD_FIT_NOW) {
        *place_out = best;
    }
    return fit;
}
