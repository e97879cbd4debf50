/* The common widths get kernels without branches; all others share one that looks at each side. */
#include "kernels/cuda/attn_decode.cuh"

namespace {

template <int D, int NC, int BITS, int GROUP>
base_status run(cudaStream_t stream, const attn_job &job)
{
    return attn_launch<attn_kind<CUDA_AFFINE, D, NC, BITS, BITS, GROUP>>(stream, job);
}

template <int NC>
base_status run_128(cudaStream_t s, const attn_job &job, const int32_t bits[2], int32_t group)
{
    if (bits[0] == bits[1] && group == 32) {
        switch (bits[0]) {
        case 2: return run<128, NC, 2, 32>(s, job);
        case 4: return run<128, NC, 4, 32>(s, job);
        default: break;
        }
    }
    if (bits[0] == 2 && bits[1] == 2 && group == 128) {
        return run<128, NC, 2, 128>(s, job);
    }
    return run<128, NC, 0, 0>(s, job);
}

} // namespace

base_status attn_run_affine(void *stream, const attn_job &job, int head_dim, bool few,
                            const int32_t bits[2], int32_t group)
{
    const auto s = static_cast<cudaStream_t>(stream);
    if (head_dim == 64) {
        return few ? run<64, 1, 0, 0>(s, job) : run<64, 2, 0, 0>(s, job);
    }
    return few ? run_128<1>(s, job, bits, group) : run_128<2>(s, job, bits, group);
}
