/* kernels/backend.h - the seam between the front door of an op and its implementations.
 * Only files under kernels/ and tests/parity/ include it.
 *
 * A front door (op_foo.c) has checked every limit stated in op_foo.h before it calls through the
 * table.  A backend therefore holds arithmetic and launches, nothing else.  No entry is NULL. */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "kernels/kern.h"

typedef struct kern_backend {
    const char *name; /* "cpu" */
#define X(op) base_status (*op)(kern_ctx * ctx, const kern_##op##_args *args);
#include "kernels/ops.def"
#undef X
    void (*destroy)(kern_ctx *ctx);
} kern_backend;

/* Memory that the host cannot touch, behind memory.h, whose words these are. */
typedef struct kern_far {
    void *ctx;
    base_alloc memory;
    base_alloc mirror;
    base_status (*send)(void *ctx, const void *mirror, size_t n_bytes);
    base_status (*fetch)(void *ctx, void *mirror, size_t n_bytes);
    base_status (*fetch_begin)(void *ctx, const void *mirror, size_t n_bytes, void *to);
    base_status (*fetch_end)(void *ctx);
    base_status (*bind)(void *ctx, const void *bytes, size_t n_bytes);
    base_status (*bind_formats)(void *ctx, const kern_head_format *formats, int32_t n_layers,
                                int32_t n_kv_heads);
    void (*unbind)(void *ctx, const void *bytes);
    base_status (*wait)(void *ctx);
} kern_far;

/* Behind replay.h and stopwatch.h. */
typedef struct kern_recorder {
    base_status (*replay)(kern_ctx *ctx, const kern_replay_key *key, bool *done_out);
    base_status (*begin)(kern_ctx *ctx);
    base_status (*end)(kern_ctx *ctx, const kern_replay_key *key, base_status st);
    base_status (*start)(kern_ctx *ctx);
    base_status (*stop)(kern_ctx *ctx, double *us_out);
} kern_recorder;

struct kern_ctx {
    const kern_backend *backend; /* chosen once, when the engine starts */
    void *state;                 /* the backend's: streams, scratch */
    base_alloc mem;
    const kern_far *far; /* NULL: ops work on the host's memory, and mem serves memory.h */
    const kern_recorder *recorder; /* NULL: ops run as they are called */
};

/* Each backend defines one function per op, found here by name. */
#define X(op) base_status kern_cpu_##op(kern_ctx *ctx, const kern_##op##_args *args);
#include "kernels/ops.def"
#undef X

extern const kern_backend kern_cpu_backend;

#endif /* KERNELS_BACKEND_H */
