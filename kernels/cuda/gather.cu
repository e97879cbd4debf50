/* A copy of rows, 16 bytes a thread where rows allow it.  Which rows travels in the launch's parameters, so the
 * caller's list is free again at once. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 128;
constexpr int kMaxRows = 512; /* of a launch: 2 KB of its 4 KB of parameters */

struct row_list {
    int32_t rows[kMaxRows];
};

/* V is float4 or float; width in V. */
template <typename V>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const V *x, V *y, int width, const row_list list)
{
    cuda_after_previous();
    const int c = blockIdx.x * kThreads + threadIdx.x;
    if (c < width) {
        y[(int64_t)blockIdx.y * width + c] = x[(int64_t)list.rows[blockIdx.y] * width + c];
    }
}

template <typename V>
void gather(cudaStream_t stream, const kern_gather_args &a)
{
    const int width = a.width / static_cast<int>(sizeof(V) / sizeof *a.x);
    const unsigned n_ctas = (width + kThreads - 1) / kThreads;

    for (int32_t done = 0; done < a.n_rows; done += kMaxRows) {
        const int n = a.n_rows - done < kMaxRows ? a.n_rows - done : kMaxRows;
        row_list list;
        for (int i = 0; i < n; i++) {
            list.rows[i] = a.rows[done + i];
        }
        cuda_launch(gather_kernel<V>, dim3(n_ctas, n), kThreads, stream,
                    reinterpret_cast<const V *>(a.x),
                    reinterpret_cast<V *>(a.y + (int64_t)done * a.width), width, list);
    }
}

} // namespace

extern "C" base_status kern_cuda_gather(void *stream, const kern_gather_args *a)
{
    const auto s = static_cast<cudaStream_t>(stream);
    if (a->width % 4 == 0) {
        gather<float4>(s, *a);
    } else {
        gather<float>(s, *a);
    }
    return CUDA_LAUNCHED("gather");
}
