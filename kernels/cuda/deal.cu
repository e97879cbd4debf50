/* A copy, one warp a row.  Parts begin at any multiple of 4 bytes: rows of lse lie between them. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;

struct ranks {
    int32_t begins[KERN_DEAL_MAX_RANKS + 1];
};

__global__ void __launch_bounds__(kThreads) deal(const kern_deal_args a, const ranks owners)
{
    cuda_after_previous();
    const int64_t n_rows = (int64_t)a.n_tokens * a.n_heads;
    const int lane = threadIdx.x % 32;
    const int64_t step = (int64_t)gridDim.x * kWarps;
    for (int64_t row = blockIdx.x * kWarps + threadIdx.x / 32; row < n_rows; row += step) {
        const int64_t t = row / a.n_heads;
        const int h = (int)(row % a.n_heads);
        int r = 0;
        while (h >= owners.begins[r + 1]) {
            r++;
        }
        const int begin = owners.begins[r];
        const int own = owners.begins[r + 1] - begin;
        float *part = a.y + (int64_t)a.n_tokens * begin * (a.head_dim + 1);
        const int64_t to = t * own + h - begin;
        for (int d = lane; d < a.head_dim; d += 32) {
            part[to * a.head_dim + d] = a.x[row * a.head_dim + d];
        }
        if (lane == 0) {
            part[(int64_t)a.n_tokens * own * a.head_dim + to] = a.x[n_rows * a.head_dim + row];
        }
    }
}

} // namespace

extern "C" base_status kern_cuda_deal(void *stream, const kern_deal_args *a)
{
    constexpr int64_t kMaxCtas = 1 << 16;
    const int64_t n_ctas = ((int64_t)a->n_tokens * a->n_heads + kWarps - 1) / kWarps;
    ranks owners;
    if (n_ctas == 0) {
        return BASE_OK;
    }
    for (int32_t r = 0; r <= a->n_ranks; r++) {
        owners.begins[r] = a->begins[r];
    }
    cuda_launch(deal, dim3((unsigned)(n_ctas < kMaxCtas ? n_ctas : kMaxCtas)), kThreads,
                static_cast<cudaStream_t>(stream), *a, owners);
    return CUDA_LAUNCHED("deal");
}
