/* kernels/memory.h - the memory that ops work on.
 *
 * Every pointer in an op's args points into memory that its context knows:
 *   kern_memory   only ops touch it: pages, rows
 *   kern_mirror   host memory that ops read and write too, at the host's addresses: descriptors of a step, ids,
 *                 activations, logits.  What the host has written reaches ops by kern_send, what ops have
 *                 written reaches the host by kern_fetch
 *   kern_bind     host memory that nobody writes any more: weights
 *   kern_bind_formats  head formats [n_layers][n_kv_heads], with the codebooks, signs and orders that they point
 *                 to; an op is given those of a layer
 * On the CPU ops work on host memory itself: all four are the heap, send, fetch and bind have nothing to do, and a
 * fetch in two parts is a copy at its begin.
 * Elsewhere a mirror has a twin of its size on the device, and an op given any other pointer returns BAD_INPUT.
 * Threads.  Those of the context: one. */
#ifndef KERNELS_MEMORY_H
#define KERNELS_MEMORY_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/page.h"

#include <stddef.h>
#include <stdint.h>

struct kern_ctx;

/* Zeroed; NULL when the device is full.  Ends before the context does. */
const base_alloc *kern_memory(struct kern_ctx *ctx);
const base_alloc *kern_mirror(struct kern_ctx *ctx);

/* Ops called from now on see bytes of a mirror as they are now; the host may write them again at once.  0 bytes
 * are allowed.
 * Errors: BAD_INPUT (not within one mirror), DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_send(struct kern_ctx *ctx, const void *mirror, size_t n_bytes);
/* Waits for the ops called so far; then the host sees what they wrote.  Errors: as kern_send. */
BASE_MUST_CHECK base_status kern_fetch(struct kern_ctx *ctx, void *mirror, size_t n_bytes);

/* The same in two parts, for who has more ops to call meanwhile: begin notes the mirror's bytes as the ops called so
 * far leave them, and once end returns they are in `to`, host memory that is not the mirror.  Ends come in the order
 * of begins, of which KERN_MAX_FETCHES may be open.  Errors: BAD_INPUT (as kern_send; one too many, none to end),
 * NO_MEMORY, DEVICE_LOST. */
#define KERN_MAX_FETCHES 2
BASE_MUST_CHECK base_status kern_fetch_begin(struct kern_ctx *ctx, const void *mirror,
                                             size_t n_bytes, void *to);
BASE_MUST_CHECK base_status kern_fetch_end(struct kern_ctx *ctx);

/* Ops may be given any pointer into bytes, until it is unbound as often as it was bound.
 * Errors: BAD_INPUT (overlaps something else that is bound; a format that the device has no kernels for),
 * NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_bind(struct kern_ctx *ctx, const void *bytes, size_t n_bytes);
BASE_MUST_CHECK base_status kern_bind_formats(struct kern_ctx *ctx, const kern_head_format *formats,
                                              int32_t n_layers, int32_t n_kv_heads);
void kern_unbind(struct kern_ctx *ctx,
                 const void *bytes); /* what was not bound, or NULL: nothing */

/* Waits for the ops called so far, and returns what went wrong in them.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_wait(struct kern_ctx *ctx);

#endif /* KERNELS_MEMORY_H */
