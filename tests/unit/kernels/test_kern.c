#include "kernels/kern.h"

#include "base/alloc.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static void thread_counts_outside_the_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(0, &base_heap, &ctx), BASE_BAD_INPUT);
    CHECK_STATUS(kern_ctx_create_cpu(KERN_MAX_THREADS + 1, &base_heap, &ctx), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("257");
    assert_null(ctx);
    kern_ctx_destroy(ctx);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        kern_ctx *ctx = NULL;
        const base_status st = kern_ctx_create_cpu(2, &mem, &ctx);
        if (st == BASE_OK) {
            assert_true(k >= 4);
            kern_ctx_destroy(ctx);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(ctx);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_counts_outside_the_limits_are_refused),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
