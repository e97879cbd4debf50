/* worker/boot/choice.h - how ranks share the weights and exchange partials: what the command line says, or, where it says
 * "auto", what the machine can do.  Pure: all ranks choose alike from what they have shown each other.
 *
 * No measurement is behind "auto": `ropewalk doctor --tune` times what a machine can do (docs/groups.md). */
#ifndef WORKER_BOOT_CHOICE_H
#define WORKER_BOOT_CHOICE_H

#include "base/status.h"
#include "worker/boot/seats.h"

#include <stdbool.h>
#include <stdint.h>

#define CHOICE_TEXT 320

typedef struct choice_weights_case {
    const char *wish; /* auto, replicated or split */
    kern_device device;
    int32_t n_ranks;
    int64_t whole_bytes; /* of all weights */
    int64_t
        beside_bytes; /* that the rank with least may take beside them; below 0: they do not fit */
    int64_t cache_bytes;  /* the least of cache and scratch that is of use */
    const char *no_split; /* why the weights cannot be split; NULL: they can */
} choice_weights_case;

/* Whole weights on every rank, unless they leave no room for a cache and can be split.
 *   why_out  for the log
 * Errors: BAD_INPUT (whole weights that a GPU has no room for, asked for or because they cannot be split). */
BASE_MUST_CHECK base_status choice_of_weights(const choice_weights_case *c, bool *splits_out,
                                              char why_out[CHOICE_TEXT]);

/* lsa where every rank has a GPU of one host for itself, else NCCL; MPI on CPUs.  Whether the GPUs reach each other shows when
 * lsa is opened (transport.h).
 *   wish       auto, or one of COMM_WAYS
 *   merge_out  "mpi"; "nccl-ag", "nccl-ar" or "lsa"; with split weights "nccl-a2a" or "lsa"
 * Errors: BAD_INPUT naming the wish and what there is. */
BASE_MUST_CHECK base_status choice_of_merge(const seat_plan *plan, const char *wish, bool splits,
                                            const char **merge_out, char why_out[CHOICE_TEXT]);

#endif /* WORKER_BOOT_CHOICE_H */
