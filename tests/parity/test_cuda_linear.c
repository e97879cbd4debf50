/* Projections and the gated half of an MLP on the GPU against fp64: few rows, which are one launch, and more. */
#include "kernels/cuda/cuda_gemm.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/device.h"
#include "tests/support/parity_cuda.h"

#include <string.h>

enum { PARTS = KERN_PROJECT_PARTS };

typedef struct linear_case {
    int32_t m, k;
    int32_t n[PARTS]; /* the first 0 ends the list */
    base_dtype dtype, norm_dtype, bias_dtype;
    bool bias;
} linear_case;

typedef struct matrix { /* a weight and its products, mirrors */
    void *w;
    void *bias; /* or NULL */
    float *y;
} matrix;

static const float eps = 1e-5f;

static void *mirrored(kern_ctx *ctx, const void *elems, int64_t n, size_t elem_bytes)
{
    const size_t n_bytes = (size_t)n * elem_bytes;
    void *p = kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, n_bytes);
    assert_non_null(p);
    memcpy(p, elems, n_bytes);
    CHECK_STATUS(kern_send(ctx, p, n_bytes), BASE_OK);
    return p;
}

static void drop(kern_ctx *ctx, void *mirror)
{
    kern_mirror(ctx)->put(kern_mirror(ctx)->ctx, mirror);
}

/* Rows of x in fp64, normalised. */
static double *normalised(const float *x, const void *norm, const linear_case *c)
{
    double *h = parity_memory((int64_t)c->m * c->k, sizeof *h);
    for (int64_t m = 0; m < c->m; m++) {
        double sum = 0.0;
        for (int64_t k = 0; k < c->k; k++) {
            sum += (double)x[m * c->k + k] * (double)x[m * c->k + k];
        }
        for (int64_t k = 0; k < c->k; k++) {
            h[m * c->k + k] = (double)x[m * c->k + k] / sqrt(sum / c->k + (double)eps) *
                              parity_elem(norm, k, c->norm_dtype);
        }
    }
    return h;
}

/* <h, w[n]>, and how far from it the header allows a result to be. */
static double product(const linear_case *c, const double *h, const void *w, int64_t n,
                      double *limit)
{
    double sum = 0.0;
    double hh = 0.0;
    double ww = 0.0;
    for (int64_t k = 0; k < c->k; k++) {
        const double v = parity_elem(w, n * c->k + k, c->dtype);
        sum += h[k] * v;
        hh += h[k] * h[k];
        ww += v * v;
    }
    *limit = 2e-6 * (sqrt((double)c->k) + 2.0) * sqrt(hh * ww) + 1e-6;
    return sum;
}

static matrix make_matrix(kern_ctx *ctx, const linear_case *c, int32_t i)
{
    const int64_t n_elems = (int64_t)c->n[i] * c->k;
    const int64_t n_y = (int64_t)c->m * c->n[i];
    float *w32 = parity_normals(3 + (uint64_t)i, n_elems, 1.0);
    float *b32 = parity_normals(13 + (uint64_t)i, c->n[i], 1.0);
    float *none = parity_memory(n_y, sizeof *none);
    void *w = parity_elems(w32, n_elems, c->dtype);
    void *bias = parity_elems(b32, c->n[i], c->bias_dtype);
    for (int64_t j = 0; j < n_y; j++) {
        none[j] = NAN; /* must be overwritten */
    }
    const matrix x = {
        .w = mirrored(ctx, w, n_elems, base_dtype_bytes(c->dtype)),
        .bias = c->bias ? mirrored(ctx, bias, c->n[i], base_dtype_bytes(c->bias_dtype)) : NULL,
        .y = mirrored(ctx, none, n_y, sizeof *none)};
    free(bias);
    free(w);
    free(none);
    free(b32);
    free(w32);
    return x;
}

static void free_matrix(kern_ctx *ctx, const matrix *x)
{
    drop(ctx, x->w);
    drop(ctx, x->bias);
    drop(ctx, x->y);
}

/* x, its norm, and the rows that the products take, in fp64. */
typedef struct rows {
    float *x;
    void *norm;
    double *h;
} rows;

static rows make_rows(kern_ctx *ctx, const linear_case *c, double norm_scale)
{
    const int64_t n_x = (int64_t)c->m * c->k;
    float *x = parity_normals(1, n_x, 3.0);
    float *norm32 = parity_normals(2, c->k, norm_scale);
    void *norm = parity_elems(norm32, c->k, c->norm_dtype);
    const rows r = {.x = mirrored(ctx, x, n_x, sizeof *x),
                    .norm = mirrored(ctx, norm, c->k, base_dtype_bytes(c->norm_dtype)),
                    .h = normalised(x, norm, c)};
    free(norm);
    free(norm32);
    free(x);
    return r;
}

static void free_rows(kern_ctx *ctx, const rows *r)
{
    drop(ctx, r->x);
    drop(ctx, r->norm);
    free(r->h);
}

static void check_project(kern_ctx *ctx, const linear_case *c)
{
    matrix parts[PARTS];
    const rows r = make_rows(ctx, c, 1.0);
    kern_project_args a = {.x = r.x,
                           .norm = r.norm,
                           .h = r.x,
                           .m = c->m,
                           .k = c->k,
                           .eps = eps,
                           .norm_dtype = c->norm_dtype};
    for (; a.n_parts < PARTS && c->n[a.n_parts] > 0; a.n_parts++) {
        const matrix *p = &parts[a.n_parts];
        parts[a.n_parts] = make_matrix(ctx, c, a.n_parts);
        a.parts[a.n_parts] = (kern_project_part){.w = p->w,
                                                 .bias = p->bias,
                                                 .y = p->y,
                                                 .n = c->n[a.n_parts],
                                                 .dtype = c->dtype,
                                                 .bias_dtype = c->bias_dtype};
    }
    CHECK_STATUS(kern_project(ctx, &a), BASE_OK);
    for (int32_t i = 0; i < a.n_parts; i++) {
        const int64_t n_y = (int64_t)c->m * c->n[i];
        CHECK_STATUS(kern_fetch(ctx, parts[i].y, (size_t)n_y * sizeof(float)), BASE_OK);
        for (int64_t j = 0; j < n_y; j++) {
            const int64_t n = j % c->n[i];
            double limit;
            double want = product(c, r.h + j / c->n[i] * c->k, parts[i].w, n, &limit);
            want += c->bias ? parity_elem(parts[i].bias, n, c->bias_dtype) : 0.0;
            parity_near((double)parts[i].y[j], want, limit, "y", j);
        }
        free_matrix(ctx, &parts[i]);
    }
    free_rows(ctx, &r);
}

static double silu(double g)
{
    return g / (1.0 + exp(-g));
}

static void check_gated(kern_ctx *ctx, const linear_case *c)
{
    const int64_t n_y = (int64_t)c->m * c->n[0];
    const rows r = make_rows(ctx, c, 0.05);
    const matrix gate = make_matrix(ctx, c, 0);
    const matrix up = make_matrix(ctx, c, 1);
    float *h = mirrored(ctx, r.x, (int64_t)c->m * c->k, sizeof *h);
    const kern_gated_args a = {.x = r.x,
                               .norm = r.norm,
                               .h = h,
                               .gate = gate.w,
                               .up = up.w,
                               .room = up.y,
                               .y = gate.y,
                               .m = c->m,
                               .f = c->n[0],
                               .k = c->k,
                               .eps = eps,
                               .norm_dtype = c->norm_dtype,
                               .gate_dtype = c->dtype,
                               .up_dtype = c->dtype};
    CHECK_STATUS(kern_gated(ctx, &a), BASE_OK);
    CHECK_STATUS(kern_fetch(ctx, gate.y, (size_t)n_y * sizeof(float)), BASE_OK);
    for (int64_t j = 0; j < n_y; j++) {
        double g_limit;
        double u_limit;
        const double *row = r.h + j / c->n[0] * c->k;
        const double g = product(c, row, gate.w, j % c->n[0], &g_limit);
        const double u = product(c, row, up.w, j % c->n[0], &u_limit);
        const double limit =
            1.1 * fabs(u) * g_limit + fabs(silu(g)) * u_limit + 1e-6 * fabs(silu(g) * u) + 1e-6;
        parity_near((double)gate.y[j], silu(g) * u, limit, "y", j);
    }
    drop(ctx, h);
    free_matrix(ctx, &up);
    free_matrix(ctx, &gate);
    free_rows(ctx, &r);
}

/* Every number of rows of one launch, and one more; tiles that end inside a part, fewer tiles than SMs and many
 * more, columns that no warp or not every warp has, as much of x as one launch takes. */
static const linear_case shapes[] = {
    {.m = 1, .k = 8, .n = {1}},
    {.m = 1, .k = 2048, .n = {2048, 256, 256}},
    {.m = 1, .k = 11008, .n = {100}},
    {.m = 2, .k = 14336, .n = {60}},
    {.m = 2, .k = 2048, .n = {300, 20, 12}},
    {.m = 3, .k = 72, .n = {9, 17, 1}},
    {.m = 4, .k = 1032, .n = {5000}},
    {.m = 5, .k = 520, .n = {64, 8, 8}},
    {.m = 6, .k = 4096, .n = {1024, 128, 128}},
    {.m = 7, .k = 11008, .n = {512}},
    {.m = 8, .k = 448, .n = {7000, 3}},
    {.m = 9, .k = 448, .n = {700, 3}},
};

#define N_SHAPES (sizeof shapes / sizeof shapes[0])

/* Whether cuBLAS multiplies: racecheck fails inside its kernels, so these are tests of their own. */
static bool calls_cublas(const linear_case *c)
{
    const bool one_launch = c->dtype == BASE_BF16 && cuda_linear_fits(c->m, c->k, c->k);
    return !one_launch && c->m > CUDA_GEMV_ROWS;
}

static void projections(bool by_cublas)
{
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cuda(0, &base_heap, &ctx), BASE_OK);
    for (size_t i = 0; i < N_SHAPES; i++) {
        linear_case c = shapes[i];
        c.dtype = BASE_BF16;
        c.norm_dtype = BASE_BF16;
        if (calls_cublas(&c) == by_cublas) {
            check_project(ctx, &c);
            c.bias = true;
            for (size_t t = 0; t < 3; t++) {
                c.bias_dtype = dtypes[t];
                check_project(ctx, &c);
            }
            c.norm_dtype = BASE_F32; /* a launch each */
            check_project(ctx, &c);
        }
        c.norm_dtype = BASE_F32;
        c.dtype = i % 2 == 0 ? BASE_F16 : BASE_F32;
        if (calls_cublas(&c) == by_cublas) {
            check_project(ctx, &c);
        }
    }
    kern_ctx_destroy(ctx);
}

static void gated_products(bool by_cublas)
{
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cuda(0, &base_heap, &ctx), BASE_OK);
    for (size_t i = 0; i < N_SHAPES; i++) {
        linear_case c = shapes[i];
        c.n[1] = c.n[0];
        c.norm_dtype = BASE_BF16;
        for (size_t t = 0; t < 2; t++) {
            c.dtype = t == 0 ? BASE_BF16 : BASE_F16;
            if (calls_cublas(&c) == by_cublas) {
                check_gated(ctx, &c);
            }
        }
    }
    kern_ctx_destroy(ctx);
}

static void projections_agree_with_fp64(void **state)
{
    (void)state;
    projections(false);
}

static void gated_products_agree_with_fp64(void **state)
{
    (void)state;
    gated_products(false);
}

static void projections_by_cublas_agree_with_fp64(void **state)
{
    (void)state;
    projections(true);
}

static void gated_products_by_cublas_agree_with_fp64(void **state)
{
    (void)state;
    gated_products(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projections_agree_with_fp64),
        cmocka_unit_test(gated_products_agree_with_fp64),
        cmocka_unit_test(projections_by_cublas_agree_with_fp64),
        cmocka_unit_test(gated_products_by_cublas_agree_with_fp64),
    };
    return PARITY_CUDA_MAIN(tests);
}
