/* kvshard/pool.h - page ids of one rank: who has which.
 *
 * Ids 0..n_pages-1.  The pool never touches bytes.  Rank 0's ledger holds one for every rank.
 * Threads.  One owner.  Time: O(1) a call; none but create allocates. */
#ifndef KVSHARD_POOL_H
#define KVSHARD_POOL_H

#include "base/alloc.h"
#include "base/status.h"

#include <stdint.h>

#define KV_MAX_PAGES (1 << 24)

typedef struct kv_pool kv_pool;

/* n_pages 1..KV_MAX_PAGES.  Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status kv_pool_create(int32_t n_pages, const base_alloc *mem,
                                           kv_pool **pool_out);
void kv_pool_destroy(kv_pool *pool); /* NULL is allowed */

/* Lowest ids first after create.  Errors: EXHAUSTED (bare). */
BASE_MUST_CHECK base_status kv_pool_take(kv_pool *pool, int32_t *page_out);
/* page must be in use; asserts. */
void kv_pool_release(kv_pool *pool, int32_t page);
int32_t kv_pool_n_free(const kv_pool *pool);

#endif /* KVSHARD_POOL_H */
