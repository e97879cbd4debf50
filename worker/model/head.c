#include "worker/model/head.h"

int32_t head_pieces(const model_config *config, const model_split *split)
{
    return model_is_split(split) ? config->n_vocab / split->vocab_unit : 0;
}

/* Pieces that the rank with the most ids has of a row. */
static int32_t pieces_of_share(const model_split *split)
{
    return split->vocab_longest / split->vocab_unit;
}

/* Rank r's share is [n, Vr], in room for n rows of the longest. */
void head_lay_out(const model_config *config, const model_split *split, int32_t n,
                  int32_t *pieces_out)
{
    int32_t *piece = pieces_out;
    for (int32_t row = 0; row < n && model_is_split(split); row++) {
        for (int32_t r = 0; r < split->n_ranks; r++) {
            const model_span ids = model_split_vocab(split, config->n_vocab, r);
            const int32_t own = model_span_count(ids) / split->vocab_unit;
            for (int32_t i = 0; i < own; i++) {
                *piece++ = r * n * pieces_of_share(split) + row * own + i;
            }
        }
    }
}

/* Every rank's logits of its own ids reach every rank; where they are wanted the pieces become rows. */
static base_status gather(const block_step *b, const model *m, const head_rows *rows,
                          const float *mine)
{
    const model_split *split = &m->split;
    const size_t share = (size_t)rows->n * (size_t)split->vocab_longest * sizeof(float);
    const kern_embed_args together = {
        .ids = rows->pieces,
        .table = b->scratch->logits,
        .y = rows->logits,
        .n_tokens = rows->n * head_pieces(&m->config, split),
        .n_vocab = split->n_ranks * rows->n * pieces_of_share(split),
        .width = split->vocab_unit,
        .dtype = BASE_F32,
    };
    base_status st = BASE_OK;
    BASE_TRY(st, out, comm_all_gather(b->ranks, mine, b->scratch->logits, share, b->timeout_ms));
    if (rows->logits != NULL) {
        st = kern_embed(b->ctx, &together);
    }
out:
    return st;
}

base_status head_run(const block_step *b, const model *m, const head_rows *rows)
{
    base_status st = BASE_OK;
    const model_config *c = &m->config;
    const model_split *split = &m->split;
    const scratch *s = b->scratch;
    float *const share =
        s->logits + (int64_t)split->rank * rows->n * split->vocab_longest; /* in its place */
    const kern_embed_args wanted = {
        .ids = rows->tokens,
        .table = s->x,
        .y = s->sample,
        .n_tokens = rows->n,
        .n_vocab = b->rows.n_all,
        .width = c->width,
        .dtype = BASE_F32,
        .begin = b->rows.begin,
        .end = b->rows.end,
    };
    const kern_project_args logits = {
        .x = s->sample,
        .norm = m->final_norm.data,
        .h = s->sample,
        .parts = {{.w = m->head.data,
                   .y = model_is_split(split) ? share : rows->logits,
                   .n = model_span_count(split->vocab),
                   .dtype = m->head.dtype}},
        .n_parts = 1,
        .m = rows->n,
        .k = c->width,
        .eps = c->rms_eps,
        .norm_dtype = m->final_norm.dtype,
    };
    BASE_TRY(st, out, kern_embed(b->ctx, &wanted));
    if (model_rows_are_shared(&b->rows)) { /* a rank has 0 for the rows of others */
        const int64_t n = (int64_t)rows->n * c->width;
        BASE_TRY(st, out, comm_sum(b->ranks, s->sample, n, s->h, b->timeout_ms));
    }
    if (model_is_split(split) || rows->logits != NULL) {
        BASE_TRY(st, out, kern_project(b->ctx, &logits));
    }
    if (model_is_split(split)) {
        st = gather(b, m, rows, share);
    }
out:
    return st;
}
