/* tests/soak/stall.h - an op that now and then keeps the device busy for a while, as long as chance wills: another time at
 * each replay of what was recorded. */
#ifndef TESTS_SOAK_STALL_H
#define TESTS_SOAK_STALL_H

#include "base/status.h"
#include "kernels/kern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One of 16 calls takes up to 3 ms.  Errors: BAD_INPUT (a context that is not on a GPU), DEVICE_LOST. */
base_status stall(kern_ctx *ctx, int rank);

#ifdef __cplusplus
}
#endif
#endif /* TESTS_SOAK_STALL_H */
