/* tests/support/attn_world.h - sequences with pages and open blocks, their attention in fp64, and
 * the op run on the shard of one rank. */
#ifndef TESTS_SUPPORT_ATTN_WORLD_H
#define TESTS_SUPPORT_ATTN_WORLD_H

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define WORLD_MAX_SEQS   4
#define WORLD_MAX_BLOCKS 64 /* of a sequence */

typedef struct world_seq {
    int64_t position; /* of the first query */
    int32_t n_tokens;
    int32_t first_token;
    int32_t first_page;               /* page of block 0 */
    uint16_t *rows[WORLD_MAX_BLOCKS]; /* [Hkv][2][128][D] */
    float *values[WORLD_MAX_BLOCKS];  /* what a page of the block decodes to, same layout */
} world_seq;

typedef struct attn_world {
    int32_t head_dim;
    int32_t n_kv_heads;
    int32_t group;
    int32_t n_seqs;
    int32_t n_tokens;
    int32_t n_pages;
    int32_t window_blocks; /* 0 after create, as are the sinks */
    int32_t sink_blocks;
    int64_t stride;
    float scale;
    page_fixture *fx;          /* [n_kv_heads] */
    kern_head_format *formats; /* [n_kv_heads] */
    world_seq seqs[WORLD_MAX_SEQS];
    uint8_t *pages;
    float *q;
} attn_world;

static inline int32_t world_blocks(const world_seq *s)
{
    return (int32_t)((s->position + s->n_tokens + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS);
}

static inline bool world_full(const world_seq *s, int32_t block)
{
    return (block + 1LL) * KERN_BLOCK_TOKENS <= s->position + s->n_tokens;
}

/* Which of n_ranks holds a block: at random. */
static inline int32_t world_owner(int32_t seq, int32_t block, int32_t n_ranks)
{
    return (int32_t)(base_random_u64(PARITY_SEED, 77 + (uint64_t)seq, (uint64_t)block) %
                     (uint64_t)n_ranks);
}

/* Rows past the last position are NaN, so that whoever reads them shows. */
static inline void world_fill_rows(const attn_world *w, world_seq *s, uint64_t stream)
{
    const int64_t row_elems = (int64_t)w->n_kv_heads * 2 * w->head_dim;
    for (int32_t b = 0; b < world_blocks(s); b++) {
        s->rows[b] = parity_memory(kern_open_elems(w->n_kv_heads, w->head_dim), sizeof(uint16_t));
        for (int64_t i = 0; i < kern_open_elems(w->n_kv_heads, w->head_dim); i++) {
            const int64_t row = i / w->head_dim % KERN_BLOCK_TOKENS;
            const bool past = b * (int64_t)KERN_BLOCK_TOKENS + row >= s->position + s->n_tokens;
            const double x = base_random_normal(PARITY_SEED, stream,
                                                (uint64_t)(b * row_elems * KERN_BLOCK_TOKENS + i));
            s->rows[b][i] = past ? 0x7fc0u : base_bf16_from_f32((float)x);
        }
    }
}

/* Packs every full block and keeps what the page decodes to. */
static inline void world_pack(attn_world *w, world_seq *s, kern_ctx *ctx)
{
    const int64_t side = (int64_t)KERN_BLOCK_TOKENS * w->head_dim;
    for (int32_t b = 0; b < world_blocks(s); b++) {
        if (!world_full(s, b)) {
            continue;
        }
        const kern_open open = {.block = b, .rows = s->rows[b]};
        const kern_pack pack = {0, s->first_page + b};
        const kern_pack_args args = {.packs = &pack,
                                     .opens = &open,
                                     .formats = w->formats,
                                     .pages = w->pages,
                                     .page_stride = w->stride,
                                     .n_packs = 1,
                                     .n_opens = 1,
                                     .n_pages = w->n_pages,
                                     .n_kv_heads = w->n_kv_heads};
        CHECK_STATUS(kern_pack_pages(ctx, &args), BASE_OK);
        s->values[b] = parity_memory(kern_open_elems(w->n_kv_heads, w->head_dim), sizeof(float));
        for (int32_t i = 0; i < w->n_kv_heads * 2; i++) {
            const kern_head_format *f = &w->formats[i / 2];
            kern_page_decode(f, w->pages + (s->first_page + b) * w->stride + f->offset, i % 2,
                             s->values[b] + i * side);
        }
    }
}

/* positions and n_tokens [n_seqs]; bits (page_fixture.h) of K and V in two halves of a head: {k0, k1, v0, v1}; k1 0: one
 * segment a side. */
static inline attn_world *attn_world_create(kern_ctx *ctx, int32_t head_dim, int32_t n_kv_heads,
                                            int32_t group, const int32_t bits[4], int32_t n_seqs,
                                            const int64_t *positions, const int32_t *n_tokens)
{
    attn_world *w = parity_memory(1, sizeof *w);
    w->head_dim = head_dim;
    w->n_kv_heads = n_kv_heads;
    w->group = group;
    w->n_seqs = n_seqs;
    w->scale = 1.0f / sqrtf((float)head_dim);
    w->fx = parity_memory(n_kv_heads, sizeof *w->fx);
    w->formats = parity_memory(n_kv_heads, sizeof *w->formats);
    for (int32_t h = 0; h < n_kv_heads; h++) {
        page_fixture_init(&w->fx[h], head_dim, bits[1] == 0 ? 1 : 2, bits, bits + 2, false, 3);
        w->formats[h] = w->fx[h].format;
        w->formats[h].offset = w->stride;
        w->stride += w->formats[h].head_page_bytes;
    }
    for (int32_t i = 0; i < n_seqs; i++) {
        world_seq *s = &w->seqs[i];
        s->position = positions[i];
        s->n_tokens = n_tokens[i];
        s->first_token = w->n_tokens;
        s->first_page = w->n_pages;
        w->n_tokens += n_tokens[i];
        w->n_pages += world_blocks(s);
        assert_true(world_blocks(s) <= WORLD_MAX_BLOCKS);
        world_fill_rows(w, s, 100 + (uint64_t)i);
    }
    w->pages = parity_memory(w->n_pages * w->stride, 1);
    for (int32_t i = 0; i < n_seqs; i++) {
        world_pack(w, &w->seqs[i], ctx);
    }
    w->q = parity_normals(50, (int64_t)w->n_tokens * n_kv_heads * group * head_dim, 1.5);
    return w;
}

static inline void attn_world_destroy(attn_world *w)
{
    for (int32_t i = 0; i < w->n_seqs; i++) {
        for (int32_t b = 0; b < WORLD_MAX_BLOCKS; b++) {
            free(w->seqs[i].rows[b]);
            free(w->seqs[i].values[b]);
        }
    }
    free(w->fx);
    free(w->formats);
    free(w->pages);
    free(w->q);
    free(w);
}

/* One side of one position as the query at position p of its sequence sees it, element d. */
static inline double world_value(const attn_world *w, const world_seq *s, int64_t p, int64_t j,
                                 int32_t head_side, int32_t d)
{
    const int32_t block = (int32_t)(j / KERN_BLOCK_TOKENS);
    const bool as_rows =
        p / KERN_BLOCK_TOKENS - block <= w->window_blocks || block < w->sink_blocks;
    const int64_t at =
        ((int64_t)head_side * KERN_BLOCK_TOKENS + j % KERN_BLOCK_TOKENS) * w->head_dim + d;
    return as_rows ? (double)base_f32_from_bf16(s->rows[block][at]) : (double)s->values[block][at];
}

/* fp64 attention of query head `head` of token t over the blocks of rank (of all: n_ranks 1). */
static inline void world_reference(const attn_world *w, int32_t seq, int32_t t, int32_t head,
                                   int32_t rank, int32_t n_ranks, double *o, double *lse)
{
    const world_seq *s = &w->seqs[seq];
    const int64_t p = s->position + t;
    const int32_t n_heads = w->n_kv_heads * w->group;
    const int32_t k_side = head / w->group * 2;
    const float *q = w->q + ((int64_t)(s->first_token + t) * n_heads + head) * w->head_dim;
    double *x = parity_memory(p + 1, sizeof *x);
    double top = -INFINITY;
    double sum = 0.0;

    for (int64_t j = 0; j <= p; j++) {
        x[j] = -INFINITY;
        if (world_owner(seq, (int32_t)(j / KERN_BLOCK_TOKENS), n_ranks) == rank) {
            double dot = 0.0;
            for (int32_t d = 0; d < w->head_dim; d++) {
                dot += (double)q[d] * world_value(w, s, p, j, k_side, d);
            }
            x[j] = dot * (double)w->scale;
            top = x[j] > top ? x[j] : top;
        }
    }
    memset(o, 0, (size_t)w->head_dim * sizeof *o);
    for (int64_t j = 0; j <= p; j++) {
        if (x[j] != -INFINITY) {
            const double weight = exp(x[j] - top);
            sum += weight;
            for (int32_t d = 0; d < w->head_dim; d++) {
                o[d] += weight * world_value(w, s, p, j, k_side + 1, d);
            }
        }
    }
    for (int32_t d = 0; d < w->head_dim && sum > 0.0; d++) {
        o[d] /= sum;
    }
    *lse = sum > 0.0 ? top + log(sum) : -INFINITY;
    free(x);
}

typedef struct world_call { /* the arguments of one call and what they point to */
    kern_attn_args args;
    kern_attn_seq seqs[WORLD_MAX_SEQS];
    kern_attn_page list[WORLD_MAX_SEQS * WORLD_MAX_BLOCKS];
    kern_open opens[WORLD_MAX_SEQS * WORLD_MAX_BLOCKS];
} world_call;

/* A call on rank's blocks for the tokens of part `part` of n_parts of every sequence.  q, o and lse
 * are left to the caller when there are several parts. */
static inline void world_call_init(world_call *c, const attn_world *w, int32_t rank,
                                   int32_t n_ranks, int32_t part, int32_t n_parts)
{
    memset(c, 0, sizeof *c);
    c->args = (kern_attn_args){.q = w->q,
                               .seqs = c->seqs,
                               .page_list = c->list,
                               .opens = c->opens,
                               .formats = w->formats,
                               .pages = w->pages,
                               .page_stride = w->stride,
                               .n_pages_total = w->n_pages,
                               .n_seqs = w->n_seqs,
                               .n_heads = w->n_kv_heads * w->group,
                               .n_kv_heads = w->n_kv_heads,
                               .head_dim = w->head_dim,
                               .window_blocks = w->window_blocks,
                               .sink_blocks = w->sink_blocks,
                               .scale = w->scale};
    for (int32_t i = 0; i < w->n_seqs; i++) {
        const world_seq *s = &w->seqs[i];
        kern_attn_seq *seq = &c->seqs[i];
        const int32_t begin = s->n_tokens * part / n_parts;
        *seq = (kern_attn_seq){.position = s->position + begin,
                               .first_token = c->args.n_tokens,
                               .n_tokens = s->n_tokens * (part + 1) / n_parts - begin,
                               .first_page = c->args.n_page_list,
                               .first_open = c->args.n_opens};
        c->args.n_tokens += seq->n_tokens;
        for (int32_t b = 0; b < world_blocks(s); b++) {
            if (world_owner(i, b, n_ranks) != rank) {
                continue;
            }
            if (world_full(s, b)) {
                c->list[c->args.n_page_list++] = (kern_attn_page){b, s->first_page + b};
                seq->n_pages++;
            }
            if (b < w->sink_blocks ||
                (b + w->window_blocks + 1LL) * KERN_BLOCK_TOKENS > s->position) {
                c->opens[c->args.n_opens++] = (kern_open){.block = b, .rows = s->rows[b]};
                seq->n_opens++;
            }
        }
    }
}

/* o [T][H][D], lse [T][H] of the whole world, in n_parts calls. */
static inline void attn_world_run(const attn_world *w, kern_ctx *ctx, int32_t rank, int32_t n_ranks,
                                  int32_t n_parts, float *o, float *lse)
{
    const int64_t n_heads = (int64_t)w->n_kv_heads * w->group;
    const int64_t row = n_heads * w->head_dim;
    world_call *c = parity_memory(1, sizeof *c);

    for (int32_t part = 0; part < n_parts; part++) {
        world_call_init(c, w, rank, n_ranks, part, n_parts);
        float *q = parity_memory(c->args.n_tokens * row, sizeof *q);
        float *part_o = parity_guarded(c->args.n_tokens * row);
        float *part_lse = parity_guarded(c->args.n_tokens * n_heads);
        for (int32_t i = 0; i < w->n_seqs; i++) {
            const int64_t from =
                w->seqs[i].first_token + (c->seqs[i].position - w->seqs[i].position);
            memcpy(q + c->seqs[i].first_token * row, w->q + from * row,
                   (size_t)(c->seqs[i].n_tokens * row) * sizeof *q);
        }
        c->args.q = q;
        c->args.o = part_o;
        c->args.lse = part_lse;
        CHECK_STATUS(kern_attn(ctx, &c->args), BASE_OK);
        parity_guarded_check(part_o, c->args.n_tokens * row);
        parity_guarded_check(part_lse, c->args.n_tokens * n_heads);
        for (int32_t i = 0; i < w->n_seqs; i++) {
            const int64_t to = w->seqs[i].first_token + (c->seqs[i].position - w->seqs[i].position);
            const int64_t at = c->seqs[i].first_token;
            const size_t n = (size_t)c->seqs[i].n_tokens;
            memcpy(o + to * row, part_o + at * row, n * (size_t)row * sizeof *o);
            memcpy(lse + to * n_heads, part_lse + at * n_heads, n * (size_t)n_heads * sizeof *lse);
        }
        free(q);
        parity_guarded_free(part_o);
        parity_guarded_free(part_lse);
    }
    free(c);
}

/* Compares with fp64 within the tolerance of op_attn.h; every step-th token, all heads.  Values are
 * normal, so the largest |V| is taken as 4. */
static inline void attn_world_check(const attn_world *w, int32_t rank, int32_t n_ranks,
                                    int32_t step, const float *o, const float *lse)
{
    const int32_t n_heads = w->n_kv_heads * w->group;
    double want[KERN_MAX_HEAD_DIM];
    double want_lse = 0.0;

    for (int32_t i = 0; i < w->n_seqs; i++) {
        for (int32_t t = 0; t < w->seqs[i].n_tokens; t++) {
            if (t % step != 0 && t != w->seqs[i].n_tokens - 1) {
                continue;
            }
            for (int32_t h = 0; h < n_heads; h++) {
                const int64_t at = (int64_t)(w->seqs[i].first_token + t) * n_heads + h;
                world_reference(w, i, t, h, rank, n_ranks, want, &want_lse);
                parity_near((double)lse[at], want_lse, 1e-4 + 1e-6 * fabs(want_lse), "lse", at);
                for (int32_t d = 0; d < w->head_dim; d++) {
                    parity_near((double)o[at * w->head_dim + d], want[d], 2e-4 * 4.0 + 1e-6, "o",
                                at * w->head_dim + d);
                }
            }
        }
    }
}

#endif /* TESTS_SUPPORT_ATTN_WORLD_H */
