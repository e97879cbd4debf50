/* worker/engine/options.h - the command line of ropewalk-worker. */
#ifndef WORKER_ENGINE_OPTIONS_H
#define WORKER_ENGINE_OPTIONS_H

#include "base/log.h"
#include "base/status.h"
#include "kvshard/policy.h"

#include <stdbool.h>
#include <stdint.h>

#define WORKER_MAX_PATH_BYTES 4096

typedef struct worker_options {
    bool help;                                /* asked for: nothing else was checked */
    char coordinator[WORKER_MAX_PATH_BYTES];  /* HOST:PORT or unix:PATH */
    char model[WORKER_MAX_PATH_BYTES];        /* folder */
    char rope_scaling[WORKER_MAX_PATH_BYTES]; /* JSON or "none"; empty: the model's */
    kv_policy policy;
    char policy_text[WORKER_MAX_PATH_BYTES]; /* what it was made from: calib= may be in it */
    int32_t n_threads;                       /* 0: cores / ranks of this host */
    int32_t max_batch;
    int64_t max_context; /* 0: what fits */
    int32_t prefill_chunk;
    int32_t n_pages; /* of each rank; 0: by kv_memory_fraction */
    double kv_memory_fraction;
    base_log_level log_level;
} worker_options;

/* Errors: BAD_INPUT naming the option, its value and what is allowed. */
BASE_MUST_CHECK base_status worker_options_parse(int argc, const char **argv,
                                                 worker_options *options_out);

/* The text of --help: one static string. */
const char *worker_options_help(void);

#endif /* WORKER_ENGINE_OPTIONS_H */
