/* The fast paths of decode against the plain reference: decode to f32, sums in double. */
#include "kernels/cpu/cpu_few.h"

#include "kernels/cpu/cpu_page.h"
#include "kvshard/calibration.h"
#include "kvshard/format.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#include <stdio.h>

#define KEYS KERN_BLOCK_TOKENS

static const cpu_few_bytes nothing_ahead = {NULL, NULL};

/* One head of 128 dims: its page of random rows, and both sides decoded. */
typedef struct page {
    const kern_head_format *format;
    uint8_t *bytes;
    float *values[2];
} page;

static page page_open(const kern_head_format *f)
{
    page p = {.format = f, .bytes = parity_memory(f->head_page_bytes, 1)};
    const int64_t n = (int64_t)KEYS * f->head_dim;
    for (int side = 0; side < 2; side++) {
        float *x = parity_normals(50 + (uint64_t)side, n, side == 0 ? 1.0 : 3.0);
        uint16_t *rows = parity_elems(x, n, BASE_BF16);
        cpu_side_encode(side == 0 ? &f->k : &f->v, f->head_dim, rows, p.bytes);
        p.values[side] = parity_memory(n, sizeof(float));
        cpu_side_decode(side == 0 ? &f->k : &f->v, f->head_dim, p.bytes, f->head_page_bytes,
                        p.values[side]);
        free(x);
        free(rows);
    }
    return p;
}

static void page_close(page *p)
{
    free(p->bytes);
    free(p->values[0]);
    free(p->values[1]);
}

static void check_dot(const page *p, const cpu_few_side *plan, int32_t n_rows)
{
    const int32_t dim = p->format->head_dim;
    float *q = parity_normals(60, (int64_t)n_rows * dim, 0.088);
    float *s = parity_guarded((int64_t)n_rows * KEYS);
    assert_true(cpu_few_dot(&p->format->k, plan, dim, p->bytes, cpu_few_bytes_of(plan, p->bytes), q,
                            s, n_rows));
    for (int32_t i = 0; i < n_rows * KEYS; i++) {
        const float *x = q + (int64_t)(i / KEYS) * dim;
        const float *k = p->values[0] + (int64_t)(i % KEYS) * dim;
        double want = 0.0;
        double xx = 0.0;
        double kk = 0.0;
        for (int32_t d = 0; d < dim; d++) {
            want += (double)x[d] * (double)k[d];
            xx += (double)x[d] * (double)x[d];
            kk += (double)k[d] * (double)k[d];
        }
        parity_near((double)s[i], want, 2e-5 * sqrt(xx * kk), "s", i);
    }
    parity_guarded_check(s, (int64_t)n_rows * KEYS);
    free(q);
    parity_guarded_free(s);
}

static void check_mix(const page *p, const cpu_few_side *plan, int32_t n_rows)
{
    const int32_t dim = p->format->head_dim;
    float *w = parity_normals(61, (int64_t)n_rows * KEYS, 1.0);
    float *o = parity_guarded((int64_t)n_rows * dim);
    for (int32_t i = 0; i < n_rows * KEYS; i++) {
        w[i] = w[i] * w[i] / 8.0f; /* as weights are: positive, few large ones */
    }
    for (int32_t i = 0; i < n_rows * dim; i++) {
        o[i] = 1.0f;
    }
    assert_true(cpu_few_mix(&p->format->v, plan, dim, p->bytes, nothing_ahead, w, o, n_rows));
    for (int32_t i = 0; i < n_rows * dim; i++) {
        double want = 1.0;
        for (int32_t j = 0; j < KEYS; j++) {
            want += (double)w[i / dim * KEYS + j] * (double)p->values[1][j * dim + i % dim];
        }
        parity_near((double)o[i], want, 2e-3, "o", i);
    }
    parity_guarded_check(o, (int64_t)n_rows * dim);
    free(w);
    parity_guarded_free(o);
}

/* With every path that this machine has. */
static void check_page(const kern_head_format *f)
{
    static const int32_t rows[] = {1, 2, 3, 4, 7, 16};
    page p = page_open(f);
    for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
        cpu_few_side k;
        cpu_few_side v;
        cpu_few_plan(&f->k, f->head_page_bytes, isa, &k);
        cpu_few_plan(&f->v, f->head_page_bytes, isa, &v);
        assert_true(k.usable);
        assert_true(v.usable);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            check_dot(&p, &k, rows[i]);
            check_mix(&p, &v, rows[i]);
        }
    }
    page_close(&p);
}

static bool fast_path_is_here(void)
{
    return cpu_isa_of_machine() > CPU_ISA_PLAIN;
}

static void the_codebooks_of_pages_agree_with_the_reference(void **state)
{
    (void)state;
    static const char *const policies[] = {"bf16",       "tq:k=2,v=2", "tq:k=3,v=3",
                                           "tq:k=4,v=4", "tq:k=5,v=6", "tq:k=7,v=8",
                                           "tq:k=8,v=5", "tq:k=6,v=7", "tq:k=16,v=3"};
    if (!fast_path_is_here()) {
        skip();
    }
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        kv_policy policy;
        kv_format *format = NULL;
        const kv_shape shape = {1, 1, i % 2 == 0 ? 128 : 64};
        CHECK_STATUS(kv_policy_parse(policies[i], &policy), BASE_OK);
        CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
        check_page(format->heads);
        kv_format_destroy(format);
    }
}

static void segments_of_several_widths_agree_with_the_reference(void **state)
{
    (void)state;
    static const int32_t k_bits[] = {4, 1, 16, 3, 5, 8, 2, 6};
    static const int32_t v_bits[] = {2, 16, 4, 1, 7, 3, 8, 5};
    static const int32_t n_segments[] = {1, 2, 4, 8};
    if (!fast_path_is_here()) {
        skip();
    }
    for (size_t i = 0; i < sizeof n_segments / sizeof n_segments[0]; i++) {
        page_fixture fx;
        page_fixture_init(&fx, 128, n_segments[i], k_bits, v_bits, false, 3);
        check_page(&fx.format);
    }
}

/* Groups of several sizes; from 2 to 6 bits in the mean. */
static void the_groups_of_block_gtq_agree_with_the_reference(void **state)
{
    (void)state;
    enum { N_HEADS = 4 };
    const base_hash no_model = {{0}};
    if (!fast_path_is_here()) {
        skip();
    }
    for (int32_t bits = 2; bits <= 6; bits++) {
        char text[40];
        kv_policy policy;
        kv_calibration *calibration = NULL;
        kv_format *format = NULL;
        const kv_shape shape = {1, N_HEADS, bits % 2 == 0 ? 64 : 128};
        (void)snprintf(text, sizeof text, "block-gtq:k=%d,v=3", bits);
        CHECK_STATUS(kv_policy_parse(text, &policy), BASE_OK);
        CHECK_STATUS(kv_calibration_create(&shape, no_model, 1, &base_heap, &calibration), BASE_OK);
        for (int32_t i = 0; i < N_HEADS * shape.head_dim; i++) {
            const double z = base_random_normal(7, (uint64_t)bits, (uint64_t)i);
            calibration->energies[i] = (float)exp(1.5 * z);
        }
        CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, calibration, &base_heap, &format),
                     BASE_OK);
        for (int32_t h = 0; h < N_HEADS; h++) {
            check_page(&format->heads[h]);
        }
        kv_format_destroy(format);
        kv_calibration_destroy(calibration);
    }
}

/* Whole sums of halves: the largest rows and the largest levels. */
static void extreme_rows_stay_exact(void **state)
{
    (void)state;
    static const int32_t bits = 4;
    page_fixture fx;
    page_fixture_init(&fx, 128, 1, &bits, &bits, false, 5);
    page p = page_open(&fx.format);
    float q[128];
    float s[KEYS];
    memset(p.bytes + fx.format.k.segments[0].codes_offset, 0xff, KEYS * 64); /* the last code */
    for (int32_t d = 0; d < 128; d++) {
        q[d] = 3.0f;
    }
    for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
        cpu_few_side plan;
        cpu_few_plan(&fx.format.k, fx.format.head_page_bytes, isa, &plan);
        assert_true(cpu_few_dot(&fx.format.k, &plan, 128, p.bytes, nothing_ahead, q, s, 1));
        for (int32_t j = 0; j < KEYS; j++) {
            uint16_t norm;
            memcpy(&norm, p.bytes + fx.format.k.segments[0].norms_offset + 2 * j, sizeof norm);
            const double want =
                128.0 * 3.0 * (double)fx.books[0].centroids[15] * (double)base_f32_from_f16(norm);
            parity_near((double)s[j], want, 1e-5 * want, "s", j);
        }
    }
    page_close(&p);
}

static void what_it_cannot_do_is_left_to_the_reference(void **state)
{
    (void)state;
    static const int32_t wide = 5;
    static const int32_t narrow = 2;
    page_fixture fx;
    cpu_few_side plan;
    float x[KEYS] = {0};
    float out[KEYS] = {0};
    page_fixture_init(&fx, 64, 1, &wide, &narrow, false, 4);
    cpu_few_plan(&fx.format.k, fx.format.head_page_bytes, CPU_ISA_PLAIN, &plan);
    assert_false(plan.usable);
    for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
        fx.books[1].centroids[1] *= 1.001f; /* no longer multiples of a scale */
        cpu_few_plan(&fx.format.v, fx.format.head_page_bytes, isa, &plan);
        assert_false(plan.usable);
        fx.books[1].centroids[1] /= 1.001f;
        cpu_few_plan(&fx.format.v, fx.format.head_page_bytes, isa, &plan);
        assert_true(plan.usable);
        page p = page_open(&fx.format);
        x[7] = NAN;
        assert_false(cpu_few_mix(&fx.format.v, &plan, 64, p.bytes, nothing_ahead, x, out, 1));
        assert_false(cpu_few_dot(&fx.format.v, &plan, 64, p.bytes, nothing_ahead, x, out, 1));
        x[7] = INFINITY;
        assert_false(cpu_few_dot(&fx.format.v, &plan, 64, p.bytes, nothing_ahead, x, out, 1));
        for (int i = 0; i < KEYS; i++) {
            assert_true(out[i] == 0.0f);
        }
        page_close(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_codebooks_of_pages_agree_with_the_reference),
        cmocka_unit_test(segments_of_several_widths_agree_with_the_reference),
        cmocka_unit_test(the_groups_of_block_gtq_agree_with_the_reference),
        cmocka_unit_test(extreme_rows_stay_exact),
        cmocka_unit_test(what_it_cannot_do_is_left_to_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
