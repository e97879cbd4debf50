/* cuBLASLt with its descriptors and algorithm kept per shape.
 *
 * cuBLASLt counts in columns: a row-major [rows, cols] is its cols x rows.  So y^T [N x M] = w [K x N]^T times x
 * [K x M], all as they lie in memory. */
#include "kernels/cuda/cuda_gemm.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/gemm_rows.h"

#include <cublasLt.h>

namespace {

constexpr int64_t kScratchBytes = 64ll << 20;   /* of rows: a chunk of 8192 rows of 4096 */
constexpr int64_t kWorkspaceBytes = 32ll << 20; /* what cuBLAS itself takes on Hopper */
constexpr int64_t kAlign = 256;                 /* of what lies in the scratch */
constexpr int kMaxPlans = 64;                   /* seven weights a layer, times a few batch sizes */

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
    BASE_TRY(
        st, out,
        cuda_to_status(cudaMalloc(&gemm->scratch, kScratchBytes + kAlign), "rows of a product"));
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

/* y = (y +) x w^T of one plan; *done_out false: cuBLASLt has no way. */
static base_status multiply(cuda_gemm *gemm, cudaStream_t stream, const plan_key &key,
                            const void *w, const void *x, float *y, bool accumulate, bool *done_out)
{
    const float one = 1.0f;
    const float old = accumulate ? 1.0f : 0.0f;
    const gemm_plan *plan = nullptr;

    const base_status st = plan_find(gemm, key, &plan);
    if (st != BASE_OK) {
        return st;
    }
    *done_out = plan->possible;
    if (!plan->possible) {
        return BASE_OK;
    }
    return blas_to_status(cublasLtMatmul(gemm->handle, plan->product, &one, w, plan->w, x, plan->x,
                                         &old, y, plan->y, y, plan->y, &plan->algo, gemm->workspace,
                                         kWorkspaceBytes, stream),
                          "product");
}

/* Rows that fit the scratch at once: in 16 bits, and with `split` twice that and their sums. */
static base_status multiply_rows(cuda_gemm *gemm, cudaStream_t stream, const kern_gemm_args *a,
                                 bool split)
{
    const bool small = a->dtype != BASE_F32;
    const int32_t m = split ? 2 * a->m : a->m;
    const void *x = small ? gemm->scratch : static_cast<const void *>(a->x);
    const int64_t x_bytes = ((int64_t)m * a->k * 2 + kAlign - 1) / kAlign * kAlign;
    float *y =
        split ? reinterpret_cast<float *>(static_cast<uint8_t *>(gemm->scratch) + x_bytes) : a->y;
    const plan_key key = {
        m, a->n, a->k, a->x_stride, split ? a->n : a->y_stride, a->dtype, common_align(a->w, x, y)};
    bool done = false;

    if (small) {
        gemm_rows_round(stream, *a, split, gemm->scratch);
    }
    const base_status st = multiply(gemm, stream, key, a->w, x, y, a->accumulate && !split, &done);
    if (st != BASE_OK) {
        return st;
    }
    if (!done) {
        return cuda_gemm_plain(stream, a);
    }
    if (split) {
        gemm_rows_join(stream, *a, y);
    } else if (a->bias != nullptr) {
        gemm_rows_add_bias(stream, *a);
    }
    return CUDA_LAUNCHED("gemm");
}

extern "C" base_status cuda_gemm_blas(cuda_gemm *gemm, void *stream, const kern_gemm_args *args)
{
    const bool small = args->dtype != BASE_F32;
    const bool split = small && args->m <= CUDA_SPLIT_ROWS;
    const int64_t row_bytes =
        split ? 2 * (2 * (int64_t)args->k + 4 * (int64_t)args->n) : 2 * (int64_t)args->k;
    const int64_t most = small ? kScratchBytes / row_bytes : args->m;
    kern_gemm_args a = *args;
    base_status st = BASE_OK;

    if (most < 1) {
        return cuda_gemm_plain(stream, args);
    }
    for (int64_t done = 0; done < args->m && st == BASE_OK; done += a.m) {
        a.m = static_cast<int32_t>(args->m - done < most ? args->m - done : most);
        a.x = args->x + done * a.x_stride;
        a.y = args->y + done * a.y_stride;
        st = multiply_rows(gemm, static_cast<cudaStream_t>(stream), &a, split);
    }
    return st;
}

static base_status few_rows(void *stream, const kern_gemm_args *args)
{
    cuda_linear l = {};
    l.x = args->x;
    l.parts[0] = {args->w, args->bias, args->y, args->n, args->y_stride, args->dtype};
    l.n_parts = 1;
    l.m = args->m;
    l.k = args->k;
    l.x_stride = args->x_stride;
    l.accumulate = args->accumulate;
    return cuda_linear_run(stream, &l);
}

extern "C" base_status kern_cuda_gemm(cuda_gemm *gemm, void *stream, const kern_gemm_args *args)
{
    const bool few = args->m <= CUDA_GEMV_ROWS;

    if (args->m == 0) {
        return BASE_OK;
    }
    if (args->dtype == BASE_BF16 && cuda_linear_fits(args->m, args->k, args->x_stride)) {
        return few_rows(stream, args);
    }
    if (args->k % 8 != 0 || (few && args->x_stride % 4 != 0)) {
        return cuda_gemm_plain(stream, args);
    }
    return few ? cuda_gemv(stream, args) : cuda_gemm_blas(gemm, stream, args);
}
