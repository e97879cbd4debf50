/* coordinator/placement.h - which group takes a sequence, and where its blocks start.
 *
 * Pure: structs in, a choice out.  It is a proposal; rank 0 of the group holds the ledger and
 * corrects or refuses it.  Any thread. */
#ifndef COORDINATOR_PLACEMENT_H
#define COORDINATOR_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#define COORD_BLOCK_TOKENS 128

/* What one group has to give. */
typedef struct coord_room {
    int64_t max_context;        /* tokens of one sequence */
    const int64_t *free_blocks; /* [n_ranks] */
    int32_t n_ranks;            /* >= 1 */
    int32_t free_slots;         /* sequences it can still take */
    int32_t running;            /* sequences it has; 0 = idle */
    bool open;                  /* takes sequences now */
} coord_room;

typedef enum coord_fit {
    COORD_FIT_NOW,
    COORD_FIT_LATER, /* a group could hold it, but has no slot or blocks now */
    COORD_FIT_NEVER, /* no group is long enough (or there is none) */
} coord_fit;

typedef struct coord_place {
    int32_t room; /* index */
    int32_t start_rank;
} coord_place;

/* Places a sequence that may grow to n_tokens: the group with the most free blocks, then the fewest
 * running, then the first; the start rank is the emptiest.  An idle group is asked even when its
 * blocks seem too few: only its ledger knows what the prefix cache could give back.
 * *place_out is written only for COORD_FIT_NOW.  O(n_rooms * n_ranks^2). */
coord_fit coord_placement_choose(const coord_room *rooms, int32_t n_rooms, int64_t n_tokens,
                                 coord_place *place_out);

#endif /* COORDINATOR_PLACEMENT_H */
