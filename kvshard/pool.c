#include "kvshard/pool.h"

#include <assert.h>
#include <stdbool.h>

struct kv_pool {
    int32_t *free_pages; /* [n_pages]; the first n_free are free, the last of them goes out next */
    bool *in_use;        /* [n_pages] */
    int32_t n_pages;
    int32_t n_free;
    base_alloc mem;
};

base_status kv_pool_create(int32_t n_pages, const base_alloc *mem, kv_pool **pool_out)
{
    base_status st = BASE_OK;
    kv_pool *pool = NULL;

    if (n_pages < 1 || n_pages > KV_MAX_PAGES) {
        st = BASE_FAIL(BASE_BAD_INPUT, "pool: n_pages is %d, allowed 1..%d", n_pages, KV_MAX_PAGES);
        goto out;
    }
    pool = mem->get(mem->ctx, sizeof *pool);
    if (pool == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "pool");
        goto out;
    }
    pool->mem = *mem;
    pool->free_pages = mem->get(mem->ctx, (size_t)n_pages * sizeof *pool->free_pages);
    pool->in_use = mem->get(mem->ctx, (size_t)n_pages * sizeof *pool->in_use);
    if (pool->free_pages == NULL || pool->in_use == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "pool of %d pages", n_pages);
        goto out;
    }
    pool->n_pages = n_pages;
    pool->n_free = n_pages;
    for (int32_t i = 0; i < n_pages; i++) {
        pool->free_pages[i] = n_pages - 1 - i; /* so that page 0 goes out first */
    }
    *pool_out = pool;
    pool = NULL;

out:
    kv_pool_destroy(pool);
    return st;
}

void kv_pool_destroy(kv_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    const base_alloc mem = pool->mem;
    mem.put(mem.ctx, pool->in_use);
    mem.put(mem.ctx, pool->free_pages);
    mem.put(mem.ctx, pool);
}

base_status kv_pool_take(kv_pool *pool, int32_t *page_out)
{
    if (pool->n_free == 0) {
        return BASE_EXHAUSTED;
    }
    const int32_t page = pool->free_pages[--pool->n_free];
    pool->in_use[page] = true;
    *page_out = page;
    return BASE_OK;
}

void kv_pool_release(kv_pool *pool, int32_t page)
{
    assert(page >= 0 && page < pool->n_pages && pool->in_use[page]);
    pool->in_use[page] = false;
    pool->free_pages[pool->n_free++] = page;
}

int32_t kv_pool_n_free(const kv_pool *pool)
{
    return pool->n_free;
}
