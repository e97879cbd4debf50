/* The CUDA product by cuBLASLt: more rows than the kernel for few takes. */
#include "tests/support/failing_alloc.h"
#include "tests/support/gemm_case.h"

static void products_agree_with_fp64(void **state)
{
    static const int32_t shapes[][3] = {{5, 65, 40},   {8, 67, 256},  {9, 257, 104},
                                        {17, 8, 2056}, {64, 96, 512}, {130, 128, 128},
                                        {256, 31, 40}, {257, 31, 40}, {300, 65, 136}};
    cuda_gemm *gemm = gemm_case_state();
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        gemm_case_check_all(gemm, shapes[s][0], shapes[s][1], shapes[s][2]);
    }
    cuda_gemm_destroy(gemm);
}

/* More shapes than are kept, twice: dropped plans are made again. */
static void shapes_beyond_the_cache_are_planned_again(void **state)
{
    cuda_gemm *gemm = gemm_case_state();
    (void)state;
    for (int32_t i = 0; i < 2 * 70; i++) {
        const gemm_case c = {9 + i % 70, 16, 16, 0, 0, BASE_BF16, false, false};
        gemm_case_check(gemm, &c);
    }
    cuda_gemm_destroy(gemm);
}

/* The sums of 150000 columns fill the scratch before the rows end; 8192 rows of 4096 fill it. */
static void rows_beyond_the_scratch_take_turns(void **state)
{
    cuda_gemm *gemm = gemm_case_state();
    (void)state;
    gemm_case_check(gemm, &(gemm_case){70, 150000, 8, 0, 0, BASE_BF16, true, false});
    gemm_case_check(gemm, &(gemm_case){8193, 8, 4096, 0, 0, BASE_BF16, true, false});
    cuda_gemm_destroy(gemm);
}

/* Beyond the largest half: the nearest one, not infinity. */
static void f16_rows_out_of_range_become_the_largest_half(void **state)
{
    enum { M = 257, N = 8, K = 8 };
    cuda_gemm *gemm = gemm_case_state();
    float x[M * K] = {0};
    uint16_t w[N * K] = {0};
    (void)state;
    for (int32_t i = 0; i < M; i++) {
        x[i * K] = i % 2 == 0 ? 1e6f : -1e6f;
    }
    for (int32_t i = 0; i < N; i++) {
        w[i * K] = base_f16_from_f32(1.0f);
    }
    parity_device device = {.n_held = 0};
    void *dy = on_device(x, sizeof x);
    const kern_gemm_args a = {.x = device_copy(&device, x, sizeof x),
                              .w = device_copy(&device, w, sizeof w),
                              .y = dy,
                              .m = M,
                              .n = N,
                              .k = K,
                              .x_stride = K,
                              .y_stride = N,
                              .dtype = BASE_F16};
    CHECK_STATUS(kern_cuda_gemm(gemm, NULL, &a), BASE_OK);
    float *y = from_device(dy, (int64_t)M * N);
    for (int32_t i = 0; i < M * N; i++) {
        assert_true(y[i] == (i / N % 2 == 0 ? 65504.0f : -65504.0f));
    }
    device_free(&device);
    free(y);
    cuda_gemm_destroy(gemm);
}

static void a_failed_allocation_is_reported_and_leaves_nothing(void **state)
{
    failing_alloc failing = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &failing};
    cuda_gemm *gemm = NULL;
    (void)state;
    CHECK_STATUS(cuda_gemm_create(&mem, &gemm), BASE_NO_MEMORY);
    assert_null(gemm);
    failing.fail_at = -1;
    CHECK_STATUS(cuda_gemm_create(&mem, &gemm), BASE_OK);
    cuda_gemm_destroy(gemm);
    assert_int_equal(failing.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_fp64),
        cmocka_unit_test(shapes_beyond_the_cache_are_planned_again),
        cmocka_unit_test(rows_beyond_the_scratch_take_turns),
        cmocka_unit_test(f16_rows_out_of_range_become_the_largest_half),
        cmocka_unit_test(a_failed_allocation_is_reported_and_leaves_nothing),
    };
    return PARITY_CUDA_MAIN(tests);
}
