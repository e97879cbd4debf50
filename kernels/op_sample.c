#include "kernels/op_sample.h"

#include "kernels/backend.h"

static base_status check_row(const kern_sample_args *args, int32_t r)
{
    const kern_sample_row *row = &args->rows[r];
    if (row->slot < 0 || row->slot >= args->n_slots) {
        return BASE_FAIL(BASE_BAD_INPUT, "sample: row %d has slot %d, allowed 0..%d", r, row->slot,
                         args->n_slots - 1);
    }
    if (!(row->temperature >= 0.0f) || !(row->top_p > 0.0f) || !(row->penalty > 0.0f) ||
        row->top_k < 0) {
        return BASE_FAIL(
            BASE_BAD_INPUT, "sample: row %d has temperature %g, top_p %g, penalty %g, top_k %d", r,
            (double)row->temperature, (double)row->top_p, (double)row->penalty, row->top_k);
    }
    if (row->n_top < 0 || row->n_top > KERN_SAMPLE_MAX_TOP || row->n_top > args->n_vocab) {
        return BASE_FAIL(BASE_BAD_INPUT, "sample: row %d has n_top %d of %d, allowed 0..%d", r,
                         row->n_top, args->n_vocab, KERN_SAMPLE_MAX_TOP);
    }
    if ((row->penalty != 1.0f && args->seen == NULL) || (row->n_top > 0 && args->reports == NULL)) {
        return BASE_FAIL(BASE_BAD_INPUT, "sample: row %d needs seen or reports, which are NULL", r);
    }
    return BASE_OK;
}

base_status kern_sample(struct kern_ctx *ctx, const kern_sample_args *args)
{
    if (args->n_rows < 0 || args->n_rows > args->n_slots || args->n_vocab < 1 ||
        args->n_vocab > KERN_SAMPLE_MAX_VOCAB) {
        return BASE_FAIL(BASE_BAD_INPUT, "sample of %d rows of %d ids, allowed %d rows, %d ids",
                         args->n_rows, args->n_vocab, args->n_slots, KERN_SAMPLE_MAX_VOCAB);
    }
    for (int32_t r = 0; r < args->n_rows; r++) {
        const base_status st = check_row(args, r);
        if (st != BASE_OK) {
            return st;
        }
    }
    return ctx->backend->sample(ctx, args);
}
