/* coordinator/request.h - one Generate call, from its arrival to its end.
 *
 *   QUEUED -> ADMITTED -> RUNNING -> ended          Admit sent; Admitted came; Finished sent
 *     ^---------+-----------+                       refused for now, or the group is lost
 *                           RUNNING -> STOPPED      a stop string: cancelled at the group, which
 *                                                   still owes the Ended with its blocks
 *
 * It holds all that a replay needs: the prompt, the tokens that the client has, the seed.  The text
 * stream stays as it is over a replay, so the client's text goes on where it was.
 *
 * Memory.   8 bytes a token of prompt and output, at most max_context of them, and the stops.
 * Credit.   The group may send `window` tokens more.  A token that goes to the client is `in_flight`
 *           until it has left the queue of the call; then it is `returnable` to the group.  The three
 *           add up to COORD_WINDOW at most, over replays too.
 * Pure but for the call it keeps a reference of.  Threads.  One at a time (the coordinator's mutex). */
#ifndef COORDINATOR_REQUEST_H
#define COORDINATOR_REQUEST_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "coordinator/admission.h"
#include "coordinator/groups.h"
#include "coordinator/model.h"
#include "coordinator/text/stream.h"
#include "proto/inference_codec.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stdint.h>

#define COORD_WINDOW         64 /* tokens that a group may be ahead of the client */
#define COORD_CREDIT_LEAST   16 /* smaller returns are saved up: fewer messages, and no stall */
#define COORD_MAX_EVENT      ((size_t)4 << 20)
#define COORD_MAX_PLACEMENTS 8 /* in a row without a token: such a request kills its groups */

typedef enum coord_request_state {
    COORD_REQUEST_QUEUED,
    COORD_REQUEST_ADMITTED,
    COORD_REQUEST_RUNNING,
    COORD_REQUEST_STOPPED,
} coord_request_state;

struct coord_request {
    coord_ticket ticket; /* first: the queue's tickets are requests */
    coord_request_state state;
    rpc_call *call;           /* one reference; NULL in unit tests */
    const coord_model *model; /* borrowed */
    coord_group *group;       /* NULL while queued */
    uint64_t seq;             /* at the group */

    int32_t *prompt; /* [n_prompt] */
    size_t n_prompt;
    int32_t *made; /* [n_made]; all of them have gone to the client */
    size_t n_made;
    size_t made_capacity;
    inference_sampling sampling;
    int32_t max_new_tokens;
    int32_t *stop_ids; /* [n_stop_ids] */
    size_t n_stop_ids;
    char *stop_texts; /* backs stops */
    base_view stops[INFERENCE_MAX_STOPS];
    size_t n_stops;
    int stop; /* the one that ended the text; -1 */
    bool ignore_eos;
    int32_t logprobs;
    text_stream *text;

    int32_t window, in_flight, returnable;
    int32_t n_placements; /* since the last token */

    int64_t arrived_us;
    int64_t admitted_us; /* 0: not yet; the first time counts */
    int64_t first_token_us;
    int64_t last_token_us;
    int64_t stopped_us;
    base_alloc mem;
};

/* Makes a queued request of a decoded message.  Everything needed of wire and prompt is copied.
 * drawn_seed is used when the client gave none.
 * Errors: BAD_INPUT (an id outside the vocabulary, no prompt), OUT_OF_RANGE (prompt and output above
 * max_context), NO_MEMORY. */
BASE_MUST_CHECK base_status coord_request_create(const coord_model *model,
                                                 const inference_generate_request *wire,
                                                 const int32_t *prompt, size_t n_prompt,
                                                 int64_t max_context, uint64_t drawn_seed,
                                                 int64_t now_us, const base_alloc *mem,
                                                 coord_request **request_out);
void coord_request_destroy(coord_request *request); /* NULL is allowed */

/* The Admit of this request, as bytes: replays carry the tokens already sent.  Opens the window.
 * Errors: NO_MEMORY, OUT_OF_RANGE (message limit). */
BASE_MUST_CHECK base_status coord_request_encode_admit(coord_request *request, uint64_t seq,
                                                       int32_t start_rank, base_bytes *out);

/* Takes a TOKENS message and appends the client's event to *event_out; *n_taken_out is how many
 * tokens it holds: all, or those up to the one that completed a stop string, and then request->stop
 * says which.
 * Errors: BAD_INPUT (past the window or max_new_tokens, an id outside the vocabulary), NO_MEMORY,
 * OUT_OF_RANGE (event limit).  After an error the request can only be ended. */
BASE_MUST_CHECK base_status coord_request_take_tokens(coord_request *request, const group_up *up,
                                                      int64_t now_us, base_bytes *event_out,
                                                      int32_t *n_taken_out);
/* The client's queue is empty: what was in flight has left.  Returns the credit to send now, 0 for
 * none. */
int32_t coord_request_take_drained(coord_request *request);

/* Would the group have ended it after the tokens it has?  The reason and the token that says so; a
 * lost group may have taken its Ended along. */
inference_finish_reason coord_request_is_complete(const coord_request *request,
                                                  int32_t *stop_id_out);

/* The text held back so far, as a TOKENS event without ids; nothing is added if there is none. */
BASE_MUST_CHECK base_status coord_request_encode_rest(coord_request *request,
                                                      base_bytes *event_out);
/* blocks_per_rank may be NULL when unknown; ranks is the group's. */
BASE_MUST_CHECK base_status coord_request_encode_finished(const coord_request *request,
                                                          inference_finish_reason reason,
                                                          int32_t stop_id, int32_t ranks,
                                                          const int32_t *blocks_per_rank,
                                                          size_t n_blocks_per_rank, int64_t now_us,
                                                          base_bytes *event_out);

#endif /* COORDINATOR_REQUEST_H */
