#include "kernels/cpu/cpu_library.h"

#include <cblas.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

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

void cpu_library_start_again(const char *core_type, char *const argv[])
{
    const char *better = cpu_library_better_core(cpu_library_core(), cpu_isa_of_machine());
    if (core_type == NULL && better != NULL && setenv("OPENBLAS_CORETYPE", better, 0) == 0) {
        (void)execv("/proc/self/exe", argv); /* returns only if it cannot: slow, then */
    }
}
