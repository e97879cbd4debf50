#include "kernels/cpu/cpu_isa.h"

#include "kernels/cpu/cpu_state.h"

const char *cpu_isa_name(cpu_isa isa)
{
    static const char *const names[CPU_N_ISAS] = {"plain", "avx2", "avx512"};
    return names[isa];
}

cpu_isa cpu_isa_of_machine(void)
{
#if defined(__x86_64__)
    /* F16C, which clang 14 cannot ask for, is in every CPU with AVX2. */
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return CPU_ISA_PLAIN;
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni")) {
        return CPU_ISA_AVX512;
    }
    return CPU_ISA_AVX2;
#else
    return CPU_ISA_PLAIN;
#endif
}

void cpu_isa_limit(struct kern_ctx *ctx, cpu_isa isa)
{
    const cpu_isa most = cpu_isa_of_machine();
    cpu_state_of(ctx)->isa = isa < most ? isa : most;
}
