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

struct kern_ctx {
    const kern_backend *backend; /* chosen once, when the engine starts */
    void *state;                 /* the backend's: streams, scratch */
    base_alloc mem;
};

/* Each backend defines one function per op, found here by name. */
#define X(op) base_status kern_cpu_##op(kern_ctx *ctx, const kern_##op##_args *args);
#include "kernels/ops.def"
#undef X

extern const kern_backend kern_cpu_backend;

#endif /* KERNELS_BACKEND_H */
