/* tests/support/cuda_world.h - sequences with pages and open blocks of any formats, their attention in fp64, and the
 * CUDA op run on the shard of one rank. */
#ifndef TESTS_SUPPORT_CUDA_WORLD_H
#define TESTS_SUPPORT_CUDA_WORLD_H

#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/formats.h"
#include "kernels/cuda/fragment.h"
#include "tests/support/cuda_memory.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define CW_MAX_SEQS   48
#define CW_MAX_BLOCKS 64

typedef struct cw_spec { /* whole blocks before a position are shrunk (parity.h) */
    int32_t head_dim;
    int32_t n_kv_heads;
    int32_t group;
    int32_t n_segments;                /* of a side */
    int32_t k_bits[KERN_MAX_SEGMENTS]; /* head h has them turned by h */
    int32_t v_bits[KERN_MAX_SEGMENTS];
    int32_t n_seqs;
    int64_t position[CW_MAX_SEQS]; /* of the first query */
    int32_t n_tokens[CW_MAX_SEQS];
    int32_t n_ranks; /* 0: one */
    int32_t rank;
    int32_t window_blocks;
    int32_t sink_blocks;
} cw_spec;

typedef struct cw_block {
    uint16_t *rows; /* [Hkv][2][128][D]; NaN past the last position */
    float *values;  /* what its page decodes to */
    uint16_t *lent; /* rows in device memory */
    int32_t page;   /* -1: not full */
    bool is_here;   /* on this rank */
} cw_block;

typedef struct cw_world {
    cw_spec spec;
    page_fixture *fx;
    kern_head_format *formats;
    kern_cuda_formats *lent_formats;
    cw_block blocks[CW_MAX_SEQS][CW_MAX_BLOCKS];
    kern_attn_args args; /* pointers in device memory */
    int32_t n_tokens;
    int32_t n_heads;
    float *q;
    uint8_t *pages; /* fragment order */
} cw_world;

static inline int32_t cw_n_blocks(const cw_spec *s, int32_t seq)
{
    return (int32_t)((s->position[seq] + s->n_tokens[seq] + KERN_BLOCK_TOKENS - 1) /
                     KERN_BLOCK_TOKENS);
}

/* Rows of unequal lengths, so that norms differ. */
static inline void cw_fill_rows(const cw_spec *s, int32_t seq, int32_t block, uint16_t *rows)
{
    const int64_t end = s->position[seq] + s->n_tokens[seq];
    for (int64_t i = 0; i < s->n_kv_heads * 2 * KERN_BLOCK_TOKENS; i++) {
        const uint64_t at = (uint64_t)(block * 4096 + i);
        const bool past = block * (int64_t)KERN_BLOCK_TOKENS + i % KERN_BLOCK_TOKENS >= end;
        const double length = 0.6 + 0.8 * base_random_unit(PARITY_SEED, 300 + (uint64_t)seq, at);
        for (int64_t d = 0; d < s->head_dim; d++) {
            const double x = base_random_normal(PARITY_SEED, 400 + (uint64_t)seq,
                                                at * KERN_MAX_HEAD_DIM + (uint64_t)d);
            rows[i * s->head_dim + d] = past ? 0x7fc0u : base_bf16_from_f32((float)(length * x));
        }
    }
}

static inline void cw_make_formats(cw_world *w)
{
    const cw_spec *s = &w->spec;
    int64_t at = 0;
    w->fx = parity_memory(s->n_kv_heads, sizeof *w->fx);
    w->formats = parity_memory(s->n_kv_heads, sizeof *w->formats);
    for (int32_t h = 0; h < s->n_kv_heads; h++) {
        int32_t k_bits[KERN_MAX_SEGMENTS];
        int32_t v_bits[KERN_MAX_SEGMENTS];
        for (int32_t i = 0; i < s->n_segments; i++) {
            k_bits[i] = s->k_bits[(i + h) % s->n_segments];
            v_bits[i] = s->v_bits[(i + h) % s->n_segments];
        }
        page_fixture_init(&w->fx[h], s->head_dim, s->n_segments, k_bits, v_bits, false, 3);
        w->formats[h] = w->fx[h].format;
        w->formats[h].offset = at;
        at += w->formats[h].head_page_bytes;
    }
    w->args.page_stride = at;
    CHECK_STATUS(kern_cuda_formats_create(w->formats, s->n_kv_heads, s->head_dim, &base_heap,
                                          &w->lent_formats),
                 BASE_OK);
}

/* A page of plain order from the CPU writer, what it decodes to, and the page in fragment order. */
static inline void cw_make_page(cw_world *w, kern_ctx *ctx, cw_block *b, uint8_t *page)
{
    const cw_spec *s = &w->spec;
    const int64_t side = (int64_t)KERN_BLOCK_TOKENS * s->head_dim;
    uint8_t *plain = parity_memory(w->args.page_stride, 1);
    const kern_open open = {.rows = b->rows};
    const kern_pack pack = {0, 0};
    const kern_pack_args args = {.packs = &pack,
                                 .opens = &open,
                                 .formats = w->formats,
                                 .pages = plain,
                                 .page_stride = w->args.page_stride,
                                 .n_packs = 1,
                                 .n_opens = 1,
                                 .n_pages = 1,
                                 .n_kv_heads = s->n_kv_heads};
    CHECK_STATUS(kern_pack_pages(ctx, &args), BASE_OK);
    b->values = parity_memory(kern_open_elems(s->n_kv_heads, s->head_dim), sizeof(float));
    for (int32_t h = 0; h < s->n_kv_heads; h++) {
        const kern_head_format *f = &w->formats[h];
        kern_page_decode(f, plain + f->offset, 0, b->values + 2 * h * side);
        kern_page_decode(f, plain + f->offset, 1, b->values + (2 * h + 1) * side);
        kern_fragment_from_plain(f, plain + f->offset, page + f->offset);
    }
    free(plain);
}

/* Blocks of all sequences, pages and lists on the device. */
static inline void cw_make_blocks(cw_world *w, kern_ctx *ctx)
{
    const cw_spec *s = &w->spec;
    const int64_t elems = kern_open_elems(s->n_kv_heads, s->head_dim);
    const int32_t n_max = CW_MAX_SEQS * CW_MAX_BLOCKS;
    kern_attn_seq *seqs = parity_memory(CW_MAX_SEQS, sizeof *seqs);
    kern_attn_page *list = parity_memory(n_max, sizeof *list);
    kern_open *opens = parity_memory(n_max, sizeof *opens);
    kern_attn_args *a = &w->args;
    const int32_t n_ranks = s->n_ranks > 0 ? s->n_ranks : 1;

    for (int32_t i = 0; i < s->n_seqs; i++) {
        a->n_pages_total += cw_n_blocks(s, i);
    }
    w->pages = parity_memory(a->n_pages_total * a->page_stride, 1);
    int32_t page = a->n_pages_total; /* from the last on, so that pages are in no order */
    for (int32_t i = 0; i < s->n_seqs; i++) {
        seqs[i] = (kern_attn_seq){.position = s->position[i],
                                  .first_token = w->n_tokens,
                                  .n_tokens = s->n_tokens[i],
                                  .first_page = a->n_page_list,
                                  .first_open = a->n_opens};
        w->n_tokens += s->n_tokens[i];
        for (int32_t n = 0; n < cw_n_blocks(s, i); n++) {
            cw_block *b = &w->blocks[i][n];
            const int64_t end = (n + 1LL) * KERN_BLOCK_TOKENS;
            b->page = -1;
            b->is_here = (int32_t)(base_random_u64(PARITY_SEED, 9 + (uint64_t)i, (uint64_t)n) %
                                   (uint64_t)n_ranks) == s->rank;
            b->rows = parity_memory(elems, sizeof *b->rows);
            cw_fill_rows(s, i, n, b->rows);
            if (end <= s->position[i] + s->n_tokens[i]) {
                b->page = --page;
                cw_make_page(w, ctx, b, w->pages + page * a->page_stride);
            }
            if (!b->is_here) {
                continue;
            }
            if (b->page >= 0) {
                list[a->n_page_list++] = (kern_attn_page){n, b->page};
                seqs[i].n_pages++;
            }
            if (n < s->sink_blocks || end + s->window_blocks * 128LL > s->position[i]) {
                b->lent = cuda_memory(b->rows, elems * (int64_t)sizeof *b->rows);
                opens[a->n_opens++] = (kern_open){.block = n, .rows = b->lent};
                seqs[i].n_opens++;
            }
        }
    }
    a->n_seqs = s->n_seqs;
    a->seqs = cuda_memory(seqs, CW_MAX_SEQS * (int64_t)sizeof *seqs);
    a->page_list = cuda_memory(list, n_max * (int64_t)sizeof *list);
    a->opens = cuda_memory(opens, n_max * (int64_t)sizeof *opens);
    a->pages = cuda_memory(w->pages, a->n_pages_total * a->page_stride);
    free(seqs);
    free(list);
    free(opens);
}

static inline cw_world *cw_create(kern_ctx *ctx, const cw_spec *spec)
{
    cw_world *w = parity_memory(1, sizeof *w);
    w->spec = *spec;
    for (int32_t i = 0; i < spec->n_seqs; i++) {
        const int32_t n_blocks = (int32_t)(spec->position[i] / KERN_BLOCK_TOKENS);
        w->spec.position[i] = parity_shrunk(n_blocks) * (int64_t)KERN_BLOCK_TOKENS +
                              spec->position[i] % KERN_BLOCK_TOKENS;
    }
    w->n_heads = spec->n_kv_heads * spec->group;
    cw_make_formats(w);
    cw_make_blocks(w, ctx);
    const int64_t n = (int64_t)w->n_tokens * w->n_heads * spec->head_dim;
    w->q = parity_normals(50, n, 1.5);
    w->args.q = cuda_memory(w->q, n * (int64_t)sizeof(float));
    w->args.n_tokens = w->n_tokens;
    w->args.n_heads = w->n_heads;
    w->args.n_kv_heads = spec->n_kv_heads;
    w->args.head_dim = spec->head_dim;
    w->args.scale = 1.0f / sqrtf((float)spec->head_dim);
    return w;
}

static inline void cw_destroy(cw_world *w)
{
    for (int32_t i = 0; i < CW_MAX_SEQS; i++) {
        for (int32_t n = 0; n < CW_MAX_BLOCKS; n++) {
            free(w->blocks[i][n].rows);
            free(w->blocks[i][n].values);
            cuda_memory_free(w->blocks[i][n].lent);
        }
    }
    cuda_memory_free(w->args.q);
    cuda_memory_free(w->args.seqs);
    cuda_memory_free(w->args.page_list);
    cuda_memory_free(w->args.opens);
    cuda_memory_free(w->args.pages);
    kern_cuda_formats_destroy(w->lent_formats);
    free(w->fx);
    free(w->formats);
    free(w->q);
    free(w->pages);
    free(w);
}

/* o [T][H][D], then lse [T][H]; ended with free.  The launch that reads pages early gives what the other does.
 * formats: in device memory, whose basis o leaves; or NULL. */
static inline float *cw_run_out_of(const cw_world *w, const kern_head_format *formats)
{
    const int64_t n_rows = (int64_t)w->n_tokens * w->n_heads;
    const int64_t n = n_rows * (w->spec.head_dim + 1);
    kern_attn_args args = w->args;
    kern_cuda_attn_work work = {.formats = w->lent_formats};
    args.window_blocks = w->spec.window_blocks;
    args.sink_blocks = w->spec.sink_blocks;
    args.formats = formats;
    args.leaves_basis = formats != NULL;
    for (int32_t i = 0; i < w->spec.n_seqs; i++) {
        work.max_seq_tokens =
            w->spec.n_tokens[i] > work.max_seq_tokens ? w->spec.n_tokens[i] : work.max_seq_tokens;
    }
    void *poison = parity_memory(kern_cuda_attn_workspace_bytes(), 1);
    memset(poison, 0xff, (size_t)kern_cuda_attn_workspace_bytes()); /* NaN */
    work.workspace = cuda_memory(poison, kern_cuda_attn_workspace_bytes());
    float *out = cuda_memory(poison, n * (int64_t)sizeof *out);
    args.o = out;
    args.lse = out + n_rows * w->spec.head_dim;
    CHECK_STATUS(kern_cuda_attn(NULL, &work, &args), BASE_OK);
    float *host = parity_memory(n, sizeof *host);
    float *early = parity_memory(n, sizeof *early);
    cuda_memory_read(host, out, n * (int64_t)sizeof *host);
    work.pages_are_old = true;
    CHECK_STATUS(kern_cuda_attn(NULL, &work, &args), BASE_OK);
    CHECK_STATUS(kern_cuda_attn(NULL, &work, &args), BASE_OK);
    cuda_memory_read(early, out, n * (int64_t)sizeof *early);
    assert_memory_equal(early, host, (size_t)n * sizeof *early);
    free(early);
    cuda_memory_free(out);
    cuda_memory_free(work.workspace);
    free(poison);
    return host;
}

static inline float *cw_run(const cw_world *w)
{
    return cw_run_out_of(w, NULL);
}

static inline double cw_value(const cw_world *w, int32_t seq, int64_t p, int64_t j, int32_t side,
                              int32_t d)
{
    const int32_t n = (int32_t)(j / KERN_BLOCK_TOKENS);
    const int32_t own = (int32_t)(p / KERN_BLOCK_TOKENS);
    const cw_block *b = &w->blocks[seq][n];
    const int64_t at =
        ((int64_t)side * KERN_BLOCK_TOKENS + j % KERN_BLOCK_TOKENS) * w->spec.head_dim + d;
    const bool as_rows = own - n <= w->spec.window_blocks || n < w->spec.sink_blocks;
    return as_rows ? (double)base_f32_from_bf16(b->rows[at]) : (double)b->values[at];
}

/* fp64 attention of one query row over the positions of this rank.  length: the largest scale |q| |K_j|. */
static inline void cw_reference(const cw_world *w, int32_t seq, int64_t p, int32_t head,
                                const float *q, double *o, double *lse, double *length)
{
    const int32_t side = head / w->spec.group * 2;
    double *x = parity_memory(p + 1, sizeof *x);
    double top = -INFINITY;
    double sum = 0.0;
    for (int64_t j = 0; j <= p; j++) {
        x[j] = -INFINITY;
        if (w->blocks[seq][j / KERN_BLOCK_TOKENS].is_here) {
            double dot = 0.0;
            double key = 0.0;
            double query = 0.0;
            for (int32_t d = 0; d < w->spec.head_dim; d++) {
                const double k = cw_value(w, seq, p, j, side, d);
                dot += (double)q[d] * k;
                key += k * k;
                query += (double)q[d] * (double)q[d];
            }
            x[j] = dot * (double)w->args.scale;
            *length = fmax(*length, (double)w->args.scale * sqrt(key * query));
            top = x[j] > top ? x[j] : top;
        }
    }
    memset(o, 0, (size_t)w->spec.head_dim * sizeof *o);
    for (int64_t j = 0; j <= p; j++) {
        if (x[j] != -INFINITY) {
            const double weight = exp(x[j] - top);
            sum += weight;
            for (int32_t d = 0; d < w->spec.head_dim; d++) {
                o[d] += weight * cw_value(w, seq, p, j, side + 1, d);
            }
        }
    }
    for (int32_t d = 0; d < w->spec.head_dim && sum > 0.0; d++) {
        o[d] /= sum;
    }
    *lse = sum > 0.0 ? top + log(sum) : -INFINITY;
    free(x);
}

/* The tolerances of op_attn.h for every element (values are below 16; a logit may be off by 2e-5 of its length, and
 * lse with it), and of cuda_pages.h in norm. */
static inline void cw_check(const cw_world *w, const float *out)
{
    const float *out_lse = out + (int64_t)w->n_tokens * w->n_heads * w->spec.head_dim;
    double error = 0.0;
    double norm = 0.0;
    int64_t row = 0;
    for (int32_t i = 0; i < w->spec.n_seqs; i++) {
        for (int32_t t = 0; t < w->spec.n_tokens[i]; t++) {
            for (int32_t h = 0; h < w->n_heads; h++, row++) {
                double o[KERN_MAX_HEAD_DIM];
                double lse;
                double length = 0.0;
                cw_reference(w, i, w->spec.position[i] + t, h, w->q + row * w->spec.head_dim, o,
                             &lse, &length);
                parity_near((double)out_lse[row], lse, 1e-4 + 1e-6 * fabs(lse) + 2e-5 * length,
                            "lse", row);
                for (int32_t d = 0; d < w->spec.head_dim; d++) {
                    const int64_t at = row * w->spec.head_dim + d;
                    parity_near((double)out[at], o[d], 2e-4 * 16.0, "o", at);
                    error += ((double)out[at] - o[d]) * ((double)out[at] - o[d]);
                    norm += o[d] * o[d];
                }
            }
        }
    }
    const cuda_family family = w->lent_formats->family;
    const double limit = family == CUDA_CODED ? 2e-4 : family == CUDA_AFFINE ? 1e-4 : 5e-5;
    if (!(sqrt(error) <= limit * sqrt(norm))) {
        fail_msg("error %.3g of the norm of o, family %d", sqrt(error / norm),
                 (int)w->lent_formats->family);
    }
}

static inline void cw_agrees(kern_ctx *ctx, const cw_spec *spec)
{
    cw_world *w = cw_create(ctx, spec);
    float *out = cw_run(w);
    cw_check(w, out);
    free(out);
    cw_destroy(w);
}

#endif /* TESTS_SUPPORT_CUDA_WORLD_H */
