/* kernels/cuda/ptx.cuh - the instructions that have no name in CUDA C++. */
#ifndef KERNELS_CUDA_PTX_CUH
#define KERNELS_CUDA_PTX_CUH

#include <stdint.h>

#define PTX_FN static __device__ __forceinline__

PTX_FN uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t selector)
{
    uint32_t d;
    asm("prmt.b32 %0,%1,%2,%3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
    return d;
}

PTX_FN float ptx_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}

/* Within two units in the last place. */
PTX_FN float ptx_reciprocal(float x)
{
    float y;
    asm("rcp.approx.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}

/* NaN where either is. */
PTX_FN float ptx_min_nan(float a, float b)
{
    float y;
    asm("min.NaN.f32 %0,%1,%2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

/* The transpose of an 8 x 8 matrix of 16-bit elements, a row on four lanes. */
PTX_FN uint32_t ptx_transpose(uint32_t a)
{
    uint32_t d;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0,%1;" : "=r"(d) : "r"(a));
    return d;
}

/* d += a b, 16 x 8 += (16 x 32) (32 x 8) bytes; b signed or not. */
PTX_FN void ptx_mma_s8s8(int *d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                         uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

PTX_FN void ptx_mma_s8u8(int *d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                         uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* The same over 16 columns of a. */
PTX_FN void ptx_mma_s8s8_half(int *d, uint32_t a0, uint32_t a1, uint32_t b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
}

PTX_FN void ptx_mma_s8u8_half(int *d, uint32_t a0, uint32_t a1, uint32_t b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.u8.s32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b));
}

/* d += a b, 16 x 8 += (16 x 16) (16 x 8), 16-bit floats. */
PTX_FN void ptx_mma_bf16(float *d, uint4 a, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

PTX_FN void ptx_mma_fp16(float *d, uint4 a, uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 i + r gives the address of row r of matrix i. */
PTX_FN uint4 ptx_load_matrices(uint32_t row)
{
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(row)
                 : "memory");
    return v;
}

PTX_FN uint4 ptx_load_matrices_transposed(uint32_t row)
{
    uint4 v;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(row)
                 : "memory");
    return v;
}

PTX_FN uint32_t ptx_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Of a table that is whole. */
PTX_FN float ptx_load_shared(uint32_t address)
{
    float x;
    asm("ld.shared.f32 %0,[%1];" : "=f"(x) : "r"(address));
    return x;
}

PTX_FN void ptx_barrier_init(uint32_t barrier)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0],1;" ::"r"(barrier) : "memory");
}

/* Barriers that this thread made are seen by the copy engine. */
PTX_FN void ptx_barriers_made(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Shared memory that this thread wrote or read may be written by the copy engine. */
PTX_FN void ptx_copy_may_write(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

PTX_FN void ptx_barrier_wait(uint32_t barrier, uint32_t phase)
{
    asm volatile("{\n .reg .pred p;\n W: mbarrier.try_wait.parity.shared::cta.b64 p,[%0],%1;\n @!p "
                 "bra W;\n}" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

/* One thread: the copy engine brings n_bytes (a multiple of 16, as both addresses) and completes a phase. */
PTX_FN void ptx_copy(uint32_t to, const void *from, uint32_t n_bytes, uint32_t barrier)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _,[%0],%1;" ::"r"(barrier), "r"(n_bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1],%2,[%3];" ::
            "r"(to),
        "l"(from), "r"(n_bytes), "r"(barrier)
        : "memory");
}

/* Each thread for itself: 16 bytes on their way, and all of its own are there. */
PTX_FN void ptx_copy_16(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0],[%1],16;" ::"r"(to), "l"(from) : "memory");
}

PTX_FN void ptx_copies_wait(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Into the L2 cache; n_bytes a multiple of 16, as the address. */
PTX_FN void ptx_ask_for(const void *from, uint32_t n_bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0],%1;" ::"l"(from), "r"(n_bytes) : "memory");
}

/* Programmatic dependent launch: what the launch before wrote may be read; the next launch may begin. */
PTX_FN void ptx_wait_for_launch_before(void)
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

PTX_FN void ptx_let_next_launch_begin(void)
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

#endif /* KERNELS_CUDA_PTX_CUH */
