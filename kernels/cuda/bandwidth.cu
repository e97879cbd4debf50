/* What the GPU's memory gives: the yardstick of every benchmark here. */
#include "kernels/cuda/cuda_check.h"
extern "C" {
#include "kernels/device.h"
}

#include <algorithm>
#include <cuda_runtime.h>

namespace {

constexpr size_t kBytes = (size_t)2 << 30; /* far more than four times the L2 cache */
constexpr int kThreads = 512;
constexpr int kInFlight = 4; /* loads of a thread */
constexpr int kRounds = 7;

__global__ void __launch_bounds__(kThreads) read_all(const uint4 *p, size_t n, uint32_t *sum_out)
{
    const size_t step = (size_t)gridDim.x * kThreads;
    uint32_t sum = 0;
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i + (kInFlight - 1) * step < n;
         i += kInFlight * step) {
        uint4 v[kInFlight];
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            v[k] = __ldcs(p + i + k * step);
        }
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
        }
    }
    if (sum == 1u) { /* so that the reads are not dropped */
        *sum_out = sum;
    }
}

__global__ void __launch_bounds__(kThreads) copy_all(uint4 *to, const uint4 *from, size_t n)
{
    const size_t step = (size_t)gridDim.x * kThreads;
    for (size_t i = blockIdx.x * (size_t)kThreads + threadIdx.x; i + (kInFlight - 1) * step < n;
         i += kInFlight * step) {
        uint4 v[kInFlight];
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            v[k] = __ldcs(from + i + k * step);
        }
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            __stcs(to + i + k * step, v[k]);
        }
    }
}

struct bench {
    cudaStream_t stream;
    cudaEvent_t event[2];
    uint8_t *bytes; /* [2][kBytes] */
};

/* Median time of what `launch` puts on the stream, as GB/s of n_bytes; kept if it is the best so far. */
template <typename F>
base_status measure(const bench &b, double n_bytes, double *best_gb, F launch)
{
    base_status st = BASE_OK;
    float ms[kRounds];
    for (int i = -1; i < kRounds; i++) {
        BASE_TRY(st, out, cuda_to_status(cudaEventRecord(b.event[0], b.stream), "event"));
        launch();
        BASE_TRY(st, out, CUDA_LAUNCHED("reading memory"));
        BASE_TRY(st, out, cuda_to_status(cudaEventRecord(b.event[1], b.stream), "event"));
        BASE_TRY(st, out, cuda_to_status(cudaEventSynchronize(b.event[1]), "event"));
        BASE_TRY(st, out,
                 cuda_to_status(cudaEventElapsedTime(&ms[i < 0 ? 0 : i], b.event[0], b.event[1]),
                                "event"));
    }
    std::nth_element(ms, ms + kRounds / 2, ms + kRounds);
    *best_gb = std::max(*best_gb, n_bytes / ms[kRounds / 2] * 1e-6);
out:
    return st;
}

base_status measure_both(const bench &b, int n_sms, double *read_gb, double *copy_gb)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, cuda_to_status(cudaMemsetAsync(b.bytes, 1, 2 * kBytes, b.stream), "memory"));
    for (int ctas = 2; ctas <= 16; ctas *= 2) {
        BASE_TRY(st, out, measure(b, (double)kBytes, read_gb, [&] {
                     read_all<<<n_sms * ctas, kThreads, 0, b.stream>>>(
                         (const uint4 *)b.bytes, kBytes / 16, (uint32_t *)(b.bytes + kBytes));
                 }));
        BASE_TRY(st, out, measure(b, 2.0 * kBytes, copy_gb, [&] {
                     copy_all<<<n_sms * ctas, kThreads, 0, b.stream>>>(
                         (uint4 *)(b.bytes + kBytes), (const uint4 *)b.bytes, kBytes / 16);
                 }));
    }
    st = measure(b, 2.0 * kBytes, copy_gb, [&] {
        (void)cudaMemcpyAsync(b.bytes + kBytes, b.bytes, kBytes, cudaMemcpyDeviceToDevice,
                              b.stream);
    });
out:
    return st;
}

} // namespace

extern "C" base_status kern_gpu_bandwidth(int32_t index, double *read_gb_out, double *copy_gb_out)
{
    base_status st = BASE_OK;
    bench b = {};
    int before = 0;
    int n_sms = 0;

    *read_gb_out = 0.0;
    *copy_gb_out = 0.0;
    if (index < 0 || index >= kern_gpu_count()) {
        return BASE_FAIL(BASE_BAD_INPUT, "GPU %d of %d", index, kern_gpu_count());
    }
    BASE_TRY(st, out, cuda_to_status(cudaGetDevice(&before), "GPU"));
    BASE_TRY(st, out, cuda_to_status(cudaSetDevice(index), "GPU"));
    BASE_TRY(st, out,
             cuda_to_status(cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, index),
                            "GPU"));
    BASE_TRY(st, out,
             cuda_to_status(cudaStreamCreateWithFlags(&b.stream, cudaStreamNonBlocking), "stream"));
    BASE_TRY(st, out, cuda_to_status(cudaEventCreate(&b.event[0]), "event"));
    BASE_TRY(st, out, cuda_to_status(cudaEventCreate(&b.event[1]), "event"));
    BASE_TRY(st, out, cuda_to_status(cudaMalloc(&b.bytes, 2 * kBytes), "device memory"));
    st = measure_both(b, n_sms, read_gb_out, copy_gb_out);
out:
    (void)cudaFree(b.bytes);
    for (cudaEvent_t event : b.event) {
        if (event != nullptr) {
            (void)cudaEventDestroy(event);
        }
    }
    if (b.stream != nullptr) {
        (void)cudaStreamDestroy(b.stream);
    }
    (void)cudaSetDevice(before);
    return st;
}
