/* kernels/cpu/cpu_clones.h - one function compiled for several instruction sets.
 *
 * The choice is made at load time.  Sums keep the order that the source gives them and nothing is
 * contracted, so every clone gives the same bits.  Off for clang and for sanitizers, whose start-up
 * does not expect resolvers. */
#ifndef KERNELS_CPU_CPU_CLONES_H
#define KERNELS_CPU_CPU_CLONES_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CPU_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CPU_CLONES
#endif

#endif /* KERNELS_CPU_CPU_CLONES_H */
