#include "worker/model/split.h"

#define MAX_UNIT   64 /* rows or columns that stay together: what kernels like is a multiple */
#define LEAST_UNIT 8  /* of ids: logits are put together by units */

/* The share of part `rank` of n_units. */
static model_span share_of(int32_t n_units, int32_t n_ranks, int32_t rank)
{
    const int64_t n = n_units;
    return (model_span){(int32_t)(n * rank / n_ranks), (int32_t)(n * (rank + 1) / n_ranks)};
}

static model_span times(model_span s, int32_t unit)
{
    return (model_span){s.begin * unit, s.end * unit};
}

/* The largest power of two up to MAX_UNIT that divides n and leaves every rank a unit; 0: n_ranks is more than n. */
static int32_t unit_of(int32_t n, int32_t n_ranks)
{
    int32_t unit = MAX_UNIT;
    while (unit > 0 && (n % unit != 0 || n / unit < n_ranks)) {
        unit /= 2;
    }
    return unit;
}

/* With more ranks than KV heads: rank r has heads of KV head r * Hkv / N. */
static model_span heads_of(const model_config *c, int32_t n_ranks, int32_t rank)
{
    const int32_t group = c->n_heads / c->n_kv_heads;
    if (n_ranks <= c->n_kv_heads) {
        return times(share_of(c->n_kv_heads, n_ranks, rank), group);
    }
    const int64_t n_kv = c->n_kv_heads;
    const int32_t kv = (int32_t)(rank * n_kv / n_ranks);
    const int32_t first = (int32_t)((kv * (int64_t)n_ranks + n_kv - 1) / n_kv);
    const int32_t end = (int32_t)(((kv + 1) * (int64_t)n_ranks + n_kv - 1) / n_kv);
    const model_span own = share_of(group, end - first, rank - first);
    return (model_span){kv * group + own.begin, kv * group + own.end};
}

static base_status check(const model_config *c, int32_t n_ranks)
{
    const struct {
        const char *field;
        int32_t n;
    } limits[] = {{"num_attention_heads", c->n_heads}, {"intermediate_size", c->ffn_width}};
    if (n_ranks < 1 || n_ranks > KERN_DEAL_MAX_RANKS) {
        return BASE_FAIL(BASE_BAD_INPUT, "weights split over %d ranks, allowed 1..%d", n_ranks,
                         KERN_DEAL_MAX_RANKS);
    }
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        if (n_ranks > limits[i].n) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "weights split over %d ranks: %s is %d, and each needs one of them",
                             n_ranks, limits[i].field, limits[i].n);
        }
    }
    if (c->n_vocab % n_ranks != 0 && unit_of(c->n_vocab, n_ranks) < LEAST_UNIT) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "weights split over %d ranks: vocab_size is %d, allowed are multiples of "
                         "the number of ranks, or of %d with as many for each",
                         n_ranks, c->n_vocab, LEAST_UNIT);
    }
    return BASE_OK;
}

static model_span resolved(model_span s, int32_t n)
{
    return s.end == 0 ? (model_span){0, n} : s;
}

model_span model_slice_rows(const model_slice *slice)
{
    return resolved(slice->row, slice->rows);
}

model_span model_slice_cols(const model_slice *slice)
{
    return slice->cols == 0 ? (model_span){0, 1} : resolved(slice->col, slice->cols);
}

model_span model_split_vocab(const model_split *split, int32_t n_vocab, int32_t rank)
{
    return times(share_of(n_vocab / split->vocab_unit, split->n_ranks, rank), split->vocab_unit);
}

base_status model_split_make(const model_config *c, int32_t rank, int32_t n_ranks,
                             model_split *split_out)
{
    base_status st = BASE_OK;
    model_split s = {.rank = rank, .n_ranks = n_ranks};

    BASE_TRY(st, out, check(c, n_ranks));
    const int32_t group = c->n_heads / c->n_kv_heads;
    const int32_t ffn_unit = unit_of(c->ffn_width, n_ranks);
    for (int32_t r = 0; r < n_ranks; r++) {
        s.head_begins[r] = heads_of(c, n_ranks, r).begin;
    }
    s.head_begins[n_ranks] = c->n_heads;
    s.heads = heads_of(c, n_ranks, rank);
    s.kv_heads = (model_span){s.heads.begin / group, (s.heads.end + group - 1) / group};
    s.ffn = times(share_of(c->ffn_width / ffn_unit, n_ranks, rank), ffn_unit);
    s.vocab_unit = c->n_vocab % n_ranks == 0 ? c->n_vocab / n_ranks : unit_of(c->n_vocab, n_ranks);
    s.vocab = model_split_vocab(&s, c->n_vocab, rank);
    for (int32_t r = 0; r < n_ranks; r++) {
        const int32_t n = model_span_count(model_split_vocab(&s, c->n_vocab, r));
        s.vocab_longest = n > s.vocab_longest ? n : s.vocab_longest;
    }
    *split_out = s;
out:
    return st;
}
