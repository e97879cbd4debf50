#include "coordinator/text/ids.h"

void text_ids_init(text_ids *ids, const base_alloc *mem)
{
    *ids = (text_ids){.mem = *mem};
}

void text_ids_reset(text_ids *ids)
{
    ids->mem.put(ids->mem.ctx, ids->ids);
    ids->ids = NULL;
    ids->n_ids = 0;
    ids->capacity = 0;
}

base_status text_ids_add(text_ids *ids, const int32_t *more, size_t n_more)
{
    if (n_more > ids->capacity - ids->n_ids) {
        size_t capacity = ids->capacity < 64 ? 64 : 2 * ids->capacity;
        if (capacity < ids->n_ids + n_more) {
            capacity = ids->n_ids + n_more;
        }
        int32_t *grown = ids->mem.get(ids->mem.ctx, capacity * sizeof *grown);
        if (grown == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "%zu token ids", capacity);
        }
        if (ids->n_ids > 0) {
            memcpy(grown, ids->ids, ids->n_ids * sizeof *grown);
        }
        ids->mem.put(ids->mem.ctx, ids->ids);
        ids->ids = grown;
        ids->capacity = capacity;
    }
    if (n_more > 0) {
        memcpy(ids->ids + ids->n_ids, more, n_more * sizeof *more);
    }
    ids->n_ids += n_more;
    return BASE_OK;
}
