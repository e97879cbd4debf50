#include "kernels/op_pack.h"

#include "kernels/backend.h"
#include "kernels/format_check.h"

base_status kern_pack_pages(struct kern_ctx *ctx, const kern_pack_args *args)
{
    base_status st = BASE_OK;

    if (args->n_packs < 0 || args->n_kv_heads < 1 || args->formats == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "pack: %d blocks of %d KV heads", args->n_packs,
                         args->n_kv_heads);
    }
    BASE_TRY(st, out,
             kern_formats_check_pages("pack", args->formats, args->n_kv_heads,
                                      args->formats[0].head_dim, args->page_stride));
    for (int32_t i = 0; i < args->n_packs; i++) {
        const kern_pack *p = &args->packs[i];
        if (p->open < 0 || p->open >= args->n_opens || p->page < 0 || p->page >= args->n_pages) {
            st = BASE_FAIL(BASE_BAD_INPUT, "pack %d: open %d of %d to page %d of %d", i, p->open,
                           args->n_opens, p->page, args->n_pages);
            goto out;
        }
    }
    st = ctx->backend->pack(ctx, args);
out:
    return st;
}
