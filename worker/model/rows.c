#include "worker/model/rows.h"

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
