/* kernels/cpu/cpu_isa.h - which instruction sets the code that is chosen at run time may use.
 *
 * A context starts with all that this machine has; tests and benchmarks lower it to compare. */
#ifndef KERNELS_CPU_CPU_ISA_H
#define KERNELS_CPU_CPU_ISA_H

struct kern_ctx;

typedef enum cpu_isa {
    CPU_ISA_PLAIN,  /* what compilers make of plain C */
    CPU_ISA_AVX2,   /* AVX2, FMA, F16C */
    CPU_ISA_AVX512, /* and AVX-512 F, BW, DQ, VL, VBMI, VNNI */
    CPU_N_ISAS
} cpu_isa;

const char *cpu_isa_name(cpu_isa isa); /* "plain", "avx2", "avx512" */
cpu_isa cpu_isa_of_machine(void);

/* What a CPU context uses from now on: isa, or less if the machine has less.  No call may be running. */
void cpu_isa_limit(struct kern_ctx *ctx, cpu_isa isa);

#endif /* KERNELS_CPU_CPU_ISA_H */
