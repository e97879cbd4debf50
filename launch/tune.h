/* launch/tune.h - decode steps with every way that ranks can share weights and exchange partials here, side by side. */
#ifndef LAUNCH_TUNE_H
#define LAUNCH_TUNE_H

#include "launch/bench.h"

/* Times o's model, policy and contexts on o->n_ranks for each --merge and --weights in turn, each in processes of its own that
 * have a minute to end, prints a line for each, why it is not to be had where it is not, and last the options to use: what fits
 * most contexts, and of these the shortest steps.
 * Errors: UNAVAILABLE (nothing could be timed), and those of the parts. */
BASE_MUST_CHECK base_status tune_print(const bench_options *o, const base_alloc *mem);

#endif /* LAUNCH_TUNE_H */
