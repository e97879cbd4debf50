#include "kernels/timed.h"

#include "base/clock.h"
#include "kernels/comm/comm_timed.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <string.h>

static void ops_are_passed_on_and_counted(void **state)
{
    (void)state;
    kern_ctx *inner = NULL;
    kern_ctx *ctx = NULL;
    kern_op_time times[KERN_N_OPS];
    const float x[2] = {3.0f, 4.0f};
    const float w[2] = {1.0f, 2.0f};
    float y = 0.0f;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &inner), BASE_OK);
    CHECK_STATUS(kern_ctx_create_timed(inner, &base_heap, &ctx), BASE_OK);
    const kern_gemm_args args = {.x = x,
                                 .w = w,
                                 .y = &y,
                                 .m = 1,
                                 .n = 1,
                                 .k = 2,
                                 .x_stride = 2,
                                 .y_stride = 1,
                                 .dtype = BASE_F32};
    CHECK_STATUS(kern_gemm(ctx, &args), BASE_OK);
    CHECK_STATUS(kern_gemm(ctx, &args), BASE_OK);
    assert_true(y == 11.0f);
    kern_timed_take(ctx, times);
    assert_int_equal(times[KERN_OP_gemm].n_calls, 2);
    assert_int_equal(times[KERN_OP_gemm].n_bytes, 2 * (8 + 8 + 4));
    assert_true(times[KERN_OP_gemm].ns > 0);
    assert_int_equal(times[KERN_OP_attn].n_calls, 0);
    kern_timed_take(ctx, times);
    assert_int_equal(times[KERN_OP_gemm].n_calls, 0);
    assert_int_equal(strcmp(kern_op_name(KERN_OP_gemm), "gemm"), 0);
    kern_ctx_destroy(ctx);
    kern_ctx_destroy(inner);
}

static void a_stopwatch_sees_the_time_between(void **state)
{
    (void)state;
    kern_ctx *ctx = NULL;
    kern_stopwatch watch;
    double us = -1.0;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    const int64_t before = base_now_ns();
    CHECK_STATUS(kern_stopwatch_start(ctx, &watch), BASE_OK);
    while (base_now_ns() - before < 1000000) {
    }
    CHECK_STATUS(kern_stopwatch_stop(ctx, &watch, &us), BASE_OK);
    const int64_t after = base_now_ns();
    assert_true(us > 0.0 && us <= (double)(after - before) * 1e-3);
    kern_ctx_destroy(ctx);
}

static void exchanges_are_passed_on_and_counted(void **state)
{
    (void)state;
    kern_ctx *ctx = NULL;
    comm *inner = NULL;
    comm *c = NULL;
    int64_t ns = -1;
    int64_t n_calls = 0;
    const int32_t mine = 7;
    int32_t all = 0;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    CHECK_STATUS(comm_self_create(&base_heap, &inner), BASE_OK);
    CHECK_STATUS(comm_timed_create(inner, ctx, &base_heap, &c), BASE_OK);
    CHECK_STATUS(comm_all_gather(c, &mine, &all, sizeof all, 1000), BASE_OK);
    CHECK_STATUS(comm_broadcast(c, &all, sizeof all, 0, 1000), BASE_OK);
    assert_int_equal(all, 7);
    comm_timed_take(c, &ns, &n_calls);
    assert_int_equal(n_calls, 2);
    assert_true(ns >= 0);
    comm_destroy(c);
    comm_destroy(inner);
    kern_ctx_destroy(ctx);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    kern_ctx *inner = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &inner), BASE_OK);
    for (int k = 0; k < 2; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        kern_ctx *ctx = NULL;
        CHECK_STATUS(kern_ctx_create_timed(inner, &mem, &ctx), BASE_NO_MEMORY);
        assert_null(ctx);
        assert_int_equal(f.n_live, 0);
    }
    kern_ctx_destroy(inner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_are_passed_on_and_counted),
        cmocka_unit_test(a_stopwatch_sees_the_time_between),
        cmocka_unit_test(exchanges_are_passed_on_and_counted),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
