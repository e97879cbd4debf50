/* worker/engine/options.h - the command line of ropewalk-worker. */
#ifndef WORKER_ENGINE_OPTIONS_H
#define WORKER_ENGINE_OPTIONS_H

#include "base/log.h"
#include "base/options.h"
#include "base/status.h"
#include "kernels/device.h"
#include "kvshard/policy.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct worker_options {
    const char *coordinator;  /* HOST:PORT or unix:PATH */
    const char *model;        /* folder, or random:SHAPE */
    const char *rope_scaling; /* JSON or "none"; NULL: the model's */
    const char *policy_text;  /* calib= may be in it */
    kv_policy policy;         /* made from it */
    const char *device;       /* cpu or cuda; NULL: seats.h decides */
    const char *merge;        /* how ranks exchange tensors; these two: choice.h */
    const char *weights;      /* auto, replicated or split */
    bool share_gpu;           /* several ranks on one GPU: for tests */
    int32_t n_threads;        /* 0: cores / ranks of this host */
    int32_t max_batch;
    int64_t max_context;       /* 0: what fits */
    int32_t prefill_chunk;     /* 0: what the device likes, worker_options_settle */
    int32_t n_pages;           /* of each rank; 0: by kv_memory_fraction */
    double kv_memory_fraction; /* 0: 0.3 of the host's, 0.9 of a GPU's */
    const char *log_level_text;
    base_log_level log_level; /* made from it */
} worker_options;

/* Texts live in *line_out, which the caller ends with base_options_reset whatever this returned.  With
 * line_out->help, *options_out holds the defaults and nothing else was checked.
 * Errors: BAD_INPUT naming the option, its value and what is allowed; NO_MEMORY. */
BASE_MUST_CHECK base_status worker_options_parse(int argc, const char *const *argv,
                                                 const base_alloc *mem, base_options *line_out,
                                                 worker_options *options_out);

/* Fills in what hangs on the device that ranks have.  On a GPU a chunk of few hundred rows leaves cores without attention and
 * products without rows; on a CPU a longer one gains nothing. */
void worker_options_settle(worker_options *options, kern_device device);

/* Writes the text of --help; from holds the defaults. */
void worker_options_help(const worker_options *from, FILE *out);

#endif /* WORKER_ENGINE_OPTIONS_H */
