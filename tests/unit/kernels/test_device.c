#include "kernels/device.h"

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static void the_cpu_is_always_there(void **state)
{
    (void)state;
    kern_device device = KERN_DEVICE_CUDA;
    CHECK_STATUS(kern_device_choose("cpu", &device), BASE_OK);
    assert_int_equal(device, KERN_DEVICE_CPU);
    device = KERN_DEVICE_CUDA;
    CHECK_STATUS(kern_device_choose("", &device), BASE_OK);
    CHECK_STATUS(kern_device_choose(NULL, &device), BASE_OK);
    if (kern_gpu_count() == 0) {
        assert_int_equal(device, KERN_DEVICE_CPU);
    }
    assert_string_equal(kern_device_name(KERN_DEVICE_CPU), "cpu");
    assert_string_equal(kern_device_name(KERN_DEVICE_CUDA), "cuda");
}

static void a_device_that_is_not_there_is_refused_by_name(void **state)
{
    (void)state;
    kern_device device = KERN_DEVICE_CPU;
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_device_choose("tpu", &device), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("'tpu'");
    if (kern_gpu_count() == 0) {
        CHECK_STATUS(kern_device_choose("cuda", &device), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(kern_gpu_in_build() ? "no GPU" : "preset cuda");
        CHECK_STATUS(kern_ctx_create(KERN_DEVICE_CUDA, 1, &base_heap, &ctx), BASE_BAD_INPUT);
    }
    assert_int_equal(device, KERN_DEVICE_CPU);
    assert_null(ctx);
}

/* What memory.h promises of the CPU. */
static void on_the_cpu_memory_is_the_contexts_allocator(void **state)
{
    (void)state;
    failing_alloc counted = {.fail_at = -1};
    const base_alloc mem = {failing_get, failing_put, &counted};
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create(KERN_DEVICE_CPU, 1, &mem, &ctx), BASE_OK);
    const int n_before = counted.n_live;
    char *page = kern_memory(ctx)->get(kern_memory(ctx)->ctx, 100);
    char *ids = kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, 100);
    assert_int_equal(counted.n_live, n_before + 2);
    ids[0] = 7;
    CHECK_STATUS(kern_send(ctx, ids, 100), BASE_OK);
    CHECK_STATUS(kern_fetch(ctx, ids, 100), BASE_OK);
    assert_int_equal(ids[0], 7);
    CHECK_STATUS(kern_bind(ctx, page, 100), BASE_OK);
    kern_unbind(ctx, page);
    CHECK_STATUS(kern_wait(ctx), BASE_OK);
    kern_mirror(ctx)->put(kern_mirror(ctx)->ctx, ids);
    kern_memory(ctx)->put(kern_memory(ctx)->ctx, page);
    kern_ctx_destroy(ctx);
    assert_int_equal(counted.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_is_always_there),
        cmocka_unit_test(a_device_that_is_not_there_is_refused_by_name),
        cmocka_unit_test(on_the_cpu_memory_is_the_contexts_allocator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
