/* tests/support/exchange_case.h - calls of exchange.h with what every word of their outputs is to be: what
 * kern_cuda_merge makes of the same partials, or a sum in rank order.  The ranks may be streams of one process, or
 * processes. */
#ifndef TESTS_SUPPORT_EXCHANGE_CASE_H
#define TESTS_SUPPORT_EXCHANGE_CASE_H

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/exchange_attend.h"
#include "tests/support/cuda_world.h"
#include "tests/support/exchange_plan.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity_cuda.h"

#define N_SETS     3 /* of partials, which calls take in turn */
#define GROUP      4 /* query heads of a KV head */
#define DELAY_MAX  ((size_t)96 << 20)
#define LIMIT_US   4000000
#define SET_STRIDE ((int64_t)MAX_ROWS * 129)

typedef struct exchange_case { /* what all ranks of a plan share */
    const plan *p;
    parity_device device;
    kern_head_format *formats;
    int32_t n_kv_heads;
    void *delays;
    cw_world *worlds
        [MAX_RANKS]; /* of calls that attend: each rank's blocks of the same sequences; or NULL */
} exchange_case;

typedef struct rank {
    const exchange_case *x;
    int32_t index;
    cudaStream_t stream;
    cuda_exchange_port port; /* the caller's to fill, before record */
    float *out;              /* device: [n_calls][MAX_ROWS][D + 1] */
    uint32_t *words;         /* device: [n_calls][MAX_WORDS] */
    cudaGraphExec_t graph;
    parity_device device;
    void *workspace; /* of calls that attend */
} rank;

#define OK(expr) assert_int_equal((expr), cudaSuccess)

static float *exchange_sets[N_SETS]; /* [MAX_RANKS][SET_STRIDE]: rows, then lse at MAX_ROWS * 128 */

/* Normals, with rows that nobody has, ranks that are empty, NaN, and weights that underflow. */
static inline float *make_set(int32_t set)
{
    float *x = parity_normals(700 + (uint64_t)set, MAX_RANKS * SET_STRIDE, 2.0);
    for (int32_t i = 0; i < MAX_RANKS * MAX_ROWS; i++) {
        const uint64_t dice = base_random_u64(PARITY_SEED, 800 + (uint64_t)set, (uint64_t)i) % 16;
        const int32_t row = i % MAX_ROWS;
        float *o = x + i / MAX_ROWS * SET_STRIDE + row * 128;
        float *lse = x + i / MAX_ROWS * SET_STRIDE + MAX_ROWS * 128 + row;
        if (row % 16 == set || dice == 0) {
            *lse = -INFINITY;
            o[3] = NAN;
        } else if (dice == 1) {
            *lse *= 1000.0f;
        } else if (dice == 2 && set == 1) {
            *lse = NAN;
        } else if (dice == 3 && set == 2) {
            memset(o, 0xff, 5 * sizeof *o); /* the mark itself */
        }
    }
    return x;
}

/* Of a call: where a rank's place begins, 16-byte aligned. */
static inline int64_t stride_of(const plan *p, const call *c)
{
    return ((int64_t)c->rows * (p->head_dim + 1) + 3) / 4 * 4;
}

/* What attention of a rank's blocks takes, for the first sequences, to partials in device memory. */
static inline kern_attn_args attn_of(const exchange_case *w, const call *c, int32_t r, float *mine,
                                     void *workspace, kern_cuda_attn_work *work_out)
{
    const cw_world *world = w->worlds[r];
    kern_attn_args a = world->args;
    a.n_seqs = a.n_tokens = c->rows / w->p->n_heads;
    a.o = mine;
    a.lse = mine + (int64_t)c->rows * w->p->head_dim;
    *work_out = (kern_cuda_attn_work){
        .formats = world->lent_formats, .workspace = workspace, .max_seq_tokens = 1};
    return a;
}

/* The partials that attention of a rank makes for call c. */
static inline void attend_alone(const exchange_case *w, int32_t c, int32_t r, float *to)
{
    const int64_t n = (int64_t)w->p->calls[c].rows * (w->p->head_dim + 1);
    kern_cuda_attn_work work;
    void *workspace = NULL;
    float *mine = NULL;
    OK(cudaMalloc(&workspace, (size_t)kern_cuda_attn_workspace_bytes()));
    OK(cudaMalloc((void **)&mine, (size_t)n * sizeof *mine));
    const kern_attn_args a = attn_of(w, &w->p->calls[c], r, mine, workspace, &work);
    CHECK_STATUS(kern_cuda_attn(NULL, &work, &a), BASE_OK);
    OK(cudaMemcpy(to, mine, (size_t)n * sizeof *to, cudaMemcpyDeviceToHost));
    OK(cudaFree(mine));
    OK(cudaFree(workspace));
}

/* The partials of a rank for call c in its place of all. */
static inline void lay_out(const exchange_case *w, int32_t c, int32_t r, float *all)
{
    const plan *p = w->p;
    const int32_t rows = p->calls[c].rows;
    const int64_t n = (int64_t)rows * p->head_dim;
    if (attends(p->calls[c].kind)) {
        attend_alone(w, c, r, all + r * stride_of(p, &p->calls[c]));
        return;
    }
    const float *x = exchange_sets[c % N_SETS] + r * SET_STRIDE;
    float *to = all + r * stride_of(p, &p->calls[c]);
    memcpy(to, x, (size_t)n * sizeof *to);
    memcpy(to + n, x + MAX_ROWS * 128, (size_t)rows * sizeof *to);
}

static inline kern_merge_args args_of(const exchange_case *w, const call *c, const float *partials,
                                      float *out)
{
    const plan *p = w->p;
    const kern_merge_args a = {.partials = partials,
                               .rank_stride = stride_of(p, c),
                               .o = out,
                               .lse = out + (int64_t)c->rows * p->head_dim,
                               .n_ranks = p->n_ranks,
                               .rows = c->rows,
                               .head_dim = p->head_dim,
                               .formats = w->formats,
                               .n_heads = p->n_heads,
                               .n_kv_heads = w->n_kv_heads};
    return a;
}

/* As ranks that share weights have them (worker/model/split.h): whole groups of a KV head's, as even as they go; with more
 * ranks than KV heads the ranks of one share its heads.  3 ranks of 4 groups have 1, 1 and 2; 4 ranks of 3 have 2, 2, 4 and
 * 4 heads. */
static inline void share_heads(const plan *p, int32_t *begins)
{
    const int32_t n = p->n_ranks;
    const int32_t n_kv = p->n_heads / GROUP;
    for (int32_t r = 0; r <= n; r++) {
        const int32_t kv = r * n_kv / n;
        const int32_t first = (kv * n + n_kv - 1) / n_kv;
        const int32_t end = ((kv + 1) * n + n_kv - 1) / n_kv;
        begins[r] = kv * GROUP + (n > n_kv && r < n ? GROUP * (r - first) / (end - first) : 0);
    }
}

static inline kern_deal_args deal_of(const plan *p, const call *c, const int32_t *begins,
                                     const float *mine)
{
    const kern_deal_args d = {.x = mine,
                              .begins = begins,
                              .n_ranks = p->n_ranks,
                              .n_tokens = c->rows / p->n_heads,
                              .n_heads = p->n_heads,
                              .head_dim = p->head_dim};
    return d;
}

static inline kern_merge_args own_args_of(const exchange_case *w, const kern_deal_args *d,
                                          int32_t r, float *out)
{
    const int32_t first_group = d->begins[r] / GROUP;
    const int32_t n_own = d->begins[r + 1] - d->begins[r];
    const kern_merge_args a = {.o = out,
                               .lse = out + (int64_t)d->n_tokens * n_own * d->head_dim,
                               .n_ranks = d->n_ranks,
                               .rows = d->n_tokens * n_own,
                               .head_dim = d->head_dim,
                               .formats = w->formats == NULL ? NULL : w->formats + first_group,
                               .n_heads = n_own,
                               .n_kv_heads = (n_own + GROUP - 1) / GROUP};
    return a;
}

/* Words that a rank gives to call c. */
static inline const float *words_of(int32_t c, int32_t r)
{
    return exchange_sets[c % N_SETS] + r * SET_STRIDE;
}

/* What every rank is to have after call c, a sum or a gather; *n_out words. */
static inline float *expected_words(const plan *p, int32_t c, int64_t *n_out)
{
    const call *one = &p->calls[c];
    const bool sums = one->kind == SUM;
    const int64_t n = one->n_words;
    float *out = parity_memory(n * p->n_ranks, sizeof *out);
    for (int32_t r = 0; r < p->n_ranks; r++) {
        for (int64_t i = 0; i < n && sums; i++) {
            out[i] = r == 0 ? words_of(c, r)[i] : out[i] + words_of(c, r)[i];
        }
        if (!sums) {
            memcpy(out + r * n, words_of(c, r), (size_t)n * sizeof *out);
        }
    }
    for (int64_t i = 0; i < n && sums; i++) {
        const uint32_t nan = 0x7fffffff; /* the one that a GPU's additions make */
        if (isnan(out[i]) && p->n_ranks > 1) {
            memcpy(out + i, &nan, sizeof nan);
        } else if (base_f32_bits(out[i]) == 0xffffffff) {
            out[i] = NAN; /* the mark is not sent */
        }
    }
    *n_out = sums ? n : n * p->n_ranks;
    return out;
}

/* What a rank is to have after call c: all rows that the op merges from gathered partials, or its heads of them. */
static inline float *expected(const exchange_case *w, int32_t c, int32_t r, int64_t *n_out)
{
    const plan *p = w->p;
    const call *one = &p->calls[c];
    const int64_t d = p->head_dim;
    int32_t begins[MAX_RANKS + 1];
    share_heads(p, begins);
    const int32_t first = is_own(one->kind) ? begins[r] : 0;
    const int32_t heads = is_own(one->kind) ? begins[r + 1] - first : p->n_heads;
    const int32_t rows = one->rows / p->n_heads * heads;
    const int64_t n_all = p->n_ranks * stride_of(p, one);
    float *all = parity_memory(n_all, sizeof *all);
    float *out = parity_memory(one->rows * (d + 1), sizeof *out);

    for (int32_t i = 0; i < p->n_ranks; i++) {
        lay_out(w, c, i, all);
    }
    float *lent = on_device(all, (size_t)n_all * sizeof *all);
    void *merged = on_device(out, (size_t)(one->rows * (d + 1)) * sizeof *out);
    const kern_merge_args a = args_of(w, one, lent, merged);
    CHECK_STATUS(kern_cuda_merge(NULL, &a), BASE_OK);
    float *full = from_device(merged, one->rows * (d + 1));
    for (int32_t row = 0; row < rows; row++) {
        const int64_t from = (int64_t)(row / heads) * p->n_heads + first + row % heads;
        memcpy(out + row * d, full + from * d, (size_t)d * sizeof *out);
        out[rows * d + row] = full[one->rows * d + from];
    }
    free(full);
    free(all);
    OK(cudaFree(lent));
    *n_out = rows * (d + 1);
    return out;
}

static inline void make_formats(exchange_case *w)
{
    const plan *p = w->p;
    w->n_kv_heads = p->n_heads / GROUP;
    if (!p->formats) {
        return;
    }
    page_fixture *fx = parity_memory(w->n_kv_heads, sizeof *fx);
    kern_head_format *formats = parity_memory(w->n_kv_heads, sizeof *formats);
    uint16_t order[128];
    for (int32_t d = 0; d < p->head_dim; d++) {
        order[d] = (uint16_t)(d * 37 % p->head_dim);
    }
    for (int32_t h = 0; h < w->n_kv_heads; h++) {
        const int32_t bits[2] = {3, 2 + h % 3};
        page_fixture_init(&fx[h], p->head_dim, 2, bits, bits, h % 3 != 2, 3 + (uint64_t)h);
        formats[h] = fx[h].format;
        formats[h].v.order = h % 2 == 0 ? order : NULL;
    }
    w->formats = device_formats(&w->device, formats, w->n_kv_heads);
    free(formats);
    free(fx);
}

/* Sequences that all ranks have blocks of, that one rank has all of, and one that ends as its block begins. */
static inline void make_worlds(exchange_case *x)
{
    const plan *p = x->p;
    bool needed = false;
    for (int32_t c = 0; c < p->n_calls; c++) {
        needed = needed || attends(p->calls[c].kind);
    }
    if (!needed) {
        return;
    }
    kern_ctx *ctx = parity_ctx(1);
    cw_spec spec = {.head_dim = p->head_dim,
                    .n_kv_heads = p->n_heads / GROUP,
                    .group = GROUP,
                    .n_segments = 1,
                    .k_bits = {3},
                    .v_bits = {3},
                    .n_seqs = 4,
                    .position = {5000, 100, 128, 1300},
                    .n_tokens = {1, 1, 1, 1},
                    .n_ranks = p->n_ranks};
    for (spec.rank = 0; spec.rank < p->n_ranks; spec.rank++) {
        x->worlds[spec.rank] = cw_create(ctx, &spec);
    }
    kern_ctx_destroy(ctx);
}

static inline void case_open(exchange_case *x, const plan *p)
{
    *x = (exchange_case){.p = p};
    make_worlds(x);
    OK(cudaMalloc(&x->delays, DELAY_MAX));
    make_formats(x);
    for (int32_t i = 0; i < N_SETS && exchange_sets[i] == NULL; i++) {
        exchange_sets[i] = make_set(i);
    }
}

static inline void case_close(exchange_case *x)
{
    for (int32_t r = 0; r < MAX_RANKS && x->worlds[r] != NULL; r++) {
        cw_destroy(x->worlds[r]);
    }
    device_free(&x->device);
    OK(cudaFree(x->delays));
}

static inline void rank_open(rank *k, const exchange_case *x, int32_t index)
{
    const plan *p = x->p;
    const size_t n_out = (size_t)p->n_calls * MAX_ROWS * (size_t)(p->head_dim + 1);
    *k = (rank){.x = x, .index = index};
    OK(cudaStreamCreateWithFlags(&k->stream, cudaStreamNonBlocking));
    OK(cudaMalloc((void **)&k->out, n_out * sizeof(float)));
    OK(cudaMalloc((void **)&k->words, (size_t)p->n_calls * MAX_WORDS * sizeof(uint32_t)));
    OK(cudaMalloc(&k->workspace, (size_t)kern_cuda_attn_workspace_bytes()));
}

static inline void rank_close(rank *k)
{
    if (k->graph != NULL) {
        OK(cudaGraphExecDestroy(k->graph));
    }
    device_free(&k->device);
    OK(cudaFree(k->out));
    OK(cudaFree(k->words));
    OK(cudaFree(k->workspace));
    OK(cudaStreamDestroy(k->stream));
}

/* The rank's own partials of a call on the device; the others' places are not to be read.  Of a sum or a gather its
 * words. */
static inline float *lend(rank *k, int32_t c)
{
    const plan *p = k->x->p;
    if (p->calls[c].kind == BROADCAST) {
        return NULL;
    }
    if (p->calls[c].kind >= SUM) {
        return device_copy(&k->device, words_of(c, k->index),
                           (size_t)p->calls[c].n_words * sizeof(float));
    }
    const size_t n_bytes = (size_t)(p->n_ranks * stride_of(p, &p->calls[c])) * sizeof(float);
    float *all = parity_memory((int64_t)n_bytes, 1);
    memset(all, 0xff, n_bytes);
    if (!attends(p->calls[c].kind)) {
        lay_out(k->x, c, k->index, all);
    }
    float *lent = device_copy(&k->device, all, n_bytes);
    free(all);
    return lent;
}

static inline void call_once(const rank *k, int32_t c, float *lent)
{
    const plan *p = k->x->p;
    const call *one = &p->calls[c];
    float *out = k->out + (int64_t)c * MAX_ROWS * (p->head_dim + 1);
    const size_t n_bytes = (size_t)one->n_words * sizeof(float);
    int32_t begins[MAX_RANKS + 1];
    share_heads(p, begins);
    const kern_merge_args all = args_of(k->x, one, lent, out);
    const kern_deal_args deal = deal_of(p, one, begins, lent + k->index * stride_of(p, one));
    const kern_merge_args own = own_args_of(k->x, &deal, k->index, out);
    kern_cuda_attn_work work = {0};
    kern_attn_args attn = {0};
    if (attends(one->kind)) {
        attn =
            attn_of(k->x, one, k->index, lent + k->index * stride_of(p, one), k->workspace, &work);
    }
    base_status st = BASE_OK;

    switch (one->kind) {
    case MERGE: st = cuda_exchange_merge(k->stream, &k->port, &all); break;
    case MERGE_OWN: st = cuda_exchange_merge_own(k->stream, &k->port, &deal, &own); break;
    case ATTEND: st = cuda_exchange_attend(k->stream, &k->port, &work, &attn, NULL, &all); break;
    case ATTEND_OWN:
        st = cuda_exchange_attend(k->stream, &k->port, &work, &attn, &deal, &own);
        break;
    case BROADCAST:
        st = cuda_exchange_broadcast(k->stream, &k->port, k->words + (int64_t)c * MAX_WORDS,
                                     one->n_words, one->root);
        break;
    case SUM:
        OK(cudaMemcpyAsync(out, lent, n_bytes, cudaMemcpyDeviceToDevice, k->stream));
        st = cuda_exchange_sum(k->stream, &k->port, out, one->n_words);
        break;
    case GATHER: {
        const bool in_place = c % 2 == 0;
        float *mine = in_place ? out + (int64_t)k->index * one->n_words : lent;
        if (in_place) {
            OK(cudaMemcpyAsync(mine, lent, n_bytes, cudaMemcpyDeviceToDevice, k->stream));
        }
        st = cuda_exchange_gather(k->stream, &k->port, (const uint32_t *)mine, (uint32_t *)out,
                                  one->n_words);
        break;
    }
    }
    CHECK_STATUS(st, BASE_OK);
}

static inline uint32_t word_of(int32_t r, int32_t c, int32_t i)
{
    return (uint32_t)(r * 1000003 + c * 1009 + i * 7 + 1);
}

/* Calls of a rank in one graph, with pauses of any length between some of them. */
static inline void record(rank *k)
{
    const plan *p = k->x->p;
    cudaGraph_t graph = NULL;
    float *lent[MAX_CALLS] = {NULL};
    for (int32_t c = 0; c < p->n_calls; c++) {
        lent[c] = lend(k, c);
    }
    OK(cudaStreamBeginCapture(k->stream, cudaStreamCaptureModeThreadLocal));
    for (int32_t c = 0; c < p->n_calls; c++) {
        const uint64_t dice = base_random_u64(PARITY_SEED, 900 + (uint64_t)k->index, (uint64_t)c);
        if (dice % 4 == 0) {
            OK(cudaMemsetAsync(k->x->delays, 0, 1 + dice / 4 % DELAY_MAX, k->stream));
        }
        call_once(k, c, lent[c]);
    }
    OK(cudaStreamEndCapture(k->stream, &graph));
    OK(cudaGraphInstantiate(&k->graph, graph, 0));
    OK(cudaGraphDestroy(graph));
    OK(cudaGraphUpload(
        k->graph, k->stream)); /* else the launch might wait for ranks that wait for this one */
    OK(cudaStreamSynchronize(k->stream));
}

/* Outputs that no call leaves as they are, and each rank's own words. */
static inline void spoil(const rank *k)
{
    const plan *p = k->x->p;
    uint32_t *words = parity_memory((int64_t)p->n_calls * MAX_WORDS, sizeof *words);
    for (int32_t c = 0; c < p->n_calls; c++) {
        for (int32_t i = 0; i < MAX_WORDS; i++) {
            words[c * MAX_WORDS + i] = word_of(k->index, c, i);
        }
    }
    OK(cudaMemcpy(k->words, words, (size_t)p->n_calls * MAX_WORDS * sizeof *words,
                  cudaMemcpyHostToDevice));
    OK(cudaMemset(k->out, 0x5a,
                  (size_t)p->n_calls * MAX_ROWS * (size_t)(p->head_dim + 1) * sizeof(float)));
    OK(cudaDeviceSynchronize());
    free(words);
}

static inline void check_rank(const rank *k)
{
    const plan *p = k->x->p;
    const int64_t slab = (int64_t)MAX_ROWS * (p->head_dim + 1);
    float *out = parity_memory(slab, sizeof *out);
    uint32_t words[MAX_WORDS];
    for (int32_t c = 0; c < p->n_calls; c++) {
        const call *one = &p->calls[c];
        if (one->kind == BROADCAST) {
            OK(cudaMemcpy(words, k->words + (int64_t)c * MAX_WORDS, sizeof words,
                          cudaMemcpyDeviceToHost));
            for (int32_t i = 0; i < MAX_WORDS; i++) {
                assert_int_equal(words[i], word_of(i < one->n_words ? one->root : k->index, c, i));
            }
            continue;
        }
        int64_t n = 0;
        float *want = one->kind >= SUM ? expected_words(p, c, &n) : expected(k->x, c, k->index, &n);
        OK(cudaMemcpy(out, k->out + c * slab, (size_t)n * sizeof *out, cudaMemcpyDeviceToHost));
        for (int64_t i = 0; i < n; i++) {
            if (base_f32_bits(out[i]) != base_f32_bits(want[i])) {
                fail_msg(
                    "rank %d of %d, call %d (%d) of %d rows, %d words: word %lld is %08x, want "
                    "%08x",
                    k->index, p->n_ranks, c, one->kind, one->rows, one->n_words, (long long)i,
                    base_f32_bits(out[i]), base_f32_bits(want[i]));
            }
        }
        free(want);
    }
    free(out);
}

#endif /* TESTS_SUPPORT_EXCHANGE_CASE_H */
