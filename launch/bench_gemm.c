#include "launch/bench_gemm.h"

#include "base/clock.h"
#include "base/half.h"
#include "kernels/cpu/cpu_library.h"
#include "kernels/kern.h"

#define ROUNDS 15

typedef struct product {
    const model_tensor *w; /* [n, k] */
    int32_t n, k;
} product;

typedef struct buffers {
    float *x, *y, *w;
} buffers;

static float elem_of(const model_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case BASE_F32: return ((const float *)t->data)[i];
    case BASE_F16: return base_f32_from_f16(((const uint16_t *)t->data)[i]);
    case BASE_BF16: return base_f32_from_bf16(((const uint16_t *)t->data)[i]);
    }
    return 0.0f;
}

/* Adds the least time of both to *ours_us and *library_us. */
static base_status race(kern_ctx *ctx, const product *p, int32_t m, const buffers *b,
                        double *ours_us, double *library_us)
{
    base_status st = BASE_OK;
    double ours = 1e30;
    double library = 1e30;
    const kern_gemm_args args = {.x = b->x,
                                 .w = p->w->data,
                                 .y = b->y,
                                 .m = m,
                                 .n = p->n,
                                 .k = p->k,
                                 .x_stride = p->k,
                                 .y_stride = p->n,
                                 .dtype = p->w->dtype};

    for (int64_t i = 0; i < (int64_t)p->n * p->k; i++) {
        b->w[i] = elem_of(p->w, i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        int64_t begun = base_now_ns();
        cpu_library_sgemm(b->x, b->w, b->y, m, p->n, p->k);
        int64_t ended = base_now_ns();
        library = (double)(ended - begun) < library ? (double)(ended - begun) : library;
        begun = base_now_ns();
        BASE_TRY(st, out, kern_gemm(ctx, &args));
        ended = base_now_ns();
        ours = (double)(ended - begun) < ours ? (double)(ended - begun) : ours;
    }
    *ours_us += ours * 1e-3;
    *library_us += library * 1e-3;
out:
    return st;
}

base_status bench_gemm(const model *m, int32_t n_rows, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    const model_config *c = &m->config;
    const model_layer *l = &m->layers[0];
    const int32_t q = c->n_heads * c->head_dim;
    const int32_t kv = c->n_kv_heads * c->head_dim;
    const product products[] = {{&l->q, q, c->width},
                                {&l->k, kv, c->width},
                                {&l->v, kv, c->width},
                                {&l->o, c->width, q},
                                {&l->gate, c->ffn_width, c->width},
                                {&l->up, c->ffn_width, c->width},
                                {&l->down, c->width, c->ffn_width}};
    kern_ctx *ctx = NULL;
    double ours_us = 0.0;
    double library_us = 0.0;
    int64_t widest = 0;
    int64_t largest = 0;

    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        const product *p = &products[i];
        widest = p->n > widest ? p->n : widest;
        widest = p->k > widest ? p->k : widest;
        largest = (int64_t)p->n * p->k > largest ? (int64_t)p->n * p->k : largest;
    }
    buffers b = {.x = mem->get(mem->ctx, (size_t)(n_rows * widest) * sizeof(float)),
                 .y = mem->get(mem->ctx, (size_t)(n_rows * widest) * sizeof(float)),
                 .w = mem->get(mem->ctx, (size_t)largest * sizeof(float))};
    if (b.x == NULL || b.y == NULL || b.w == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "products of %d rows", n_rows);
        goto out;
    }
    for (int64_t i = 0; i < n_rows * widest; i++) {
        b.x[i] = (float)(i % 17) * 0.125f - 1.0f;
    }
    BASE_TRY(st, out, kern_ctx_create_cpu(1, mem, &ctx)); /* and one thread for the library */
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        BASE_TRY(st, out, race(ctx, &products[i], n_rows, &b, &ours_us, &library_us));
    }
    *json_out = json_pack("{s:i, s:f, s:f, s:f}", "rows", n_rows, "layer_us", ours_us, "library_us",
                          library_us, "of_library", library_us / ours_us);
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the products");
out:
    kern_ctx_destroy(ctx);
    mem->put(mem->ctx, b.x);
    mem->put(mem->ctx, b.y);
    mem->put(mem->ctx, b.w);
    return st;
}
