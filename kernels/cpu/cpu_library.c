#include "kernels/cpu/cpu_library.h"

#include <cblas.h>
#include <strings.h>

void cpu_library_sgemm(const float *x, const float *w, float *y, int32_t m, int32_t n, int32_t k)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, x, k, w, k, 0.0f, y, n);
}

const char *cpu_library_core(void)
{
    return openblas_get_corename();
}

const char *cpu_library_better_core(const char *core, cpu_isa isa)
{
    if (strcasecmp(core, "Prescott") != 0 || isa == CPU_ISA_PLAIN) {
        return NULL;
    }
    return isa == CPU_ISA_AVX512 ? "SkylakeX" : "Haswell";
}
