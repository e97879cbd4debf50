#include "kernels/cpu/cpu_page.h"
#include "kernels/cpu/cpu_state.h"

#include <string.h>

/* One head of one block. */
static void pack_head(void *arg, int32_t task, int32_t thread)
{
    const kern_pack_args *a = arg;
    const kern_pack *p = &a->packs[task / a->n_kv_heads];
    const int32_t head = task % a->n_kv_heads;
    const kern_head_format *f = &a->formats[head];
    const int64_t side = (int64_t)KERN_BLOCK_TOKENS * f->head_dim;
    const uint16_t *rows = a->opens[p->open].rows + head * 2 * side;
    uint8_t *bytes = a->pages + p->page * a->page_stride + f->offset;
    (void)thread;

    memset(bytes, 0, (size_t)f->head_page_bytes); /* padding */
    cpu_side_encode(&f->k, f->head_dim, rows, bytes);
    cpu_side_encode(&f->v, f->head_dim, rows + side, bytes);
}

base_status kern_cpu_pack(kern_ctx *ctx, const kern_pack_args *a)
{
    kern_pack_args args = *a;
    cpu_pool_run(cpu_state_of(ctx)->pool, a->n_packs * a->n_kv_heads, pack_head, &args);
    return BASE_OK;
}
