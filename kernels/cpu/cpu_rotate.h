/* kernels/cpu/cpu_rotate.h - into and out of a side's page basis, one row of one head. */
#ifndef KERNELS_CPU_CPU_ROTATE_H
#define KERNELS_CPU_CPU_ROTATE_H

#include "kernels/page.h"

#include <stdbool.h>
#include <stddef.h>

/* The signs that queries have, and outputs. */
static inline const float *cpu_query_signs(const kern_side *side)
{
    return side->query_signs != NULL ? side->query_signs : side->signs;
}

/* x [head_dim] in place: order and rotation, as far as the side has them.  signs: the side's, or its query_signs.  f32 in
 * a fixed order. */
void cpu_rotate(const kern_side *side, const float *signs, bool inverse, float *x);

#endif /* KERNELS_CPU_CPU_ROTATE_H */
