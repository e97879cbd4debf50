#include "kernels/cpu/cpu_library.h"

#include <cblas.h>

void cpu_library_sgemm(const float *x, const float *w, float *y, int32_t m, int32_t n, int32_t k)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, x, k, w, k, 0.0f, y, n);
}
