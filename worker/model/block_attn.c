#include "worker/model/block.h"

#include "kernels/comm/comm_merge.h"

static kern_project_part part(const model_tensor *w, const model_tensor *bias, int32_t n, float *y)
{
    const kern_project_part p = {.w = w->data,
                                 .bias = bias->data,
                                 .y = y,
                                 .n = n,
                                 .dtype = w->dtype,
                                 .bias_dtype = bias->dtype};
    return p;
}

/* This rank's rows of a buffer that has all the step's. */
static float *own_rows(const block_step *b, float *all, int32_t n_cols)
{
    return all + (int64_t)b->rows.begin * n_cols;
}

/* Heads of D of this rank's rows, in place, where the model has such a norm. */
static base_status norm_heads(const block_step *b, float *x, int32_t n_heads,
                              const model_tensor *weight)
{
    const kern_rmsnorm_args args = {
        .x = x,
        .weight = weight->data,
        .y = x,
        .rows = model_rows_count(&b->rows) * n_heads,
        .cols = b->config->head_dim,
        .eps = b->config->rms_eps,
        .dtype = weight->dtype,
    };
    return weight->data == NULL ? BASE_OK : kern_rmsnorm(b->ctx, &args);
}

/* q, k and v of normalised x, in their rows. */
static base_status project(const block_step *b, const model_layer *w)
{
    const model_config *c = b->config;
    const scratch *s = b->scratch;
    const int32_t q_width = c->n_heads * c->head_dim;
    const int32_t kv_width = c->n_kv_heads * c->head_dim;
    float *const q = own_rows(b, s->q, q_width);
    float *const k = own_rows(b, s->k, kv_width);
    float *const v = own_rows(b, s->v, kv_width);
    const kern_project_args args = {
        .x = s->x,
        .norm = w->attn_norm.data,
        .h = s->h,
        .parts = {part(&w->q, &w->q_bias, q_width, q), part(&w->k, &w->k_bias, kv_width, k),
                  part(&w->v, &w->v_bias, kv_width, v)},
        .n_parts = 3,
        .m = model_rows_count(&b->rows),
        .k = c->width,
        .eps = c->rms_eps,
        .norm_dtype = w->attn_norm.dtype,
    };
    base_status st = BASE_OK;
    BASE_TRY(st, out, kern_project(b->ctx, &args));
    BASE_TRY(st, out, norm_heads(b, q, c->n_heads, &w->q_norm));
    st = norm_heads(b, k, c->n_kv_heads, &w->k_norm);
out:
    return st;
}

/* Whether ranks turn their own rows' queries, and bring them into the page basis, before these are gathered: not if
 * somebody wants to see them in between. */
static bool turns_own_queries(const block_step *b)
{
    return model_rows_are_shared(&b->rows) && b->observer == NULL;
}

static base_status turn_own_queries(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const kern_append_args args = {
        .q = own_rows(b, b->scratch->q, c->n_heads * c->head_dim),
        .turns = own_rows(b, b->scratch->turns, c->head_dim),
        .formats = layer->formats,
        .n_tokens = model_rows_count(&b->rows),
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
    };
    return kern_append(b->ctx, &args);
}

/* Every rank's rows reach every rank. */
static base_status gather_rows(const block_step *b, float *all, int32_t n_cols)
{
    return comm_all_gather(b->ranks, own_rows(b, all, n_cols), all,
                           (size_t)b->rows.n_each * (size_t)n_cols * sizeof *all, b->timeout_ms);
}

/* q, k and v of all rows, of which this rank has projected its own. */
static base_status gather(const block_step *b)
{
    const scratch *s = b->scratch;
    const int32_t kv_width = b->config->n_kv_heads * b->config->head_dim;
    base_status st = BASE_OK;

    BASE_TRY(st, out, gather_rows(b, s->q, b->config->n_heads * b->config->head_dim));
    BASE_TRY(st, out, gather_rows(b, s->k, kv_width));
    st = gather_rows(b, s->v, kv_width);
out:
    return st;
}

static base_status rope(const block_step *b, float *x, int32_t n_heads)
{
    const kern_rope_args args = {
        .x = x,
        .turns = b->scratch->turns,
        .n_tokens = b->step->n_tokens,
        .n_heads = n_heads,
        .head_dim = b->config->head_dim,
        .x_stride = n_heads * b->config->head_dim,
    };
    return kern_rope(b->ctx, &args);
}

/* Turned q and k, and v, for whoever watches; turns them. */
static base_status observe(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const forward_observation seen = {
        .layer = layer->index,
        .n_tokens = b->step->n_tokens,
        .positions = b->step->positions,
        .q = b->scratch->q,
        .k = b->scratch->k,
        .v = b->scratch->v,
        .inv_freq = b->scratch->inv_freq,
    };
    const size_t row_bytes = (size_t)seen.n_tokens * (size_t)c->head_dim * sizeof(float);
    const size_t kv_bytes = row_bytes * (size_t)c->n_kv_heads;
    base_status st = BASE_OK;

    BASE_TRY(st, out, rope(b, b->scratch->q, c->n_heads));
    BASE_TRY(st, out, rope(b, b->scratch->k, c->n_kv_heads));
    BASE_TRY(st, out, kern_fetch(b->ctx, b->scratch->q, row_bytes * (size_t)c->n_heads));
    BASE_TRY(st, out, kern_fetch(b->ctx, b->scratch->k, kv_bytes));
    BASE_TRY(st, out, kern_fetch(b->ctx, b->scratch->v, kv_bytes));
    st = b->observer(b->observer_ctx, &seen);
out:
    return st;
}

/* q and k are turned, if nobody watched and they are not yet; q goes into the page basis, if it has not, k and v into the
 * rows of the blocks that this rank owns; blocks that are full now become pages before anything attends, so that what a
 * query sees does not depend on the step's size. */
static base_status store(const block_step *b, const block_layer *layer)
{
    const kv_step *step = b->step;
    const kern_append_args append = {
        .q = turns_own_queries(b) ? NULL : b->scratch->q,
        .k = b->scratch->k,
        .v = b->scratch->v,
        .turns = b->observer == NULL ? b->scratch->turns : NULL,
        .positions = step->positions,
        .dest = step->dest,
        .opens = layer->opens,
        .formats = layer->formats,
        .n_tokens = step->n_tokens,
        .n_heads = b->config->n_heads,
        .n_kv_heads = b->config->n_kv_heads,
        .head_dim = b->config->head_dim,
        .n_opens = step->n_opens,
    };
    const kern_pack_args pack = {
        .packs = step->packs,
        .opens = layer->opens,
        .formats = layer->formats,
        .pages = step->pages,
        .page_stride = step->page_stride,
        .n_packs = step->n_packs,
        .n_opens = step->n_opens,
        .n_pages = step->n_pages_total,
        .n_kv_heads = b->config->n_kv_heads,
    };
    const base_status st = kern_append(b->ctx, &append);
    return st == BASE_OK ? kern_pack_pages(b->ctx, &pack) : st;
}

/* Partial attention over this rank's positions to o and lse; a rank alone has the result at once. */
static kern_attn_args attn_args(const block_step *b, const block_layer *layer, float *o, float *lse)
{
    const kv_step *step = b->step;
    const model_config *c = b->config;
    const kern_attn_args args = {
        .q = b->scratch->q,
        .o = o,
        .lse = lse,
        .seqs = step->seqs,
        .page_list = step->page_list,
        .opens = layer->opens,
        .formats = layer->formats,
        .pages = step->pages,
        .page_stride = step->page_stride,
        .n_pages_total = step->n_pages_total,
        .n_seqs = step->n_seqs,
        .n_page_list = step->n_page_list,
        .n_opens = step->n_opens,
        .n_tokens = step->n_tokens,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .window_blocks = step->window_blocks,
        .sink_blocks = step->sink_blocks,
        .scale = rope_softmax_scale(&c->rope, c->head_dim),
        .leaves_basis = comm_size(b->ranks) == 1,
    };
    return args;
}

/* Every rank's partials reach every rank, and each merges them in the same order, out of the page basis. */
static base_status attend_and_merge(const block_step *b, const block_layer *layer,
                                    const kern_attn_args *attn, int64_t rank_stride)
{
    const scratch *s = b->scratch;
    const kern_merge_args args = {
        .partials = s->partials,
        .rank_stride = rank_stride,
        .o = s->attn,
        .n_ranks = comm_size(b->ranks),
        .rows = b->step->n_tokens * b->config->n_heads,
        .head_dim = b->config->head_dim,
        .formats = layer->formats,
        .n_heads = b->config->n_heads,
        .n_kv_heads = b->config->n_kv_heads,
    };
    return comm_attend(b->ranks, b->ctx, attn, &args, b->timeout_ms);
}

/* Each rank gets the partials of its own heads, and merges these, in the same order. */
static base_status attend_and_merge_own(const block_step *b, const block_layer *layer,
                                        const kern_attn_args *attn)
{
    const scratch *s = b->scratch;
    const int32_t n_heads = model_span_count(b->split->heads);
    const kern_deal_args deal = {
        .x = s->partials,
        .y = s->dealt,
        .begins = b->split->head_begins,
        .n_ranks = b->split->n_ranks,
        .n_tokens = b->step->n_tokens,
        .n_heads = b->config->n_heads,
        .head_dim = b->config->head_dim,
    };
    const kern_merge_args args = {
        .partials = s->received,
        .rank_stride = (int64_t)b->step->n_tokens * n_heads * (b->config->head_dim + 1),
        .o = s->attn,
        .n_ranks = b->split->n_ranks,
        .rows = b->step->n_tokens * n_heads,
        .head_dim = b->config->head_dim,
        .formats = layer->formats + b->split->kv_heads.begin,
        .n_heads = n_heads,
        .n_kv_heads = model_span_count(b->split->kv_heads),
    };
    return comm_attend_own(b->ranks, b->ctx, attn, &deal, &args, b->timeout_ms);
}

/* Each rank gets the partials of its own rows, which are dealt as if they were heads of one token, and merges these, in the
 * same order.  What it receives takes the place of what it has dealt.  Not comm_attend_own, whose one-shot ways are for few
 * rows and take a row's head from its place among a token's. */
static base_status attend_and_merge_rows(const block_step *b, const block_layer *layer,
                                         const kern_attn_args *attn)
{
    const scratch *s = b->scratch;
    const model_config *c = b->config;
    const int32_t n_own = model_rows_count(&b->rows) * c->n_heads;
    int32_t begins[KERN_DEAL_MAX_RANKS + 1];
    const kern_deal_args deal = {
        .x = s->partials,
        .y = s->dealt,
        .begins = begins,
        .n_ranks = b->rows.n_ranks,
        .n_tokens = 1,
        .n_heads = b->rows.n_all * c->n_heads,
        .head_dim = c->head_dim,
    };
    const kern_merge_args args = {
        .partials = s->partials,
        .rank_stride = (int64_t)n_own * (c->head_dim + 1),
        .o = s->attn,
        .n_ranks = b->rows.n_ranks,
        .rows = n_own,
        .head_dim = c->head_dim,
        .formats = layer->formats,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
    };
    const size_t unit_bytes = ((size_t)c->head_dim + 1) * sizeof *s->dealt;
    base_status st = BASE_OK;

    BASE_TRY(st, out, kern_attn(b->ctx, attn));
    model_rows_begins(&b->rows, c->n_heads, begins);
    BASE_TRY(st, out, kern_deal(b->ctx, &deal));
    BASE_TRY(st, out,
             comm_all_to_all(b->ranks, s->dealt, s->partials, begins, unit_bytes, b->timeout_ms));
    st = kern_merge(b->ctx, &args);
out:
    return st;
}

/* Attention over the positions of all ranks, of this rank's rows and heads. */
static base_status attend_all(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const scratch *s = b->scratch;
    const bool split = model_is_split(b->split);
    const bool shared = model_rows_are_shared(&b->rows);
    const int64_t o_size = (int64_t)b->step->n_tokens * c->n_heads * c->head_dim;
    const int64_t n_partials = o_size + (int64_t)b->step->n_tokens * c->n_heads;
    const int64_t rank_stride = (n_partials + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    float *const mine = s->partials + (split || shared ? 0 : comm_rank(b->ranks) * rank_stride);
    const bool alone = comm_size(b->ranks) == 1;
    const kern_attn_args attn = attn_args(b, layer, alone ? s->attn : mine, mine + o_size);

    return alone    ? kern_attn(b->ctx, &attn)
           : split  ? attend_and_merge_own(b, layer, &attn)
           : shared ? attend_and_merge_rows(b, layer, &attn)
                    : attend_and_merge(b, layer, &attn, rank_stride);
}

base_status block_attn_run(const block_step *b, const block_layer *layer)
{
    const model_layer *w = layer->weights;
    const int32_t width = model_span_count(b->split->heads) * b->config->head_dim;
    base_status st = BASE_OK;

    BASE_TRY(st, out, project(b, w));
    if (turns_own_queries(b)) {
        BASE_TRY(st, out, turn_own_queries(b, layer));
    }
    if (model_rows_are_shared(&b->rows)) {
        BASE_TRY(st, out, gather(b));
    }
    if (b->observer != NULL) {
        BASE_TRY(st, out, observe(b, layer));
    }
    BASE_TRY(st, out, store(b, layer));
    BASE_TRY(st, out, attend_all(b, layer));
    st = block_add(b, b->scratch->attn, width, &w->o);
out:
    return st;
}
