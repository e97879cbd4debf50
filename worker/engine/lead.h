/* worker/engine/lead.h - what only rank 0 does: commands in, plans and events out.
 *
 * Owns ledger, scheduler and sampler; knows nothing of other ranks, model or bytes.  One step is
 *   lead_plan, (all ranks run it), lead_sample, (ids reach all ranks), lead_commit.
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

/* Lays out the next step, its prompts' part by the pace of the latest ones.  False: nothing can run now, plan is unchanged. */
bool lead_plan(lead *l, const step_pace *pace, uint64_t step, step_plan *plan);
/* logits [n_samples, V] in order of the plan's sampling sequences; ids_out [n_samples]. */
void lead_sample(lead *l, const step_plan *plan, const float *logits, int32_t *ids_out);
/* The step is done everywhere: moves the sequences on and reports; ends those that end. */
void lead_commit(lead *l, const engine_io *io, const step_plan *plan, const float *logits,
                 const int32_t *ids);

/* Reports the load if it changed or was last reported ENGINE_HEARTBEAT_MS ago. */
void lead_report_load(lead *l, const engine_io *io, int64_t now_us);

#endif /* WORKER_ENGINE_LEAD_H */
