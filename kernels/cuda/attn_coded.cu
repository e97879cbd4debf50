/* Widths that are the same in all heads get a kernel without branches; all others share one that looks. */
#include "kernels/cuda/attn_decode.cuh"

namespace {

template <int D, int NC, int KB, int VB>
base_status run(cudaStream_t stream, const attn_job &job)
{
    return attn_launch<attn_kind<CUDA_CODED, D, NC, KB, VB>>(stream, job);
}

template <int NC>
base_status run_128(cudaStream_t s, const attn_job &job, const int32_t bits[2])
{
    if (bits[0] == bits[1]) {
        switch (bits[0]) {
        case 2: return run<128, NC, 2, 2>(s, job);
        case 3: return run<128, NC, 3, 3>(s, job);
        case 4: return run<128, NC, 4, 4>(s, job);
        default: break;
        }
    }
    switch (bits[1]) {
    case 2: return run<128, NC, 0, 2>(s, job);
    case 3: return run<128, NC, 0, 3>(s, job);
    case 4: return run<128, NC, 0, 4>(s, job);
    default: return run<128, NC, 0, 0>(s, job);
    }
}

} // namespace

base_status attn_run_coded(void *stream, const attn_job &job, int head_dim, bool few,
                           const int32_t bits[2])
{
    const auto s = static_cast<cudaStream_t>(stream);
    if (head_dim == 64) {
        return few ? run<64, 1, 0, 0>(s, job) : run<64, 2, 0, 0>(s, job);
    }
    return few ? run_128<1>(s, job, bits) : run_128<2>(s, job, bits);
}
