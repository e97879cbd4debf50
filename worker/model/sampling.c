#include "worker/model/sampling.h"

#include "base/checked.h"

#include <string.h>

static size_t ids_bytes(const sampling_limits *l)
{
    return (size_t)l->n_slots * sizeof(int32_t);
}

static size_t made_bytes(const sampling_limits *l)
{
    return ids_bytes(l) + (size_t)l->n_rows * sizeof(kern_sample_report);
}

static size_t words_of(const sampling_limits *l)
{
    return (size_t)KERN_SAMPLE_SEEN_WORDS(l->n_vocab);
}

/* Sizes of logits and seen; false on overflow. */
static bool measure(const sampling_limits *l, size_t *logits_out, size_t *seen_out)
{
    return base_checked_mul((size_t)l->n_rows, (size_t)l->n_vocab * sizeof(float), logits_out) &&
           base_checked_mul((size_t)l->n_slots, words_of(l) * sizeof(uint64_t), seen_out);
}

int64_t sampling_bytes(const sampling_limits *l)
{
    size_t logits = 0;
    size_t n = 0;
    if (l->n_slots == 0) {
        return 0;
    }
    const bool fits = measure(l, &logits, &n) && base_checked_add(n, logits, &n) &&
                      base_checked_add(n, (1 + KERN_MAX_FETCHES) * made_bytes(l), &n);
    return fits && n <= INT64_MAX ? (int64_t)n : INT64_MAX;
}

base_status sampling_init(sampling *s, const sampling_limits *limits, kern_ctx *ctx,
                          const base_alloc *mem)
{
    size_t logits = 0;
    size_t seen = 0;
    const base_alloc *memory = kern_memory(ctx);
    const base_alloc *mirror = kern_mirror(ctx);

    *s = (sampling){.limits = *limits, .ctx = ctx, .mem = *mem};
    if (limits->n_slots == 0) {
        return BASE_OK;
    }
    bool ok = measure(limits, &logits, &seen);
    if (ok) {
        s->logits = memory->get(memory->ctx, logits);
        s->seen = mirror->get(mirror->ctx, seen);
        s->made = mirror->get(mirror->ctx, made_bytes(limits));
        ok = s->logits != NULL && s->seen != NULL && s->made != NULL;
    }
    for (int32_t i = 0; ok && i < KERN_MAX_FETCHES; i++) {
        s->taken[i] = mem->get(mem->ctx, made_bytes(limits));
        ok = s->taken[i] != NULL;
    }
    return ok ? BASE_OK
              : BASE_FAIL(BASE_NO_MEMORY, "tokens of %d slots: %lld bytes", limits->n_slots,
                          (long long)sampling_bytes(limits));
}

void sampling_reset(sampling *s)
{
    if (s->ctx == NULL) {
        return;
    }
    const base_alloc *memory = kern_memory(s->ctx);
    const base_alloc *mirror = kern_mirror(s->ctx);
    for (int32_t i = 0; i < KERN_MAX_FETCHES; i++) {
        s->mem.put(s->mem.ctx, s->taken[i]);
    }
    mirror->put(mirror->ctx, s->made);
    mirror->put(mirror->ctx, s->seen);
    memory->put(memory->ctx, s->logits);
    *s = (sampling){.ctx = NULL};
}

int32_t *sampling_last_tokens(const sampling *s)
{
    return (int32_t *)(void *)s->made;
}

base_status sampling_prepare(sampling *s, const forward_pick *picks, int32_t n_picks)
{
    for (int32_t i = 0; i < n_picks; i++) {
        const forward_pick *p = &picks[i];
        if (p->seen_ids == NULL) {
            continue;
        }
        const size_t n_bytes = words_of(&s->limits) * sizeof(uint64_t);
        uint64_t *set = s->seen + (size_t)p->how.slot * words_of(&s->limits);
        memset(set, 0, n_bytes);
        for (int64_t k = 0; k < p->n_seen; k++) {
            set[p->seen_ids[k] / 64] |= (uint64_t)1 << (p->seen_ids[k] % 64);
        }
        const base_status st = kern_send(s->ctx, set, n_bytes);
        if (st != BASE_OK) {
            return st;
        }
    }
    return BASE_OK;
}

static kern_sample_report *reports_of(const sampling *s, char *made)
{
    return (kern_sample_report *)(void *)(made + ids_bytes(&s->limits));
}

base_status sampling_run(const sampling *s, const kern_sample_row *rows, int32_t n_rows)
{
    const kern_sample_args args = {
        .logits = s->logits,
        .rows = rows,
        .ids = sampling_last_tokens(s),
        .seen = s->seen,
        .reports = reports_of(s, s->made),
        .n_rows = n_rows,
        .n_vocab = s->limits.n_vocab,
        .n_slots = s->limits.n_slots,
    };
    return kern_sample(s->ctx, &args);
}

base_status sampling_begin_fetch(sampling *s, int32_t n_reports)
{
    const size_t n_bytes = ids_bytes(&s->limits) + (size_t)n_reports * sizeof(kern_sample_report);
    const base_status st =
        kern_fetch_begin(s->ctx, s->made, n_bytes, s->taken[s->n_begun % KERN_MAX_FETCHES]);
    s->n_begun += st == BASE_OK;
    return st;
}

base_status sampling_end_fetch(sampling *s, forward_made *made_out)
{
    char *taken = s->taken[s->n_ended % KERN_MAX_FETCHES];
    const base_status st = kern_fetch_end(s->ctx);
    s->n_ended += st == BASE_OK;
    *made_out = (forward_made){.last_tokens = (const int32_t *)(void *)taken,
                               .reports = reports_of(s, taken)};
    return st;
}
