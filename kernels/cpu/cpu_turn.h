/* kernels/cpu/cpu_turn.h - turns the pairs of one row by op_turns.h's cosines and sines. */
#ifndef KERNELS_CPU_CPU_TURN_H
#define KERNELS_CPU_CPU_TURN_H

#include <stdint.h>

/* x [head_dim] in place; turns [head_dim / 2, 2]. */
static inline void cpu_turn_row(const float *turns, int32_t head_dim, float *x)
{
    float *y = x + head_dim / 2;
    for (int32_t i = 0; i < head_dim / 2; i++) {
        const float cosine = turns[2 * i];
        const float sine = turns[2 * i + 1];
        const float x0 = x[i];
        const float y0 = y[i];
        x[i] = x0 * cosine - y0 * sine;
        y[i] = y0 * cosine + x0 * sine;
    }
}

#endif /* KERNELS_CPU_CPU_TURN_H */
