/* tests/support/parity_cuda.h - what tests of CUDA kernels share: device copies of host data, and comparisons.
 *
 * A test file ends in `int main(void) { return PARITY_CUDA_MAIN(tests); }`, which skips, saying so, where there is
 * no GPU.  ROPEWALK_TEST_SKIP=PATTERN leaves out tests by name, for tools that do not bear what they call. */
#ifndef TESTS_SUPPORT_PARITY_CUDA_H
#define TESTS_SUPPORT_PARITY_CUDA_H

#include "tests/support/parity.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

static inline void *on_device(const void *host, size_t n_bytes)
{
    void *p = NULL;
    assert_int_equal(cudaMalloc(&p, n_bytes > 0 ? n_bytes : 1), cudaSuccess);
    assert_int_equal(cudaMemcpy(p, host, n_bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

/* Waits for the kernels and brings bytes back; frees the device memory. */
static inline void *bytes_from_device(void *device, size_t n_bytes)
{
    void *host = parity_memory((int64_t)n_bytes, 1);
    assert_int_equal(cudaMemcpy(host, device, n_bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(cudaFree(device), cudaSuccess);
    return host;
}

static inline float *from_device(void *device, int64_t n)
{
    return bytes_from_device(device, (size_t)n * sizeof(float));
}

static inline void check_close(const float *got, const float *want, int64_t n, double abs,
                               double rel)
{
    for (int64_t i = 0; i < n; i++) {
        if (isnan(want[i]) || isinf(want[i])) {
            assert_int_equal(base_f32_bits(got[i]), base_f32_bits(want[i]));
        } else if (!(fabs((double)got[i] - (double)want[i]) <= abs + rel * fabs((double)want[i]))) {
            fail_msg("element %lld is %g, want %g", (long long)i, (double)got[i], (double)want[i]);
        }
    }
}

/* Memory that one test takes on the device and gives back at its end. */
typedef struct parity_device {
    void *held[256];
    int32_t n_held;
} parity_device;

static inline void *device_copy(parity_device *device, const void *host, size_t n_bytes)
{
    assert_true(device->n_held < 256);
    void *p = on_device(host, n_bytes);
    device->held[device->n_held++] = p;
    return p;
}

static inline void device_free(parity_device *device)
{
    for (int32_t i = 0; i < device->n_held; i++) {
        assert_int_equal(cudaFree(device->held[i]), cudaSuccess);
    }
    device->n_held = 0;
}

static inline void device_side(parity_device *device, kern_side *side, int32_t head_dim)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        kern_segment *g = &side->segments[i];
        if (g->kind == KERN_CODEBOOK) {
            g->centroids = device_copy(device, g->centroids, sizeof(float) << g->bits);
            g->thresholds =
                device_copy(device, g->thresholds, (sizeof(float) << g->bits) - sizeof(float));
        }
    }
    if (side->signs != NULL) {
        side->signs = device_copy(device, side->signs, (size_t)head_dim * sizeof *side->signs);
    }
    if (side->query_signs != NULL) {
        side->query_signs =
            device_copy(device, side->query_signs, (size_t)head_dim * sizeof *side->query_signs);
    }
    if (side->order != NULL) {
        side->order = device_copy(device, side->order, (size_t)head_dim * sizeof *side->order);
    }
}

/* Formats with all that they point to. */
static inline kern_head_format *device_formats(parity_device *device,
                                               const kern_head_format *formats, int32_t n_kv_heads)
{
    kern_head_format *copy = parity_memory(n_kv_heads, sizeof *copy);
    for (int32_t h = 0; h < n_kv_heads; h++) {
        copy[h] = formats[h];
        device_side(device, &copy[h].k, copy[h].head_dim);
        device_side(device, &copy[h].v, copy[h].head_dim);
    }
    kern_head_format *p = device_copy(device, copy, (size_t)n_kv_heads * sizeof *copy);
    free(copy);
    return p;
}

static inline bool parity_cuda_absent(void)
{
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) == cudaSuccess && n_devices > 0) {
        return false;
    }
    printf("SKIP: no CUDA device\n");
    return true;
}

#define PARITY_CUDA_MAIN(tests)                                                    \
    (parity_cuda_absent() ? TEST_SKIPPED                                           \
                          : (cmocka_set_skip_filter(getenv("ROPEWALK_TEST_SKIP")), \
                             cmocka_run_group_tests((tests), NULL, NULL)))

#endif /* TESTS_SUPPORT_PARITY_CUDA_H */
