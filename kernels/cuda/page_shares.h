/* kernels/cuda/page_shares.h - how decode attention's work is divided among the KV heads of a layer (attn_job.cuh): by what
 * their pages cost a core, which are their bytes, but of pages that a core works on for longer than it reads them.
 *
 * Such a page costs what it takes.  What it leaves of the memory's time, others have: they cost less than their bytes, in
 * proportion to them.  So the costs of all heads are the bytes of all, and those of heads of one format their bytes.
 * Host only, any thread. */
#ifndef KERNELS_CUDA_PAGE_SHARES_H
#define KERNELS_CUDA_PAGE_SHARES_H

#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* units_out [n_heads]: of a page of each head, in CUDA_UNIT_BYTES (formats.h), at least 1.  coded: the integer kernel
 * reads them; of others only bytes are known. */
void kern_page_shares(const kern_head_format *formats, int32_t n_heads, bool coded,
                      int32_t *units_out);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_PAGE_SHARES_H */
