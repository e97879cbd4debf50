/* kernels/cpu/cpu_rotate.h - into and out of a side's page basis, one row of one head. */
#ifndef KERNELS_CPU_CPU_ROTATE_H
#define KERNELS_CPU_CPU_ROTATE_H

#include "kernels/page.h"

#include <stdbool.h>

/* x [head_dim] in place: order and rotation, as far as the side has them.  f32 in a fixed order. */
void cpu_rotate(const kern_side *side, bool inverse, float *x);

#endif /* KERNELS_CPU_CPU_ROTATE_H */
