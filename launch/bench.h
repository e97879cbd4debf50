/* launch/bench.h - what the benchmarks of `ropewalk bench` share, and the benchmarks.
 *
 * Times come from one machine under whatever else runs on it: rivals are measured in turns within one run,
 * and medians are compared. */
#ifndef LAUNCH_BENCH_H
#define LAUNCH_BENCH_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/device.h"
#include "worker/bench/seqs.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define BENCH_MAX_RUNS     1000
#define BENCH_MAX_POLICIES 16
#define BENCH_MAX_COUNTS   8
#define BENCH_MAX_RANKS    16
#define BENCH_MAX_CONTEXT  (1 << 23)
#define BENCH_MAX_CONTEXTS 16

typedef struct bench_times {
    double us[BENCH_MAX_RUNS];
    int32_t n;
} bench_times;

void bench_times_add(bench_times *t, double us); /* beyond BENCH_MAX_RUNS: dropped */
/* q in 0..1 of the sorted runs; 0 without runs. */
double bench_times_at(bench_times *t, double q);

/* Bytes to touch so that nothing is left of them in caches: more than 4 times the last level. */
int64_t bench_cold_bytes(kern_device device);

/* Reads n_bytes (a multiple of 64 KiB) once with n_threads threads; microseconds.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status bench_read_memory(const void *bytes, int64_t n_bytes, int32_t n_threads,
                                              double *us_out);

/* A list "a;b;c" or "1,2": every part goes to take.  Errors: take's. */
BASE_MUST_CHECK base_status bench_list(const char *text, char separator, void *ctx,
                                       base_status (*take)(void *ctx, const char *part));

typedef struct bench_options {
    const char *shape_name;
    int32_t n_heads, n_kv_heads, head_dim; /* not step */
    const char *model;                     /* step, scale: folder */
    const char *wished_device, *merge;     /* scale: NULL: the ranks decide */
    const char *weights;                   /* scale: replicated or split */
    bool share_gpu;                        /* scale */
    bool prefill, whole, parts;            /* scale: prompts too; all of them; part by part */
    const char *policies[BENCH_MAX_POLICIES];
    int32_t n_policies;
    int32_t threads[BENCH_MAX_COUNTS];
    int32_t n_threads;         /* entries of threads */
    cpu_isa paths[CPU_N_ISAS]; /* attention, prefill: of the CPU kernels, side by side */
    int32_t n_paths;
    int32_t n_ranks;                      /* step, merge, scale */
    int64_t context;                      /* pack: of blocks that are filled at once */
    int64_t contexts[BENCH_MAX_CONTEXTS]; /* scale */
    int32_t n_contexts;
    int32_t batch;
    int32_t n_queries; /* of a sequence, after its context: 1 is decode */
    int32_t prefill_chunk;
    double seconds; /* of measuring, about */
    kern_device device;
    bool synthetic; /* step: the prompt is laid out, not computed */
    int64_t
        limit_ms; /* scale: ranks that take longer are ended, and what they log is read for errors; 0: never */
} bench_options;

/* A device to measure on: one context for each number of threads, and what its memory gives. */
typedef struct bench_device {
    kern_ctx *ctx[BENCH_MAX_COUNTS];
    kern_gpu gpu;            /* of a CUDA device */
    double read_gb, copy_gb; /* of a CUDA device: GB/s, see kern_gpu_bandwidth */
} bench_device;

/* Errors: BAD_INPUT, NO_MEMORY, DEVICE_LOST; what is there then is closed by bench_device_close. */
BASE_MUST_CHECK base_status bench_device_open(const bench_options *o, const base_alloc *mem,
                                              bench_device *device);
void bench_device_close(bench_device *device);

/* How long the device takes for ops(arg), which is recorded under owner where that can be done, and then run again.
 * Errors: those of ops, DEVICE_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status bench_time_ops(kern_ctx *ctx, const void *owner,
                                           base_status (*ops)(void *arg), void *arg,
                                           double *us_out);

/* Attention of one layer, decode or prefill, on bench_pages.h: *json_out describes the run.
 * Errors: BAD_INPUT, NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status bench_attention(const bench_options *o, const base_alloc *mem,
                                            json_t **json_out);
/* The page writer of one layer on as many blocks as the context has.  Errors: as bench_attention. */
BASE_MUST_CHECK base_status bench_pack(const bench_options *o, const base_alloc *mem,
                                       json_t **json_out);
/* The exchange of a layer between ranks that are processes, which mpirun starts, over every transport that they have:
 * *json_out is what worker/bench found.  Errors: UNAVAILABLE (the ranks failed, and said why), IO, NOT_FOUND. */
BASE_MUST_CHECK base_status bench_merge(const bench_options *o, const base_alloc *mem,
                                        json_t **json_out);
/* Decode steps of a model on ranks that are processes, and prompts where o->prefill, over contexts and policies, with what fits
 * and what each rank holds.
 * Errors: as bench_merge. */
BASE_MUST_CHECK base_status bench_scale(const bench_options *o, const base_alloc *mem,
                                        json_t **json_out);
/* A prompt and then decode steps of a model, op by op; ranks are threads of this process.
 * Errors: those of the parts. */
BASE_MUST_CHECK base_status bench_step(const bench_options *o, const base_alloc *mem,
                                       json_t **json_out);

#endif /* LAUNCH_BENCH_H */
