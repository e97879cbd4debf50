/* kernels/cuda/cuda_turn.h - one dim of a turned pair, op_rope.h's bits. */
#ifndef KERNELS_CUDA_CUDA_TURN_H
#define KERNELS_CUDA_CUDA_TURN_H

/* own: x_i, or if `second` x_{i+D/2}; other: the other one of the pair; turn: cosine, sine. */
static __device__ __forceinline__ float cuda_turned(float own, float other, float2 turn,
                                                    bool second)
{
    const float kept = __fmul_rn(own, turn.x);
    const float moved = __fmul_rn(other, turn.y);
    return second ? __fadd_rn(kept, moved) : __fsub_rn(kept, moved);
}

#endif /* KERNELS_CUDA_CUDA_TURN_H */
