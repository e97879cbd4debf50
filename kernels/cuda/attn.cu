/* Host side of decode attention: which kernel, and its scratch. */
#include "kernels/cuda/attn_job.cuh"
#include "kernels/cuda/cuda_check.h"

#include <cuda_runtime_api.h>

namespace {

constexpr int kMaxDim = 128;
constexpr int kDenseChunk = 4096; /* 16 x 128 bf16 values */
constexpr int64_t kParts = (int64_t)ATTN_MAX_CTAS * ATTN_PARTS * ATTN_MAX_ROWS;

int32_t slot_bytes(const kern_cuda_formats *f, int side)
{
    const int32_t sums = ATTN_SUMS_BYTES(f->head_dim); /* more than a tile of open rows */
    const int32_t page = f->family == CUDA_DENSE ? kDenseChunk : f->side_bytes[side];
    const int32_t most = f->family != CUDA_DENSE && sums > page ? sums : page;
    return (most + CUDA_UNIT_BYTES - 1) / CUDA_UNIT_BYTES * CUDA_UNIT_BYTES;
}

/* 2^32 over x, rounded down; of 1 one less, so that it fits. */
uint32_t inverse_of(int32_t x)
{
    return x == 1 ? UINT32_MAX : (uint32_t)((1ull << 32) / (uint64_t)x);
}

base_status run_pages(void *stream, const kern_cuda_formats *f, const attn_job &job, bool few)
{
    switch (f->family) {
    case CUDA_CODED: return attn_run_coded(stream, job, f->head_dim, few, f->bits);
    case CUDA_DENSE: return attn_run_dense(stream, job, f->head_dim, few);
    case CUDA_TABLE: return attn_run_table(stream, job, f->head_dim, few);
    case CUDA_AFFINE: return attn_run_affine(stream, job, f->head_dim, few, f->bits, f->group);
    }
    return BASE_OK;
}

} // namespace

extern "C" int64_t kern_cuda_attn_workspace_bytes(void)
{
    return kParts * (kMaxDim * (int64_t)sizeof(float) + (int64_t)sizeof(float2));
}

base_status attn_run_parts(void *stream, const kern_cuda_attn_work &work,
                           const kern_attn_args &args, attn_job *job_out, bool *few_out)
{
    const kern_cuda_formats *f = work.formats;
    attn_job job = {};
    job.a = args;
    job.layer = f->layer;
    job.part_o = static_cast<float *>(work.workspace);
    job.part_ml = reinterpret_cast<float2 *>(job.part_o + kParts * kMaxDim);
    job.n_ctas = f->n_sms < ATTN_MAX_CTAS ? f->n_sms : ATTN_MAX_CTAS;
    job.group = args.n_heads / args.n_kv_heads;
    job.n_ctas_inverse = inverse_of(job.n_ctas);
    job.group_inverse = inverse_of(job.group);
    job.slot_bytes[0] = slot_bytes(f, 0);
    job.slot_bytes[1] = slot_bytes(f, 1);
    job.n_halves = f->n_halves;
    job.begins_early = work.pages_are_old;
    *few_out = (int64_t)work.max_seq_tokens * job.group <= 4;
    *job_out = job;
    return run_pages(stream, f, job, *few_out);
}

extern "C" base_status kern_cuda_attn(void *stream, const kern_cuda_attn_work *work,
                                      const kern_attn_args *args)
{
    attn_job job = {};
    bool few = false;
    if (args->n_tokens == 0) {
        return BASE_OK;
    }
    const base_status st = attn_run_parts(stream, *work, *args, &job, &few);
    return st == BASE_OK ? attn_run_combine(stream, job, args->head_dim, few) : st;
}
