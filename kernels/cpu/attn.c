/* Flash attention over blocks: unpack one side of a block to f32, multiply, renormalise, go on.
 *
 * A task is a tile of query rows of one (sequence, KV head), rows ordered by token, then by head of
 * the group, so that what is visible is a suffix of the tile for a page and a range for an open
 * block: from its diagonal to where it is seen as a page.  Tiles of few rows over many pages are
 * split by pages and merged in order.  Tiles and splits depend on the arguments alone: any number of
 * threads gives the same bits. */
#include "kernels/compose.h"
#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_few.h"
#include "kernels/cpu/cpu_page.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

#include <math.h>

#define SPLIT_PAGES 8 /* at least so many per split: a task of 50 us or more */
#define MAX_SPLITS  16

typedef struct attn_wave {
    const kern_attn_args *a;
    cpu_state *state;
} attn_wave;

/* Visible columns of row r: all n_keys, or fewer on the diagonal of an open block. */
typedef struct attn_mask {
    int32_t n_keys;
    int32_t group;
    int64_t offset; /* of the tile's first token from the block's first position */
    bool is_open;
} attn_mask;

static int32_t visible_keys(const attn_mask *mask, int32_t row)
{
    const int64_t n = mask->is_open ? mask->offset + row / mask->group + 1 : mask->n_keys;
    return n < mask->n_keys ? (int32_t)n : mask->n_keys;
}

/* Rows [row, end): logits in s become weights exp(x - m); m, l and o follow.  Columns beyond a
 * row's visible ones get weight 0.  A row of NaN stays NaN. */
CPU_CLONES static void softmax_rows(cpu_attn_scratch *w, int32_t row, int32_t end, int32_t dim,
                                    const attn_mask *mask)
{
    const int32_t n_pad = (mask->n_keys + CPU_LANES - 1) / CPU_LANES * CPU_LANES;

    for (; row < end; row++) {
        float *s = w->s + row * KERN_BLOCK_TOKENS;
        for (int32_t j = visible_keys(mask, row); j < n_pad; j++) {
            s[j] = -INFINITY;
        }
        cpu_f8 top = cpu_f8_load(s);
        for (int32_t j = CPU_LANES; j < n_pad; j += CPU_LANES) {
            top = cpu_f8_max(top, cpu_f8_load(s + j));
        }
        const float block_top = cpu_f8_top(top);
        const float old = w->m[row];
        const float m = block_top > old ? block_top : old;
        const float zero_at = m == -INFINITY ? 0.0f : m;

        cpu_f8 sum = {0};
        for (int32_t j = 0; j < n_pad; j += CPU_LANES) {
            const cpu_f8 p = cpu_f8_exp(cpu_f8_load(s + j) - zero_at);
            cpu_f8_store(s + j, p);
            sum += p;
        }
        if (m != old) {
            const float shrink = expf(old - zero_at);
            float *o = w->o + (int64_t)row * dim;
            for (int32_t d = 0; d < dim; d += CPU_LANES) {
                cpu_f8_store(o + d, cpu_f8_load(o + d) * shrink);
            }
            w->l[row] *= (double)shrink;
            w->m[row] = m;
        }
        w->l[row] += (double)cpu_f8_sum(sum);
    }
}

CPU_CLONES static void rows_from_bf16(const uint16_t *rows, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += CPU_LANES) {
        cpu_f8_store(out + i, cpu_f8_from_bf16(rows + i));
    }
}

static bool all_finite(const float *x, int64_t n)
{
    uint32_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t mag = base_f32_bits(x[i]) & 0x7fffffffu;
        worst = mag > worst ? mag : worst;
    }
    return worst < 0x7f800000u;
}

/* Finds the fast path of either side for tiles of few rows, if there is one. */
static void plan_few(const kern_head_format *f, int32_t n_rows, cpu_isa isa, cpu_attn_scratch *w)
{
    w->few_k.usable = false;
    w->few_v.usable = false;
    if (n_rows <= CPU_FEW_ROWS) {
        cpu_few_plan(&f->k, f->head_page_bytes, isa, &w->few_k);
        cpu_few_plan(&f->v, f->head_page_bytes, isa, &w->few_v);
    }
}

/* K of a page against n rows; false: there is no fast path.  ahead: what is read next. */
static bool dot_few(const cpu_attn_scratch *w, const kern_head_format *f, const uint8_t *bytes,
                    cpu_few_bytes ahead, const float *q, float *s, int32_t n)
{
    return w->few_k.usable && cpu_few_dot(&f->k, &w->few_k, f->head_dim, bytes, ahead, q, s, n);
}

static bool mix_few(const cpu_attn_scratch *w, const kern_head_format *f, const uint8_t *bytes,
                    cpu_few_bytes ahead, const float *p, float *o, int32_t n)
{
    return w->few_v.usable && cpu_few_mix(&f->v, &w->few_v, f->head_dim, bytes, ahead, p, o, n);
}

/* The head page of the i-th entry of the page list. */
static const uint8_t *page_bytes(const kern_attn_args *a, const cpu_attn_task *t, int32_t i)
{
    return a->pages + (int64_t)a->page_list[i].page * a->page_stride +
           a->formats[t->kv_head].offset;
}

/* Rows [row, n_rows) see the i-th entry of the page list. */
static void attend_page(const kern_attn_args *a, const cpu_attn_task *t, cpu_attn_scratch *w,
                        int32_t i, int32_t row, int32_t n_rows)
{
    const kern_head_format *f = &a->formats[t->kv_head];
    const uint8_t *bytes = page_bytes(a, t, i);
    const int32_t dim = a->head_dim;
    const attn_mask mask = {.n_keys = KERN_BLOCK_TOKENS};

    const int32_t n = n_rows - row;
    const bool few = n > 0 && n <= CPU_FEW_ROWS;
    float *q = w->q + (int64_t)row * dim;
    float *s = w->s + row * KERN_BLOCK_TOKENS;
    float *o = w->o + (int64_t)row * dim;

    const cpu_few_bytes v_bytes = cpu_few_bytes_of(&w->few_v, bytes);
    if (!few || !dot_few(w, f, bytes, v_bytes, q, s, n)) {
        cpu_side_decode(&f->k, dim, bytes, f->head_page_bytes, w->kv);
        cpu_rows_dot(q, w->kv, s, n, KERN_BLOCK_TOKENS, dim);
    }
    softmax_rows(w, row, n_rows, dim, &mask);
    const int32_t next = i + 1 < t->page_end ? i + 1 : i;
    const cpu_few_bytes k_bytes = cpu_few_bytes_of(&w->few_k, page_bytes(a, t, next));
    if (!few || !mix_few(w, f, bytes, k_bytes, s, o, n)) {
        cpu_side_decode(&f->v, dim, bytes, f->head_page_bytes, w->kv);
        cpu_rows_mix(s, w->kv, o, n, KERN_BLOCK_TOKENS, dim);
    }
}

/* Rows [row, end) of the tile see the open block; mask says how far. */
static void attend_open(const kern_attn_args *a, const cpu_attn_task *t, cpu_attn_scratch *w,
                        const kern_open *open, int32_t row, int32_t end, const attn_mask *mask)
{
    const int32_t dim = a->head_dim;
    const int64_t side = (int64_t)KERN_BLOCK_TOKENS * dim;
    const uint16_t *k = open->rows + (int64_t)t->kv_head * 2 * side;
    const int64_t n_elems = (int64_t)mask->n_keys * dim;

    rows_from_bf16(k, n_elems, w->kv);
    cpu_rows_dot(w->q + (int64_t)row * dim, w->kv, w->s + row * KERN_BLOCK_TOKENS, end - row,
                 mask->n_keys, dim);
    softmax_rows(w, row, end, dim, mask);
    rows_from_bf16(k + side, n_elems, w->kv);
    if (all_finite(w->kv, n_elems)) {
        cpu_rows_mix(w->s + row * KERN_BLOCK_TOKENS, w->kv, w->o + (int64_t)row * dim, end - row,
                     mask->n_keys, dim);
        return;
    }
    for (; row < end; row++) { /* 0 * NaN is NaN: a row may not touch what it does not see */
        cpu_rows_mix(w->s + row * KERN_BLOCK_TOKENS, w->kv, w->o + (int64_t)row * dim, 1,
                     visible_keys(mask, row), dim);
    }
}

static void load_queries(const kern_attn_args *a, const cpu_attn_task *t, cpu_attn_scratch *w)
{
    const kern_attn_seq *seq = &a->seqs[t->seq];
    const int32_t group = a->n_heads / a->n_kv_heads;
    const int64_t n = (int64_t)group * a->head_dim; /* the group's heads are neighbours */

    for (int32_t i = 0; i < t->n_tokens; i++) {
        const int64_t token = seq->first_token + t->first + i;
        const float *q = a->q + (token * a->n_heads + (int64_t)t->kv_head * group) * a->head_dim;
        float *out = w->q + i * n;
        for (int64_t d = 0; d < n; d++) {
            out[d] = q[d] * a->scale;
        }
    }
    memset(w->o, 0, (size_t)(t->n_tokens * n) * sizeof *w->o);
    for (int32_t r = 0; r < t->n_tokens * group; r++) {
        w->m[r] = -INFINITY;
        w->l[r] = 0.0;
    }
}

/* One row of the result from its sums. */
static void store_row(const kern_attn_args *a, const cpu_attn_task *t, int32_t row, const float *o,
                      float m, double l)
{
    const int32_t group = a->n_heads / a->n_kv_heads;
    const int64_t token = a->seqs[t->seq].first_token + t->first + row / group;
    const int64_t at = token * a->n_heads + (int64_t)t->kv_head * group + row % group;
    float *out = a->o + at * a->head_dim;

    if (l == 0.0) { /* nothing visible */
        memset(out, 0, (size_t)a->head_dim * sizeof *out);
        a->lse[at] = -INFINITY;
        return;
    }
    const float inverse = (float)(1.0 / l);
    for (int32_t d = 0; d < a->head_dim; d++) {
        out[d] = o[d] * inverse;
    }
    a->lse[at] = (float)((double)m + log(l));
}

static void store_tile(const attn_wave *wave, int32_t task, const cpu_attn_scratch *w,
                       int32_t n_rows)
{
    const cpu_attn_task *t = &wave->state->tasks[task];
    const int32_t dim = wave->a->head_dim;

    if (t->n_splits == 1) {
        for (int32_t r = 0; r < n_rows; r++) {
            store_row(wave->a, t, r, w->o + (int64_t)r * dim, w->m[r], w->l[r]);
        }
        return;
    }
    cpu_attn_partial *part = &wave->state->partials[task];
    memcpy(part->o, w->o, (size_t)n_rows * (size_t)dim * sizeof *w->o);
    memcpy(part->m, w->m, (size_t)n_rows * sizeof *w->m);
    memcpy(part->l, w->l, (size_t)n_rows * sizeof *w->l);
}

static void run_task(void *arg, int32_t task, int32_t thread)
{
    const attn_wave *wave = arg;
    const kern_attn_args *a = wave->a;
    const cpu_attn_task *t = &wave->state->tasks[task];
    const kern_attn_seq *seq = &a->seqs[t->seq];
    cpu_attn_scratch *w = &wave->state->scratch[thread].attn;
    const int32_t group = a->n_heads / a->n_kv_heads;
    const int64_t first = seq->position + t->first; /* position of the tile's first token */
    const int32_t n_rows = t->n_tokens * group;

    load_queries(a, t, w);
    plan_few(&a->formats[t->kv_head], n_rows, wave->state->isa, w);
    for (int32_t i = t->page_begin; i < t->page_end; i++) {
        const int64_t from =
            (int64_t)kern_attn_page_from(a, a->page_list[i].block) * KERN_BLOCK_TOKENS;
        const int32_t token = from > first ? (int32_t)(from - first) : 0;
        attend_page(a, t, w, i, token * group, n_rows);
    }
    for (int32_t i = 0; i < seq->n_opens && t->with_opens; i++) {
        const kern_open *open = &a->opens[seq->first_open + i];
        const int64_t begin = (int64_t)open->block * KERN_BLOCK_TOKENS - first;
        const int64_t end =
            (int64_t)kern_attn_page_from(a, open->block) * KERN_BLOCK_TOKENS - first;
        const int32_t token0 = begin > 0 ? (int32_t)(begin < t->n_tokens ? begin : t->n_tokens) : 0;
        const int32_t token1 = end < t->n_tokens ? (int32_t)(end > 0 ? end : 0) : t->n_tokens;
        if (token0 < token1) {
            const int64_t n_keys = token1 - begin;
            const attn_mask mask = {.n_keys = n_keys < KERN_BLOCK_TOKENS ? (int32_t)n_keys
                                                                         : KERN_BLOCK_TOKENS,
                                    .group = group,
                                    .offset = -begin,
                                    .is_open = true};
            attend_open(a, t, w, open, token0 * group, token1 * group, &mask);
        }
    }
    store_tile(wave, task, w, n_rows);
}

/* Partials of tasks [task, task + n_splits), in order. */
static void merge_splits(const attn_wave *wave, int32_t task)
{
    const kern_attn_args *a = wave->a;
    const cpu_attn_task *t = &wave->state->tasks[task];
    const cpu_attn_partial *parts = &wave->state->partials[task];
    const int32_t dim = a->head_dim;
    const int32_t n_rows = t->n_tokens * (a->n_heads / a->n_kv_heads);

    for (int32_t r = 0; r < n_rows; r++) {
        float o[CPU_ATTN_DIM] = {0};
        float m = -INFINITY;
        double l = 0.0;
        for (int32_t i = 0; i < t->n_splits; i++) {
            m = parts[i].m[r] > m ? parts[i].m[r] : m;
        }
        for (int32_t i = 0; i < t->n_splits; i++) {
            if (parts[i].l[r] == 0.0) {
                continue;
            }
            const float shrink = expf(parts[i].m[r] - (m == -INFINITY ? 0.0f : m));
            for (int32_t d = 0; d < dim; d++) {
                o[d] += shrink * parts[i].o[r * dim + d];
            }
            l += (double)shrink * parts[i].l[r];
        }
        store_row(a, t, r, o, m, l);
    }
}

static void run_wave(attn_wave *wave, int32_t n_tasks)
{
    const cpu_attn_task *tasks = wave->state->tasks;

    cpu_pool_run(wave->state->pool, n_tasks, run_task, wave);
    for (int32_t task = 0; task < n_tasks; task += tasks[task].n_splits) {
        if (tasks[task].n_splits > 1) {
            merge_splits(wave, task);
        }
    }
}

/* Index of the first of a sequence's pages whose block is not below `block`. */
static int32_t find_page(const kern_attn_args *a, const kern_attn_seq *seq, int64_t block)
{
    int32_t low = 0;
    int32_t high = seq->n_pages;
    while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (a->page_list[seq->first_page + middle].block < block) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

base_status kern_cpu_attn(kern_ctx *ctx, const kern_attn_args *a)
{
    attn_wave wave = {a, cpu_state_of(ctx)};
    const int32_t group = a->n_heads / a->n_kv_heads;
    const int32_t tile = CPU_ATTN_ROWS / group;
    int32_t n_tasks = 0;

    for (int32_t s = 0; s < a->n_seqs; s++) {
        const kern_attn_seq *seq = &a->seqs[s];
        const int32_t n_tiles = (seq->n_tokens + tile - 1) / tile;
        const int32_t n_sinks = find_page(a, seq, a->sink_blocks);
        for (int32_t i = n_tiles * a->n_kv_heads - 1; i >= 0; i--) { /* long tiles first */
            cpu_attn_task t = {.seq = s, .kv_head = i % a->n_kv_heads, .n_splits = 1};
            t.first = i / a->n_kv_heads * tile;
            t.n_tokens = seq->n_tokens - t.first < tile ? seq->n_tokens - t.first : tile;
            const int64_t last = seq->position + t.first + t.n_tokens - 1;
            const int64_t n_seen =
                find_page(a, seq, last / KERN_BLOCK_TOKENS - a->window_blocks) - n_sinks;
            const int32_t n_pages = n_seen > 0 ? (int32_t)n_seen : 0;
            if (t.n_tokens * group <= CPU_ATTN_SPLIT_ROWS && n_pages >= 2 * SPLIT_PAGES) {
                t.n_splits =
                    n_pages / SPLIT_PAGES < MAX_SPLITS ? n_pages / SPLIT_PAGES : MAX_SPLITS;
            }
            if (n_tasks + t.n_splits > CPU_ATTN_TASKS) {
                run_wave(&wave, n_tasks);
                n_tasks = 0;
            }
            for (t.split = 0; t.split < t.n_splits; t.split++) {
                const int64_t n = n_pages;
                const int32_t page0 = seq->first_page + n_sinks;
                t.page_begin = page0 + (int32_t)(n * t.split / t.n_splits);
                t.page_end = page0 + (int32_t)(n * (t.split + 1) / t.n_splits);
                t.with_opens = t.split == t.n_splits - 1;
                wave.state->tasks[n_tasks++] = t;
            }
        }
    }
    run_wave(&wave, n_tasks);
    const kern_basis_args basis =
        kern_outputs_basis(a->o, a->formats, a->n_tokens, a->n_heads, a->n_kv_heads, a->head_dim);
    return a->leaves_basis ? kern_cpu_basis(ctx, &basis) : BASE_OK;
}
