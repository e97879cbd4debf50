#include "worker/engine/sampler.h"

#include "base/random.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* A token that may be drawn.  weight is relative to the most likely token's 1. */
typedef struct candidate {
    double weight;
    int32_t id;
} candidate;

struct sampler {
    int32_t n_vocab;
    float *scores;    /* [n_vocab] after the penalty */
    candidate *heap;  /* [n_vocab] */
    candidate *taken; /* [n_vocab] popped from the heap, descending */
    base_alloc mem;
};

base_status sampler_create(int32_t n_vocab, const base_alloc *mem, sampler **sampler_out)
{
    base_status st = BASE_OK;
    sampler *s = NULL;

    if (n_vocab < 1) {
        st = BASE_FAIL(BASE_BAD_INPUT, "n_vocab %d, at least 1", n_vocab);
        goto out;
    }
    s = mem->get(mem->ctx, sizeof *s);
    if (s == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "sampler");
        goto out;
    }
    s->mem = *mem;
    s->n_vocab = n_vocab;
    s->scores = mem->get(mem->ctx, (size_t)n_vocab * sizeof *s->scores);
    s->heap = mem->get(mem->ctx, (size_t)n_vocab * sizeof *s->heap);
    s->taken = mem->get(mem->ctx, (size_t)n_vocab * sizeof *s->taken);
    if (s->scores == NULL || s->heap == NULL || s->taken == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "sampler scratch for %d tokens", n_vocab);
        goto out;
    }
    *sampler_out = s;
    s = NULL;

out:
    sampler_destroy(s);
    return st;
}

void sampler_destroy(sampler *s)
{
    if (s == NULL) {
        return;
    }
    const base_alloc mem = s->mem;
    mem.put(mem.ctx, s->taken);
    mem.put(mem.ctx, s->heap);
    mem.put(mem.ctx, s->scores);
    mem.put(mem.ctx, s);
}

/* Is a strictly better than b?  NaN loses against every number. */
static bool better(float a, float b)
{
    return !isnan(a) && (isnan(b) || a > b);
}

static int32_t best_of(const float *scores, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        if (better(scores[i], scores[best])) {
            best = i;
        }
    }
    return best;
}

static const float *penalised(sampler *s, const float *logits, float penalty, const uint64_t *seen)
{
    if (seen == NULL || penalty == 1.0f) {
        return logits;
    }
    memcpy(s->scores, logits, (size_t)s->n_vocab * sizeof *logits);
    const int32_t n_words = (s->n_vocab + 63) / 64;
    for (int32_t w = 0; w < n_words; w++) {
        for (uint64_t left = seen[w]; left != 0; left &= left - 1) {
            const int32_t id = w * 64 + __builtin_ctzll(left);
            if (id < s->n_vocab) {
                const float x = logits[id];
                s->scores[id] = x > 0.0f ? x / penalty : x * penalty;
            }
        }
    }
    return s->scores;
}

/* ---- a heap with the most likely candidate on top; equal weights: the lower id ---- */

static bool above(const candidate *a, const candidate *b)
{
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

static void sift_down(candidate *heap, int32_t n, int32_t at)
{
    const candidate moved = heap[at];
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && above(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!above(&heap[child], &moved)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void heapify(candidate *heap, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--) {
        sift_down(heap, n, i);
    }
}

static candidate pop(candidate *heap, int32_t *n)
{
    const candidate top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 0) {
        sift_down(heap, *n, 0);
    }
    return top;
}

/* ---- drawing ---- */

/* Every token with a weight above zero, in order of ids.  best's score is the largest. */
static int32_t list_candidates(sampler *s, const float *scores, float best, double temperature)
{
    int32_t n = 0;
    for (int32_t id = 0; id < s->n_vocab; id++) {
        const float x = scores[id];
        double weight;
        if (isnan(x)) {
            continue;
        }
        if (isinf(best)) { /* the difference would be NaN: the infinite ones share */
            weight = x == best ? 1.0 : 0.0;
        } else {
            weight = exp(((double)x - (double)best) / temperature);
        }
        if (weight > 0.0) {
            s->heap[n++] = (candidate){weight, id};
        }
    }
    return n;
}

/* Keeps the top k of n, then the fewest whose weight reaches top_p of the kept ones'; both are in
 * s->taken afterwards. */
static int32_t cut(sampler *s, int32_t n, int32_t top_k, double top_p)
{
    const int32_t n_most = top_k > 0 && top_k < n ? top_k : n;
    double total = 0.0;
    double sum = 0.0;
    int32_t n_taken = 0;

    if (n_most == n) {
        for (int32_t i = 0; i < n; i++) {
            total += s->heap[i].weight;
        }
    }
    heapify(s->heap, n);
    if (n_most < n) {
        for (int32_t i = 0; i < n_most; i++) {
            s->taken[i] = pop(s->heap, &n);
            total += s->taken[i].weight;
        }
        n = 0; /* all popped that may be */
        while (n < n_most && (n == 0 || sum < top_p * total)) {
            sum += s->taken[n++].weight;
        }
        return n;
    }
    while (n > 0 && (n_taken == 0 || sum < top_p * total)) {
        s->taken[n_taken] = pop(s->heap, &n);
        sum += s->taken[n_taken++].weight;
    }
    return n_taken;
}

static int32_t draw(const candidate *from, int32_t n, double min_weight, double unit)
{
    double total = 0.0;
    for (int32_t i = 0; i < n; i++) {
        total += from[i].weight >= min_weight ? from[i].weight : 0.0;
    }
    double left = unit * total;
    int32_t last = from[0].id;
    for (int32_t i = 0; i < n; i++) {
        if (from[i].weight < min_weight) {
            continue;
        }
        last = from[i].id;
        if (left < from[i].weight) {
            break;
        }
        left -= from[i].weight;
    }
    return last; /* rounding may leave a rest: then it is the last one */
}

int32_t sampler_pick(sampler *s, const float *logits, const inference_sampling *params,
                     const uint64_t *seen, uint64_t sample_index, int64_t position)
{
    const float *scores = penalised(s, logits, params->repetition_penalty, seen);
    const int32_t best = best_of(scores, s->n_vocab);
    if (params->temperature <= 0.0f || isnan(scores[best])) {
        return best;
    }
    const candidate *from = s->heap;
    int32_t n = list_candidates(s, scores, scores[best], (double)params->temperature);
    if ((params->top_k > 0 && params->top_k < n) || params->top_p < 1.0f) {
        n = cut(s, n, params->top_k, (double)params->top_p);
        from = s->taken;
    }
    const double unit = base_random_unit(params->seed, sample_index, (uint64_t)position);
    return draw(from, n, (double)params->min_p, unit);
}

/* Finite, because what travels must be. */
static float clamped(double logprob)
{
    return logprob >= -(double)FLT_MAX ? (float)logprob : -FLT_MAX;
}

void sampler_logprobs(sampler *s, const float *logits, int32_t id, int32_t n_top,
                      float *logprob_out, int32_t *top_ids_out, float *top_logprobs_out)
{
    const float best = logits[best_of(logits, s->n_vocab)];
    double sum = 0.0;
    int32_t n_kept = 0;

    for (int32_t i = 0; i < s->n_vocab; i++) {
        const float x = logits[i];
        if (!isnan(x)) {
            sum += isinf(best) ? (double)(x == best) : exp((double)x - (double)best);
        }
        if (n_kept == n_top && (n_top == 0 || !better(x, logits[top_ids_out[n_top - 1]]))) {
            continue;
        }
        int32_t at = n_kept < n_top ? n_kept++ : n_top - 1; /* insertion; the worst falls out */
        while (at > 0 && better(x, logits[top_ids_out[at - 1]])) {
            top_ids_out[at] = top_ids_out[at - 1];
            at--;
        }
        top_ids_out[at] = i;
    }
    const double log_sum = log(sum);
    for (int32_t k = -1; k < n_kept; k++) {
        const float x = logits[k < 0 ? id : top_ids_out[k]];
        const double above_best = x == best ? 0.0 : (double)x - (double)best; /* also of inf */
        const float logprob = clamped(above_best - log_sum);
        if (k < 0) {
            *logprob_out = logprob;
        } else {
            top_logprobs_out[k] = logprob;
        }
    }
}
