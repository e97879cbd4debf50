/* The cut of top_k and top_p is found digit by digit of the distance, as CUDA does it: no sort and no scratch. */
#include "kernels/cpu/cpu_state.h"
#include "kernels/sample_rule.h"

#include <float.h>
#include <math.h>

typedef struct row_view {
    const float *logits;
    const uint64_t *seen; /* NULL: no penalty */
    float penalty;
    int32_t n_vocab;
    float best; /* the largest score */
    float scale;
} row_view;

static float score_of(const row_view *v, int32_t id)
{
    const float x = v->logits[id];
    return v->seen == NULL ? x : sample_score(x, v->seen[id / 64] >> (id % 64) & 1, v->penalty);
}

static uint32_t distance_of(const row_view *v, int32_t id)
{
    return sample_distance(score_of(v, id), v->best, v->scale);
}

static uint64_t best_of(const row_view *v)
{
    uint64_t best = 0;
    for (int32_t id = 0; id < v->n_vocab; id++) {
        const uint64_t key = sample_key(score_of(v, id), id);
        best = key > best ? key : best;
    }
    return best;
}

/* What an id adds to what is looked for: its weight, or one. */
static uint64_t amount(uint32_t q, bool counts)
{
    return q == SAMPLE_FAR ? 0 : counts ? 1 : sample_weight(q);
}

/* The shortest beginning of the order whose amounts reach target; within, if there is none. */
static sample_cut find_cut(const row_view *v, sample_cut within, bool counts, uint64_t target)
{
    uint64_t passed = 0; /* of digits below the one that reaches it */
    uint32_t prefix = 0;

    for (int shift = 24; shift >= 0; shift -= 8) {
        uint64_t sums[256] = {0};
        for (int32_t id = 0; id < v->n_vocab; id++) {
            const uint32_t q = distance_of(v, id);
            if (sample_within(within, q, id) && (uint64_t)q >> (shift + 8) == prefix) {
                sums[q >> shift & 0xff] += amount(q, counts);
            }
        }
        uint32_t digit = 0;
        while (digit < 256 && passed + sums[digit] < target) {
            passed += sums[digit++];
        }
        if (digit == 256) {
            return within;
        }
        prefix = prefix << 8 | digit;
    }
    int32_t id = -1;
    while (passed < target) {
        id++;
        passed += distance_of(v, id) == prefix ? amount(prefix, counts) : 0;
    }
    return (sample_cut){prefix, id};
}

/* The weight with which an id is drawn. */
static uint64_t kept_weight(const row_view *v, sample_cut cut, uint32_t least, int32_t id)
{
    const uint32_t q = distance_of(v, id);
    if (q == SAMPLE_FAR || !sample_within(cut, q, id)) {
        return 0;
    }
    const uint32_t w = sample_weight(q);
    return w >= least ? w : 0;
}

static uint64_t kept_sum(const row_view *v, sample_cut cut, uint32_t least)
{
    uint64_t sum = 0;
    for (int32_t id = 0; id < v->n_vocab; id++) {
        sum += kept_weight(v, cut, least, id);
    }
    return sum;
}

static int32_t draw(const row_view *v, const kern_sample_row *row)
{
    sample_cut cut = {SAMPLE_FAR, -1};
    if (row->top_k > 0 && row->top_k < v->n_vocab) {
        cut = find_cut(v, cut, true, (uint64_t)row->top_k);
    }
    if (row->top_p < 1.0f) {
        cut = find_cut(v, cut, false, sample_target(row->top_p, kept_sum(v, cut, 1)));
    }
    const uint32_t least = sample_least_weight(row->min_p);
    const uint64_t point = sample_point(kept_sum(v, cut, least), row->random);
    int32_t id = 0;
    for (uint64_t sum = kept_weight(v, cut, least, 0); sum <= point;) {
        sum += kept_weight(v, cut, least, ++id);
    }
    return id;
}

/* Finite, because what travels must be. */
static float log_of(float x, float best, double log_sum)
{
    const double logprob = (x == best ? 0.0 : (double)x - (double)best) - log_sum; /* also of inf */
    return logprob >= -(double)FLT_MAX ? (float)logprob : -FLT_MAX;
}

/* The most likely id after the one with key `bound`. */
static uint64_t best_below(const row_view *v, uint64_t bound)
{
    uint64_t best = 0;
    for (int32_t id = 0; id < v->n_vocab; id++) {
        const uint64_t key = sample_key(v->logits[id], id);
        best = key < bound && key > best ? key : best;
    }
    return best;
}

static void report(const row_view *v, int32_t id, int32_t n_top, kern_sample_report *out)
{
    uint64_t key = best_below(v, UINT64_MAX);
    const float best = v->logits[sample_key_id(key)];
    double sum = 0.0;
    for (int32_t i = 0; i < v->n_vocab; i++) {
        const float x = v->logits[i];
        if (!isnan(x)) {
            sum += x == best ? 1.0 : exp((double)x - (double)best);
        }
    }
    const double log_sum = log(sum);
    out->logprob = log_of(v->logits[id], best, log_sum);
    for (int32_t k = 0; k < n_top; k++) {
        out->top_ids[k] = sample_key_id(key);
        out->top_logprobs[k] = log_of(v->logits[out->top_ids[k]], best, log_sum);
        key = best_below(v, key);
    }
}

static void sample_row(const kern_sample_args *a, int32_t r)
{
    const kern_sample_row *row = &a->rows[r];
    row_view v = {.logits = a->logits + (int64_t)r * a->n_vocab,
                  .penalty = row->penalty,
                  .n_vocab = a->n_vocab,
                  .scale = sample_scale(row->temperature)};
    uint64_t *seen = NULL;
    if (row->penalty != 1.0f) {
        seen = a->seen + row->slot * KERN_SAMPLE_SEEN_WORDS(a->n_vocab);
        v.seen = seen;
    }
    const uint64_t best = best_of(&v);
    int32_t id = sample_key_id(best);
    if (row->temperature > 0.0f && !sample_key_is_nan(best)) {
        v.best = score_of(&v, id);
        id = draw(&v, row);
    }
    a->ids[row->slot] = id;
    if (seen != NULL) {
        seen[id / 64] |= (uint64_t)1 << (id % 64);
    }
    if (row->n_top > 0) {
        report(&v, id, row->n_top, &a->reports[r]);
    }
}

typedef struct sample_job {
    const kern_sample_args *a;
    int32_t n_tasks;
} sample_job;

static void sample_share(void *arg, int32_t task, int32_t thread)
{
    const sample_job *job = arg;
    const int64_t end = cpu_share_begin(job->a->n_rows, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t r = cpu_share_begin(job->a->n_rows, job->n_tasks, task); r < end; r++) {
        sample_row(job->a, (int32_t)r);
    }
}

base_status kern_cpu_sample(kern_ctx *ctx, const kern_sample_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    if (a->n_rows > 0) {
        sample_job job = {a, cpu_share_count(state, a->n_rows, a->n_vocab)};
        cpu_pool_run(state->pool, job.n_tasks, sample_share, &job);
    }
    return BASE_OK;
}
