/* worker/model/resident.h - the weights of a model, bound to the context whose ops read them.
 *
 * On the CPU ops read weights where they are mapped.  A device takes its copy here, once for all that bind. */
#ifndef WORKER_MODEL_RESIDENT_H
#define WORKER_MODEL_RESIDENT_H

#include "kernels/kern.h"
#include "worker/model/model.h"

/* Errors: NO_MEMORY, DEVICE_LOST; nothing stays bound. */
BASE_MUST_CHECK base_status resident_bind(kern_ctx *ctx, const model *m);
void resident_unbind(kern_ctx *ctx, const model *m);

/* Bytes of all weights, each counted once: what a device needs for them. */
int64_t resident_bytes(const model *m);

#endif /* WORKER_MODEL_RESIDENT_H */
