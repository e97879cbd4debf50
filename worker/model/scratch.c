#include "worker/model/scratch.h"

#include "base/checked.h"
#include "worker/model/rows.h"

#include <inttypes.h>

#define ALIGN_BYTES 64 /* a cache line, and what vector loads like */
#define N_OWN \
    10 /* buffers of the mirror, in the order of the struct; then those that are exchanged */
#define N_BUFFERS 15

typedef struct plan {
    size_t begin[N_BUFFERS]; /* bytes; of either kind from 0 */
    size_t own_bytes;
    size_t exchanged_bytes;
} plan;

static void *align(void *data)
{
    return (char *)data + (ALIGN_BYTES - (uintptr_t)data % ALIGN_BYTES) % ALIGN_BYTES;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* False on overflow. */
static bool plan_make(const model_config *c, const scratch_limits *l, plan *p)
{
    const bool split = model_is_split(l->split);
    const model_rows longest = model_rows_make(l->split, 0, l->n_ranks, l->n_tokens);
    const bool shared = model_rows_are_shared(&longest);
    const size_t n_ranks = (size_t)l->n_ranks;
    const size_t t = (size_t)longest.n_ranks * (size_t)longest.n_each; /* shares are as long */
    const size_t t_short = /* of the longest step in which each rank has all rows */
        (size_t)(shared ? model_rows_shortest(l->split, l->n_ranks) - 1 : l->n_tokens);
    const size_t own = max_size(t_short, (size_t)longest.n_each);
    const size_t d = (size_t)c->head_dim;
    const size_t width = (size_t)c->width;
    const size_t n_heads = (size_t)c->n_heads;
    const size_t own_heads = (size_t)model_span_count(l->split->heads);
    const size_t own_ffn = (size_t)model_span_count(l->split->ffn);
    const size_t kv_width = (size_t)c->n_kv_heads * d;
    const size_t samples = (size_t)l->n_samples;
    const struct {
        size_t rows;
        size_t cols;
        size_t
            beyond; /* elements: those that a sum over ranks writes behind it, or between ranks' */
    } shapes[N_BUFFERS] = {
        {max_size(own, shared ? samples : 0), width, n_ranks},
        {t, n_heads * d, 0},
        {t, kv_width, 0},
        {t, kv_width, 0},
        {own, own_heads * d, 0},
        {own, own_ffn, 0},
        {own, own_ffn, 0},
        {samples, width, shared ? n_ranks : 0},
        {1, d / 2, 0},
        {t, d, 0},
        {own, width, n_ranks},
        {split ? t : max_size(t_short * n_ranks, t), n_heads * (d + 1), SCRATCH_ALIGN * n_ranks},
        {split || shared ? t : 0, n_heads * (d + 1), 0},
        {split ? t * n_ranks : 0, own_heads * (d + 1), 0},
        {split ? samples * n_ranks : 0, (size_t)l->split->vocab_longest, 0},
    };
    size_t at[2] = {0, 0};
    for (int32_t i = 0; i < N_BUFFERS; i++) {
        size_t *end = &at[i >= N_OWN];
        size_t n;
        p->begin[i] = *end;
        if (!base_checked_mul(shapes[i].rows, shapes[i].cols, &n) ||
            !base_checked_add(n, shapes[i].beyond, &n) || !base_checked_mul(n, sizeof(float), &n) ||
            !base_checked_add(n, ALIGN_BYTES - 1, &n) ||
            !base_checked_add(*end, n / ALIGN_BYTES * ALIGN_BYTES, end)) {
            return false;
        }
    }
    size_t all = 0;
    p->own_bytes = at[0] + ALIGN_BYTES; /* to align the start */
    p->exchanged_bytes = at[1] + ALIGN_BYTES;
    return base_checked_add(p->own_bytes, p->exchanged_bytes, &all) && all <= INT64_MAX;
}

int64_t scratch_bytes(const model_config *config, const scratch_limits *limits)
{
    plan p;
    return plan_make(config, limits, &p) ? (int64_t)(p.own_bytes + p.exchanged_bytes) : INT64_MAX;
}

base_status scratch_init(scratch *s, const model_config *config, const scratch_limits *limits,
                         kern_ctx *ctx, comm *ranks)
{
    const base_alloc *mem = kern_mirror(ctx);
    const base_alloc *wish = comm_memory(ranks);
    plan p;
    if (!plan_make(config, limits, &p)) {
        return BASE_FAIL(BASE_NO_MEMORY, "scratch of a step of %d tokens: more than 2^63 bytes",
                         limits->n_tokens);
    }
    s->ctx = ctx;
    s->exchanged = wish == NULL ? kern_memory(ctx) : wish;
    s->data = mem->get(mem->ctx, p.own_bytes);
    s->exchanged_data = s->exchanged->get(s->exchanged->ctx, p.exchanged_bytes);
    if (s->data == NULL || s->exchanged_data == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY,
                         "scratch of a step of %d tokens: %zu bytes, and %zu that are exchanged",
                         limits->n_tokens, p.own_bytes, p.exchanged_bytes);
    }
    char *const starts[2] = {align(s->data), align(s->exchanged_data)};
    float **const buffers[N_BUFFERS] = {&s->h,        &s->q,        &s->k,     &s->v,
                                        &s->attn,     &s->gate,     &s->up,    &s->sample,
                                        &s->inv_freq, &s->turns,    &s->x,     &s->partials,
                                        &s->dealt,    &s->received, &s->logits};
    for (int32_t i = 0; i < N_BUFFERS; i++) {
        *buffers[i] = (float *)(void *)(starts[i >= N_OWN] + p.begin[i]);
    }
    rope_frequencies(config->rope_theta, &config->rope, config->head_dim, s->inv_freq);
    return kern_send(ctx, s->inv_freq, (size_t)config->head_dim / 2 * sizeof(float));
}

void scratch_reset(scratch *s)
{
    if (s->ctx != NULL) {
        const base_alloc *mem = kern_mirror(s->ctx);
        s->exchanged->put(s->exchanged->ctx, s->exchanged_data);
        mem->put(mem->ctx, s->data);
        *s = (scratch){.ctx = NULL};
    }
}
