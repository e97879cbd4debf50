#include "kernels/op_deal.h"

#include "tests/support/parity.h"

enum { HEADS = 7, DIM = 12 };

typedef struct dealing {
    const char *what;
    int32_t n_ranks;
    int32_t begins[HEADS + 1];
} dealing;

static const dealing dealings[] = {
    {"one rank", 1, {0, 7}},
    {"uneven", 3, {0, 2, 3, 7}},
    {"a head each", 7, {0, 1, 2, 3, 4, 5, 6, 7}},
};

static void every_rank_gets_its_heads_as_merge_takes_them(void **state)
{
    (void)state;
    static const int32_t tokens[] = {0, 1, 5};
    kern_ctx *ctx = parity_ctx(1);
    for (size_t i = 0; i < 9; i++) {
        const dealing *d = &dealings[i / 3];
        const int32_t n_tokens = tokens[i % 3];
        const int64_t n = (int64_t)n_tokens * HEADS * (DIM + 1);
        float *x = parity_normals(i, n, 1.0);
        float *y = parity_guarded(n);
        const kern_deal_args args = {.x = x,
                                     .y = y,
                                     .begins = d->begins,
                                     .n_ranks = d->n_ranks,
                                     .n_tokens = n_tokens,
                                     .n_heads = HEADS,
                                     .head_dim = DIM};
        CHECK_STATUS(kern_deal(ctx, &args), BASE_OK);
        for (int32_t r = 0; r < d->n_ranks; r++) {
            const int32_t begin = d->begins[r];
            const int32_t own = d->begins[r + 1] - begin;
            const float *o = y + (int64_t)n_tokens * begin * (DIM + 1);
            const float *lse = o + (int64_t)n_tokens * own * DIM;
            for (int32_t row = 0; row < n_tokens * own; row++) {
                const int64_t from = (int64_t)(row / own) * HEADS + begin + row % own;
                assert_memory_equal(o + row * DIM, x + from * DIM, DIM * sizeof *o);
                assert_memory_equal(lse + row, x + (int64_t)n_tokens * HEADS * DIM + from,
                                    sizeof *lse);
            }
        }
        parity_guarded_check(y, n);
        parity_guarded_free(y);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    enum { N = HEADS * (DIM + 1) };
    float *x = parity_normals(1, N, 1.0);
    float *y = parity_guarded(N);
    static const int32_t from_1[] = {1, 7};
    static const int32_t none[] = {0, 3, 3, 7};
    static const int32_t back[] = {0, 4, 3, 7};
    kern_deal_args good = {.x = x,
                           .y = y,
                           .begins = dealings[1].begins,
                           .n_ranks = 3,
                           .n_tokens = 1,
                           .n_heads = HEADS,
                           .head_dim = DIM};
    PARITY_REFUSED(kern_deal, ctx, good, n_tokens, -1);
    PARITY_REFUSED(kern_deal, ctx, good, head_dim, 0);
    PARITY_REFUSED(kern_deal, ctx, good, head_dim, DIM + 1);
    PARITY_REFUSED(kern_deal, ctx, good, n_ranks, 0);
    PARITY_REFUSED(kern_deal, ctx, good, n_ranks, KERN_DEAL_MAX_RANKS + 1);
    PARITY_REFUSED(kern_deal, ctx, good, n_ranks, 2);
    CHECK_ERROR_NAMES("0..2 of 7");
    PARITY_REFUSED(kern_deal, ctx, good, n_heads, 6);
    PARITY_REFUSED(kern_deal, ctx, good, begins, none);
    CHECK_ERROR_NAMES("rank 1");
    PARITY_REFUSED(kern_deal, ctx, good, begins, back);
    good.n_ranks = 1;
    PARITY_REFUSED(kern_deal, ctx, good, begins, from_1);
    parity_guarded_untouched(y, N);
    parity_guarded_free(y);
    free(x);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_gets_its_heads_as_merge_takes_them),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
