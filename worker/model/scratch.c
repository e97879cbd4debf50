#include "worker/model/scratch.h"

#include "base/checked.h"

#include <inttypes.h>

#define ALIGN_BYTES 64 /* a cache line, and what vector loads like */
#define N_BUFFERS   11

typedef struct plan {
    size_t begin[N_BUFFERS]; /* bytes, in the order of the struct */
    size_t n_bytes;
    size_t partial_bytes; /* apart from these */
} plan;

static void *align(void *data)
{
    return (char *)data + (ALIGN_BYTES - (uintptr_t)data % ALIGN_BYTES) % ALIGN_BYTES;
}

/* False on overflow. */
static bool plan_make(const model_config *c, const scratch_limits *l, plan *p)
{
    const size_t t = (size_t)l->n_tokens;
    const size_t d = (size_t)c->head_dim;
    const size_t width = (size_t)c->width;
    const size_t q_width = (size_t)c->n_heads * d;
    const size_t kv_width = (size_t)c->n_kv_heads * d;
    const size_t partial_width = (q_width + (size_t)c->n_heads) * sizeof(float);
    const size_t shapes[N_BUFFERS][2] = {
        {t, width},
        {t, width},
        {t, q_width},
        {t, kv_width},
        {t, kv_width},
        {t, q_width},
        {t, (size_t)c->ffn_width},
        {t, (size_t)c->ffn_width},
        {(size_t)l->n_samples, width},
        {1, d / 2},
        {t, d},
    };
    size_t at = 0;
    for (int32_t i = 0; i < N_BUFFERS; i++) {
        size_t n_bytes;
        p->begin[i] = at;
        if (!base_checked_mul(shapes[i][0], shapes[i][1], &n_bytes) ||
            !base_checked_mul(n_bytes, sizeof(float), &n_bytes) ||
            !base_checked_add(n_bytes, ALIGN_BYTES - 1, &n_bytes) ||
            !base_checked_add(at, n_bytes / ALIGN_BYTES * ALIGN_BYTES, &at)) {
            return false;
        }
    }
    p->n_bytes = at + ALIGN_BYTES; /* to align the start */
    size_t all = 0;
    return base_checked_mul(t * (size_t)l->n_ranks, partial_width, &p->partial_bytes) &&
           base_checked_add(p->partial_bytes, ALIGN_BYTES, &p->partial_bytes) &&
           base_checked_add(p->n_bytes, p->partial_bytes, &all) && all <= INT64_MAX;
}

int64_t scratch_bytes(const model_config *config, const scratch_limits *limits)
{
    plan p;
    return plan_make(config, limits, &p) ? (int64_t)(p.n_bytes + p.partial_bytes) : INT64_MAX;
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
    s->data = mem->get(mem->ctx, p.n_bytes);
    s->partial_data = s->exchanged->get(s->exchanged->ctx, p.partial_bytes);
    if (s->data == NULL || s->partial_data == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY,
                         "scratch of a step of %d tokens: %zu bytes, and %zu of partials",
                         limits->n_tokens, p.n_bytes, p.partial_bytes);
    }
    char *start = align(s->data);
    s->partials = align(s->partial_data);
    float **const buffers[N_BUFFERS] = {&s->x,      &s->h,        &s->q,    &s->k,
                                        &s->v,      &s->attn,     &s->gate, &s->up,
                                        &s->sample, &s->inv_freq, &s->turns};
    for (int32_t i = 0; i < N_BUFFERS; i++) {
        *buffers[i] = (float *)(void *)(start + p.begin[i]);
    }
    rope_frequencies(config->rope_theta, &config->rope, config->head_dim, s->inv_freq);
    return kern_send(ctx, s->inv_freq, (size_t)config->head_dim / 2 * sizeof(float));
}

void scratch_reset(scratch *s)
{
    if (s->ctx != NULL) {
        const base_alloc *mem = kern_mirror(s->ctx);
        s->exchanged->put(s->exchanged->ctx, s->partial_data);
        mem->put(mem->ctx, s->data);
        *s = (scratch){.ctx = NULL};
    }
}
