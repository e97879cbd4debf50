/* cuBLASLt with its descriptors and algorithm kept per shape.
 *
 * cuBLASLt counts in columns: a row-major [rows, cols] is its cols x rows.  So y^T [N x M] = w [K x N]^T times x
 * [K x M], all as they lie in memory. */
#include "kernels/cuda/cuda_gemm.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"

#include <cublasLt.h>

namespace {

constexpr int64_t kScratchBytes = 64ll << 20;   /* a chunk of 2048 rows of 16384 */
constexpr int64_t kWorkspaceBytes = 32ll << 20; /* what cuBLAS itself takes on Hopper */
constexpr int kMaxPlans = 64;                   /* seven weights a layer, times a few batch sizes */
constexpr int kThreads = 256;

struct plan_key {
    int32_t m, n, k, x_stride, y_stride;
    base_dtype dtype;
    int32_t align; /* bytes that all addresses are multiples of */
};

struct gemm_plan {
    plan_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
    bool possible; /* false: cuBLASLt has no algorithm for it */
};

bool same(const plan_key &a, const plan_key &b)
{
    return a.m == b.m && a.n == b.n && a.k == b.k && a.x_stride == b.x_stride &&
           a.y_stride == b.y_stride && a.dtype == b.dtype && a.align == b.align;
}

base_status blas_to_status(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS) {
        return BASE_OK;
    }
    return BASE_FAIL(status == CUBLAS_STATUS_ALLOC_FAILED ? BASE_NO_MEMORY : BASE_DEVICE_LOST,
                     "%s: %s", what, cublasLtGetStatusString(status));
}

void plan_reset(gemm_plan *plan)
{
    if (plan->product != nullptr) {
        (void)cublasLtMatmulDescDestroy(plan->product);
    }
    for (cublasLtMatrixLayout_t layout : {plan->w, plan->x, plan->y}) {
        if (layout != nullptr) {
            (void)cublasLtMatrixLayoutDestroy(layout);
        }
    }
    *plan = {};
}

/* Asks for the algorithm of plan->key; plan->possible says whether there is one. */
cublasStatus_t plan_choose(cublasLtHandle_t handle, gemm_plan *plan)
{
    cublasLtMatmulPreference_t wish = nullptr;
    cublasLtMatmulHeuristicResult_t found = {};
    const uint64_t workspace = kWorkspaceBytes;
    const uint32_t align = static_cast<uint32_t>(plan->key.align);
    int n_found = 0;

    cublasStatus_t st = cublasLtMatmulPreferenceCreate(&wish);
    if (st != CUBLAS_STATUS_SUCCESS) {
        return st;
    }
    st = cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace, sizeof workspace);
    for (auto which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
        if (st == CUBLAS_STATUS_SUCCESS) {
            st = cublasLtMatmulPreferenceSetAttribute(wish, which, &align, sizeof align);
        }
    }
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = cublasLtMatmulAlgoGetHeuristic(handle, plan->product, plan->w, plan->x, plan->y,
                                            plan->y, wish, 1, &found, &n_found);
        plan->possible = st == CUBLAS_STATUS_SUCCESS && n_found > 0;
        plan->algo = found.algo;
        st = st == CUBLAS_STATUS_NOT_SUPPORTED ? CUBLAS_STATUS_SUCCESS : st;
    }
    (void)cublasLtMatmulPreferenceDestroy(wish);
    return st;
}

base_status plan_make(cublasLtHandle_t handle, const plan_key &key, gemm_plan *plan)
{
    const cudaDataType_t type = key.dtype == BASE_BF16  ? CUDA_R_16BF
                                : key.dtype == BASE_F16 ? CUDA_R_16F
                                                        : CUDA_R_32F;
    const int64_t x_stride =
        key.dtype == BASE_F32 ? key.x_stride : key.k; /* rounded rows are close */
    const cublasOperation_t transpose = CUBLAS_OP_T;

    plan->key = key;
    cublasStatus_t st = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                            sizeof transpose);
    }
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = cublasLtMatrixLayoutCreate(&plan->w, type, key.k, key.n, key.k);
    }
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = cublasLtMatrixLayoutCreate(&plan->x, type, key.k, key.m, x_stride);
    }
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, key.n, key.m, key.y_stride);
    }
    if (st == CUBLAS_STATUS_SUCCESS) {
        st = plan_choose(handle, plan);
    }
    if (st != CUBLAS_STATUS_SUCCESS) {
        plan_reset(plan);
    }
    return blas_to_status(st, "plan of a product");
}

__device__ __nv_bfloat16 rounded(float x, __nv_bfloat16)
{
    return __float2bfloat16_rn(x);
}

__device__ __half rounded(float x, __half)
{
    return cuda_f16_nearest(x);
}

/* out [rows, k] close together; k a multiple of 8. */
template <typename W>
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float *x, int64_t x_stride, int k, int64_t n_wide, W *out)
{
    const int64_t step = (int64_t)gridDim.x * kThreads;
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n_wide; i += step) {
        const int64_t row = i * 8 / k;
        const int64_t c = i * 8 - row * k;
        float in[8];
        if (x_stride % 4 == 0) {
            cuda_load8(x + row * x_stride + c, in);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++) {
                in[e] = x[row * x_stride + c + e];
            }
        }
        W w[8];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            w[e] = rounded(in[e], W());
        }
        uint4 raw;
        memcpy(&raw, w, sizeof raw);
        reinterpret_cast<uint4 *>(out)[i] = raw;
    }
}

void round_rows(cudaStream_t stream, const kern_gemm_args &a, void *out)
{
    const int64_t n_wide = (int64_t)a.m * a.k / 8;
    const int64_t n_ctas = (n_wide + kThreads - 1) / kThreads;
    const unsigned grid = n_ctas < 4096 ? n_ctas : 4096;
    if (a.dtype == BASE_BF16) {
        round_kernel<<<grid, kThreads, 0, stream>>>(a.x, a.x_stride, a.k, n_wide,
                                                    static_cast<__nv_bfloat16 *>(out));
    } else {
        round_kernel<<<grid, kThreads, 0, stream>>>(a.x, a.x_stride, a.k, n_wide,
                                                    static_cast<__half *>(out));
    }
}

template <typename W>
__global__ void __launch_bounds__(kThreads) add_bias_kernel(const kern_gemm_args a)
{
    const int n = blockIdx.x * kThreads + threadIdx.x;
    if (n >= a.n) {
        return;
    }
    const float bias = cuda_f32(static_cast<const W *>(a.bias)[n]);
    for (int64_t m = blockIdx.y; m < a.m; m += gridDim.y) {
        a.y[m * a.y_stride + n] += bias;
    }
}

void add_bias(cudaStream_t stream, const kern_gemm_args &a)
{
    const dim3 grid((a.n + kThreads - 1) / kThreads, a.m < 1024 ? a.m : 1024);
    switch (a.dtype) {
    case BASE_F32: add_bias_kernel<float><<<grid, kThreads, 0, stream>>>(a); break;
    case BASE_F16: add_bias_kernel<__half><<<grid, kThreads, 0, stream>>>(a); break;
    case BASE_BF16: add_bias_kernel<__nv_bfloat16><<<grid, kThreads, 0, stream>>>(a); break;
    }
}

/* The largest power of two up to 256 that divides every address. */
int32_t common_align(const void *a, const void *b, const void *c)
{
    const uintptr_t bits = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) |
                           reinterpret_cast<uintptr_t>(c) | 256u;
    return static_cast<int32_t>(bits & (0u - bits));
}

} // namespace

struct cuda_gemm {
    base_alloc mem;
    cublasLtHandle_t handle;
    void *scratch;
    void *workspace;
    gemm_plan plans[kMaxPlans];
    int32_t n_plans;
    int32_t next; /* the plan that is dropped when there is no room */
};

extern "C" base_status cuda_gemm_create(const base_alloc *mem, cuda_gemm **gemm_out)
{
    base_status st = BASE_OK;
    auto *gemm = static_cast<cuda_gemm *>(mem->get(mem->ctx, sizeof(cuda_gemm)));

    if (gemm == nullptr) {
        return BASE_FAIL(BASE_NO_MEMORY, "state of products");
    }
    gemm->mem = *mem;
    BASE_TRY(st, out, blas_to_status(cublasLtCreate(&gemm->handle), "cuBLASLt"));
    BASE_TRY(st, out,
             cuda_to_status(cudaMalloc(&gemm->scratch, kScratchBytes), "rows of a product"));
    BASE_TRY(
        st, out,
        cuda_to_status(cudaMalloc(&gemm->workspace, kWorkspaceBytes), "workspace of cuBLASLt"));
    *gemm_out = gemm;
    gemm = nullptr;

out:
    cuda_gemm_destroy(gemm);
    return st;
}

extern "C" void cuda_gemm_destroy(cuda_gemm *gemm)
{
    if (gemm == nullptr) {
        return;
    }
    for (int32_t i = 0; i < gemm->n_plans; i++) {
        plan_reset(&gemm->plans[i]);
    }
    (void)cudaFree(gemm->workspace);
    (void)cudaFree(gemm->scratch);
    if (gemm->handle != nullptr) {
        (void)cublasLtDestroy(gemm->handle);
    }
    const base_alloc mem = gemm->mem;
    mem.put(mem.ctx, gemm);
}

static base_status plan_find(cuda_gemm *gemm, const plan_key &key, const gemm_plan **plan_out)
{
    for (int32_t i = 0; i < gemm->n_plans; i++) {
        if (same(gemm->plans[i].key, key)) {
            *plan_out = &gemm->plans[i];
            return BASE_OK;
        }
    }
    gemm_plan made = {};
    const base_status st = plan_make(gemm->handle, key, &made);
    if (st != BASE_OK) {
        return st;
    }
    gemm_plan *place = &gemm->plans[gemm->next];
    plan_reset(place);
    *place = made;
    gemm->next = (gemm->next + 1) % kMaxPlans;
    gemm->n_plans = gemm->n_plans < kMaxPlans ? gemm->n_plans + 1 : kMaxPlans;
    *plan_out = place;
    return BASE_OK;
}

/* Rows that fit the scratch at once. */
static base_status multiply(cuda_gemm *gemm, cudaStream_t stream, const kern_gemm_args *a)
{
    const void *x = a->dtype == BASE_F32 ? static_cast<const void *>(a->x) : gemm->scratch;
    const plan_key key = {
        a->m, a->n, a->k, a->x_stride, a->y_stride, a->dtype, common_align(a->w, x, a->y)};
    const float one = 1.0f;
    const float old = a->accumulate ? 1.0f : 0.0f;
    const gemm_plan *plan = nullptr;

    base_status st = plan_find(gemm, key, &plan);
    if (st != BASE_OK) {
        return st;
    }
    if (!plan->possible) {
        return cuda_gemm_plain(stream, a);
    }
    if (a->dtype != BASE_F32) {
        round_rows(stream, *a, gemm->scratch);
    }
    st = blas_to_status(cublasLtMatmul(gemm->handle, plan->product, &one, a->w, plan->w, x, plan->x,
                                       &old, a->y, plan->y, a->y, plan->y, &plan->algo,
                                       gemm->workspace, kWorkspaceBytes, stream),
                        "product");
    if (st == BASE_OK && a->bias != nullptr) {
        add_bias(stream, *a);
    }
    return st == BASE_OK ? CUDA_LAUNCHED("gemm") : st;
}

extern "C" base_status cuda_gemm_blas(cuda_gemm *gemm, void *stream, const kern_gemm_args *args)
{
    const int64_t most = args->dtype == BASE_F32 ? args->m : kScratchBytes / 2 / args->k;
    kern_gemm_args a = *args;
    base_status st = BASE_OK;

    for (int64_t done = 0; done < args->m && st == BASE_OK; done += a.m) {
        a.m = static_cast<int32_t>(args->m - done < most ? args->m - done : most);
        a.x = args->x + done * a.x_stride;
        a.y = args->y + done * a.y_stride;
        st = multiply(gemm, static_cast<cudaStream_t>(stream), &a);
    }
    return st;
}

extern "C" base_status kern_cuda_gemm(cuda_gemm *gemm, void *stream, const kern_gemm_args *args)
{
    const bool few = args->m <= CUDA_GEMV_ROWS;

    if (args->m == 0) {
        return BASE_OK;
    }
    if (args->k % 8 != 0 || (few && args->x_stride % 4 != 0)) {
        return cuda_gemm_plain(stream, args);
    }
    return few ? cuda_gemv(stream, args) : cuda_gemm_blas(gemm, stream, args);
}
