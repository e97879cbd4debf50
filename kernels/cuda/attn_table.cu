#include "kernels/cuda/attn_decode.cuh"

namespace {

template <int D, int NC>
base_status run(void *stream, const attn_job &job)
{
    return attn_launch<attn_kind<CUDA_TABLE, D, NC, 0, 0>>(static_cast<cudaStream_t>(stream), job);
}

} // namespace

base_status attn_run_table(void *stream, const attn_job &job, int head_dim, bool few)
{
    if (head_dim == 64) {
        return few ? run<64, 1>(stream, job) : run<64, 2>(stream, job);
    }
    return few ? run<128, 1>(stream, job) : run<128, 2>(stream, job);
}
