/* kernels/cpu/cpu_rotate.h - the rotation of a side's page basis, one row of one head. */
#ifndef KERNELS_CPU_CPU_ROTATE_H
#define KERNELS_CPU_CPU_ROTATE_H

#include "kernels/page.h"

#include <stdbool.h>

/* x [head_dim] in place; side->signs is not NULL.  f32 in a fixed order. */
void cpu_rotate(const kern_side *side, bool inverse, float *x);

#endif /* KERNELS_CPU_CPU_ROTATE_H */
