#include "kernels/op_turns.h"

#include "tests/support/parity.h"

static void turns_are_fp64_rounded_once(void **state)
{
    enum { TOKENS = 6 };
    static const int64_t positions[TOKENS] = {0, 1, 127, 800001, 12345, INT32_MAX};
    static const int32_t dims[] = {2, 64, 128, 256};
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        kern_ctx *ctx = parity_ctx(i % 2 == 0 ? 1 : 3);
        const int32_t half = dims[i / 2] / 2;
        float freq[KERN_MAX_HEAD_DIM / 2];
        float *turns = parity_guarded((int64_t)TOKENS * 2 * half);
        for (int32_t f = 0; f < half; f++) {
            freq[f] = (float)pow(1e6, -(double)f / half);
        }
        const kern_turns_args a = {positions, freq, turns, TOKENS, 2 * half};
        CHECK_STATUS(kern_turns(ctx, &a), BASE_OK);
        for (int32_t j = 0; j < TOKENS * half; j++) {
            const double angle = (double)positions[j / half] * (double)freq[j % half];
            assert_true(turns[2 * j] == (float)cos(angle));
            assert_true(turns[2 * j + 1] == (float)sin(angle));
        }
        parity_guarded_check(turns, (int64_t)TOKENS * 2 * half);
        parity_guarded_free(turns);
        kern_ctx_destroy(ctx);
    }
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    int64_t position = 3;
    const float freq[129] = {0};
    float *turns = parity_guarded(4);
    kern_turns_args good = {&position, freq, turns, 1, 4};
    PARITY_REFUSED(kern_turns, ctx, good, head_dim, 0);
    PARITY_REFUSED(kern_turns, ctx, good, head_dim, 3);
    PARITY_REFUSED(kern_turns, ctx, good, head_dim, 258);
    PARITY_REFUSED(kern_turns, ctx, good, n_tokens, -1);
    position = -1;
    CHECK_STATUS(kern_turns(ctx, &good), BASE_BAD_INPUT);
    position = (int64_t)INT32_MAX + 1;
    CHECK_STATUS(kern_turns(ctx, &good), BASE_BAD_INPUT);
    good.n_tokens = 0;
    CHECK_STATUS(kern_turns(ctx, &good), BASE_OK);
    parity_guarded_untouched(turns, 4);
    parity_guarded_free(turns);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_are_fp64_rounded_once),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
