/* launch/bench_gemm.h - the GEMMs of a layer's step against the library alone. */
#ifndef LAUNCH_BENCH_GEMM_H
#define LAUNCH_BENCH_GEMM_H

#include "base/alloc.h"
#include "base/status.h"
#include "worker/model/model.h"

#include <jansson.h>

/* The seven products of layer 0 with n_rows rows on one thread: kern_gemm on the weights as they are, and one sgemm
 * call on the same weights made f32 beforehand, in turns; the least of several times each.
 * Errors: NO_MEMORY, those of kern_gemm. */
BASE_MUST_CHECK base_status bench_gemm(const model *m, int32_t n_rows, const base_alloc *mem,
                                       json_t **json_out);

#endif /* LAUNCH_BENCH_GEMM_H */
