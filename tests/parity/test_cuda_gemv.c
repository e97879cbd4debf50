/* The CUDA product without cuBLASLt: few rows, and shapes that 16-byte accesses do not fit. */
#include "tests/support/gemm_case.h"

static void few_rows_agree_with_fp64(void **state)
{
    static const int32_t shapes[][3] = {{1, 1, 8},    {1, 3, 72},   {1, 256, 2048}, {1, 5000, 512},
                                        {2, 130, 64}, {3, 33, 264}, {4, 64, 1032}};
    cuda_gemm *gemm = gemm_case_state();
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        assert_true(shapes[s][0] <= CUDA_GEMV_ROWS);
        gemm_case_check_all(gemm, shapes[s][0], shapes[s][1], shapes[s][2]);
    }
    cuda_gemm_destroy(gemm);
}

static void odd_columns_agree_with_fp64(void **state)
{
    static const int32_t shapes[][3] = {{1, 5, 33}, {4, 7, 1}, {20, 33, 33}};
    cuda_gemm *gemm = gemm_case_state();
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        gemm_case_check_all(gemm, shapes[s][0], shapes[s][1], shapes[s][2]);
    }
    cuda_gemm_destroy(gemm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_rows_agree_with_fp64),
        cmocka_unit_test(odd_columns_agree_with_fp64),
    };
    return PARITY_CUDA_MAIN(tests);
}
