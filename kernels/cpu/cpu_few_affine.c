#include "kernels/cpu/cpu_few_affine.h"

#include "kernels/cpu/cpu_isa.h"

static bool reads(const kern_side *side, kern_segment_kind kind)
{
#if defined(__x86_64__)
    if (cpu_isa_of_machine() < CPU_ISA_AVX2) {
        return false;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (g->kind != kind || (g->bits != 2 && g->bits != 4) ||
            (g->n_dims != 64 && g->n_dims != 128)) {
            return false;
        }
    }
    return true;
#else
    (void)side, (void)kind;
    return false;
#endif
}

bool cpu_few_affine_reads_k(const kern_side *side)
{
    return reads(side, KERN_AFFINE_CHANNEL);
}

bool cpu_few_affine_reads_v(const kern_side *side)
{
    return reads(side, KERN_AFFINE_POSITION);
}
