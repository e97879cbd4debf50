#include "worker/model/rows.h"

#include "worker/model/scratch.h"

#define MAX_FLOATS ((int64_t)(COMM_MAX_BYTES / sizeof(float)))

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* With n_ranks rows each or more, the last rank has one too. */
int32_t model_rows_shortest(const model_split *split, int32_t n_ranks)
{
    const int32_t least = n_ranks > MODEL_ROWS_LEAST ? n_ranks : MODEL_ROWS_LEAST;
    const bool shares = !model_is_split(split) && n_ranks > 1 && n_ranks <= KERN_DEAL_MAX_RANKS;
    return shares ? n_ranks * least : INT32_MAX;
}

/* An all-to-all of partials, as long for every rank as for the one with most heads, and a sum of residuals. */
static int64_t longest_of_split(const model_config *c, const model_split *split, int64_t row)
{
    int32_t heads = 0;
    for (int32_t r = 0; r < split->n_ranks; r++) {
        const int32_t n = split->head_begins[r + 1] - split->head_begins[r];
        heads = n > heads ? n : heads;
    }
    return min_i64(MAX_FLOATS / (heads * split->n_ranks * row),
                   (MAX_FLOATS - split->n_ranks) / c->width);
}

int32_t model_rows_longest(const model_config *config, const model_split *split, int32_t n_ranks)
{
    const int64_t row = config->head_dim + 1; /* of partials: a head of a token */
    const int64_t token = config->n_heads * row;
    const int32_t shortest = model_rows_shortest(split, n_ranks);
    /* Shared: an all-to-all of partials, of shares that are as long.  Else they are gathered, up to a multiple. */
    const int64_t shared = MAX_FLOATS / (n_ranks * token) * n_ranks;
    const int64_t gathered = MAX_FLOATS / SCRATCH_ALIGN * SCRATCH_ALIGN / token;
    const int64_t longest = n_ranks == 1            ? SCRATCH_MAX_TOKENS
                            : model_is_split(split) ? longest_of_split(config, split, row)
                            : shared >= shortest    ? shared
                                                    : min_i64(gathered, shortest - 1);
    return (int32_t)min_i64(longest, SCRATCH_MAX_TOKENS);
}

model_rows model_rows_make(const model_split *split, int32_t rank, int32_t n_ranks,
                           int32_t n_tokens)
{
    if (n_tokens < model_rows_shortest(split, n_ranks)) {
        return (model_rows){.n_ranks = 1, .n_all = n_tokens, .n_each = n_tokens, .end = n_tokens};
    }
    const int32_t n_each = n_tokens / n_ranks + (n_tokens % n_ranks != 0);
    return (model_rows){.n_ranks = n_ranks,
                        .n_all = n_tokens,
                        .n_each = n_each,
                        .begin = rank * n_each,
                        .end = min_i32((rank + 1) * n_each, n_tokens)};
}

void model_rows_begins(const model_rows *rows, int32_t unit, int32_t *begins_out)
{
    for (int32_t r = 0; r <= rows->n_ranks; r++) {
        begins_out[r] = min_i32(r * rows->n_each, rows->n_all) * unit;
    }
}
