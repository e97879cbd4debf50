/* worker/engine/lead.h - what only rank 0 does: commands in, plans and events out.
 *
 * Owns ledger and scheduler; knows nothing of other ranks, model or bytes.  One step is
 *   lead_plan, lead_picks, (all ranks run it), lead_commit.
 * The next step may be planned before the one before is committed, LEAD_MAX_STEPS at once: a sequence that decodes
 * goes on from a token that nobody has seen yet.  If that token ends it, what later steps make of it is passed over;
 * so is what they make of a cancelled one.
 * Threads.  One owner: the step loop.  Only an ADMIT command allocates. */
#ifndef WORKER_ENGINE_LEAD_H
#define WORKER_ENGINE_LEAD_H

#include "worker/engine/engine.h"
#include "worker/engine/pace.h"
#include "worker/engine/plan.h"

typedef struct lead lead;

/* Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status lead_create(const engine_options *options, int32_t n_ranks,
                                        int32_t n_vocab, const base_alloc *mem, lead **lead_out);
void lead_destroy(lead *l); /* NULL is allowed */

/* Carries out a command; answers go to io->emit. */
void lead_take(lead *l, const engine_io *io, const group_down *down);
/* A DRAIN came and nothing runs any more. */
bool lead_drained(const lead *l);

#define LEAD_MAX_STEPS 2 /* planned and not committed */

/* Lays out the next step, its prompts' part by the pace of the latest ones.  False: nothing can run now, plan is unchanged. */
bool lead_plan(lead *l, const step_pace *pace, uint64_t step, step_plan *plan);
/* How the tokens of the step planned last are made, in order of its sampling sequences: picks_out [max_batch],
 * borrowed by them until the next command.  Returns their number. */
int32_t lead_picks(const lead *l, forward_pick *picks_out);
/* The step planned first is done: moves its sequences on and reports; ends those that end. */
void lead_commit(lead *l, const engine_io *io, const forward_made *made);

/* Reports the load if it changed or was last reported ENGINE_HEARTBEAT_MS ago. */
void lead_report_load(lead *l, const engine_io *io, int64_t now_us);

#endif /* WORKER_ENGINE_LEAD_H */
