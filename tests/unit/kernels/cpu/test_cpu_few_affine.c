/* The fast paths of decode on affine pages against the plain reference: decode to f32, sums in double. */
#include "kernels/cpu/cpu_few.h"
#include "kernels/cpu/cpu_page.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define KEYS KERN_BLOCK_TOKENS

typedef struct page {
    page_fixture fx;
    uint8_t *bytes;
    float *values[2]; /* K and V as decoded */
} page;

/* Rows of a standard normal; channel 3 is eight times as large and lies around 20, as K has them. */
static page *page_open(int32_t dim, int32_t n_segments, const int32_t *k_bits,
                       const int32_t *v_bits)
{
    page *p = parity_memory(1, sizeof *p);
    page_fixture_init(&p->fx, dim, n_segments, k_bits, v_bits, false, 1);
    const kern_head_format *f = &p->fx.format;
    p->bytes = malloc((size_t)f->head_page_bytes); /* exact: the sanitizer watches its end */
    assert_non_null(p->bytes);
    memset(p->bytes, 0, (size_t)f->head_page_bytes);
    for (int side = 0; side < 2; side++) {
        const kern_side *s = side == 0 ? &f->k : &f->v;
        float *x = parity_normals(70 + (uint64_t)side, (int64_t)KEYS * dim, 1.0);
        for (int32_t j = 0; j < KEYS && side == 0; j++) {
            x[j * dim + 3] = 20.0f + 8.0f * x[j * dim + 3];
        }
        uint16_t *rows = parity_elems(x, (int64_t)KEYS * dim, BASE_BF16);
        cpu_side_encode(s, dim, rows, p->bytes);
        p->values[side] = parity_memory((int64_t)KEYS * dim, sizeof(float));
        cpu_side_decode(s, dim, p->bytes, f->head_page_bytes, p->values[side]);
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
    free(p);
}

/* The range of a channel in the page, as decoded. */
static double range_of(const page *p, int32_t d)
{
    const int32_t dim = p->fx.format.head_dim;
    float low = p->values[0][d];
    float high = low;
    for (int32_t j = 1; j < KEYS; j++) {
        low = fminf(low, p->values[0][j * dim + d]);
        high = fmaxf(high, p->values[0][j * dim + d]);
    }
    return (double)(high - low);
}

/* The largest |q_d| times the range of its channel. */
static double widest_product(const page *p, const float *q)
{
    double most = 0.0;
    for (int32_t d = 0; d < p->fx.format.head_dim; d++) {
        most = fmax(most, fabs((double)q[d]) * range_of(p, d));
    }
    return most;
}

static void check_dot(const page *p, const cpu_few_side *plan, int32_t n_rows)
{
    const cpu_few_bytes all = cpu_few_bytes_of(plan, p->bytes);
    const int32_t dim = p->fx.format.head_dim;
    float *q = parity_normals(80, (int64_t)n_rows * dim, 0.088);
    float *s = parity_guarded((int64_t)n_rows * KEYS);
    double widest[16];
    for (int32_t r = 0; r < n_rows; r++) {
        widest[r] = widest_product(p, q + (int64_t)r * dim);
    }
    assert_true(cpu_few_dot(&p->fx.format.k, plan, dim, p->bytes, all, q, s, n_rows));
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
        parity_near((double)s[i], want, fmax(2e-5 * sqrt(xx * kk), 2e-4 * widest[i / KEYS]), "s",
                    i);
    }
    parity_guarded_check(s, (int64_t)n_rows * KEYS);
    free(q);
    parity_guarded_free(s);
}

static void check_mix(const page *p, const cpu_few_side *plan, int32_t n_rows)
{
    const cpu_few_bytes all = cpu_few_bytes_of(plan, p->bytes);
    const int32_t dim = p->fx.format.head_dim;
    float *w = parity_normals(81, (int64_t)n_rows * KEYS, 1.0);
    float *o = parity_guarded((int64_t)n_rows * dim);
    for (int32_t i = 0; i < n_rows * KEYS; i++) {
        w[i] = w[i] * w[i] / 8.0f; /* as weights are: positive, few large ones */
    }
    for (int32_t i = 0; i < n_rows * dim; i++) {
        o[i] = 1.0f;
    }
    assert_true(cpu_few_mix(&p->fx.format.v, plan, dim, p->bytes, all, w, o, n_rows));
    for (int32_t i = 0; i < n_rows * dim; i++) {
        double want = 1.0;
        for (int32_t j = 0; j < KEYS; j++) {
            want += (double)w[i / dim * KEYS + j] * (double)p->values[1][j * dim + i % dim];
        }
        parity_near((double)o[i], want, 1e-3, "o", i);
    }
    parity_guarded_check(o, (int64_t)n_rows * dim);
    free(w);
    parity_guarded_free(o);
}

static bool fast_path_is_here(void)
{
    return cpu_isa_of_machine() > CPU_ISA_PLAIN;
}

static bool is_read(const page_fixture *fx, const kern_side *side, cpu_isa isa, cpu_few_side *plan)
{
    cpu_few_plan(side, fx->format.head_page_bytes, isa, plan);
    return plan->usable;
}

static void check_rows(page *p)
{
    static const int32_t rows[] = {1, 2, 3, 4, 7, 16};
    cpu_few_side k;
    cpu_few_side v;
    for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
        assert_true(is_read(&p->fx, &p->fx.format.k, isa, &k));
        assert_true(is_read(&p->fx, &p->fx.format.v, isa, &v));
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            check_dot(p, &k, rows[i]);
            check_mix(p, &v, rows[i]);
        }
    }
    page_close(p);
}

static void every_width_and_group_agrees_with_the_reference(void **state)
{
    (void)state;
    if (!fast_path_is_here()) {
        skip();
    }
    for (int32_t bits = 2; bits <= 4; bits += 2) {
        for (int32_t group = 32; group <= 128; group *= 2) {
            for (int32_t dim = 64; dim <= 128; dim += 64) {
                const int32_t k = PAGE_AFFINE(bits, group);
                const int32_t v = PAGE_AFFINE(bits, group < dim ? group : dim);
                check_rows(page_open(dim, 1, &k, &v));
            }
        }
    }
}

static void segments_of_several_widths_agree_with_the_reference(void **state)
{
    (void)state;
    static const int32_t k_bits[] = {PAGE_AFFINE(4, 128), PAGE_AFFINE(2, 32)};
    static const int32_t v_bits[] = {PAGE_AFFINE(2, 64), PAGE_AFFINE(4, 32)};
    if (!fast_path_is_here()) {
        skip();
    }
    check_rows(page_open(128, 2, k_bits, v_bits));
}

static void what_it_cannot_do_is_left_to_the_reference(void **state)
{
    (void)state;
    static const int32_t unread[][2] = {
        {PAGE_AFFINE(2, 32), PAGE_AFFINE(8, 32)}, {4, PAGE_AFFINE(2, 32)}, {PAGE_AFFINE(2, 32), 4}};
    cpu_few_side plan;
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        page_fixture fx;
        page_fixture_init(&fx, 128, 2, unread[i], unread[i], false, 1);
        for (cpu_isa isa = CPU_ISA_PLAIN; isa <= cpu_isa_of_machine(); isa++) {
            assert_false(is_read(&fx, &fx.format.k, isa, &plan));
            assert_false(is_read(&fx, &fx.format.v, isa, &plan));
        }
    }
}

static void not_by_the_wrong_side_and_not_what_is_not_finite(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    static const cpu_few_bytes nothing = {NULL, NULL};
    const int32_t bits = PAGE_AFFINE(2, 32);
    if (!fast_path_is_here()) {
        skip();
    }
    page *p = page_open(64, 1, &bits, &bits);
    const kern_side *sides[] = {&p->fx.format.k, &p->fx.format.v};
    for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
        float x[2 * KEYS] = {0};
        float out[2 * KEYS] = {0};
        cpu_few_side plan[2];
        assert_true(is_read(&p->fx, sides[0], isa, &plan[0]));
        assert_true(is_read(&p->fx, sides[1], isa, &plan[1]));
        assert_false(cpu_few_dot(sides[1], &plan[1], 64, p->bytes, nothing, x, out, 1));
        assert_false(cpu_few_mix(sides[0], &plan[0], 64, p->bytes, nothing, x, out, 1));
        for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
            x[KEYS - 1] = odd[i];
            assert_false(cpu_few_dot(sides[0], &plan[0], 64, p->bytes, nothing, x, out, 2));
            assert_false(cpu_few_mix(sides[1], &plan[1], 64, p->bytes, nothing, x, out, 1));
        }
        for (int32_t j = 0; j < 2 * KEYS; j++) {
            assert_true(out[j] == 0.0f);
        }
    }
    page_close(p);
}

/* Channels and positions that never change have scale 0; with all of them so, nothing sets a step. */
static void constants_are_read_as_they_are(void **state)
{
    (void)state;
    const int32_t bits = PAGE_AFFINE(2, 32);
    if (!fast_path_is_here()) {
        skip();
    }
    for (int i = 0; i < 2; i++) {
        page *p = page_open(128, 1, &bits, &bits);
        const float value = i == 0 ? 3e4f : 0.0f;
        uint16_t *rows = parity_memory((int64_t)KEYS * 128, sizeof *rows);
        for (int32_t at = 0; at < KEYS * 128; at++) {
            rows[at] = base_bf16_from_f32(value);
            p->values[0][at] = p->values[1][at] = base_f32_from_bf16(rows[at]);
        }
        cpu_side_encode(&p->fx.format.k, 128, rows, p->bytes);
        cpu_side_encode(&p->fx.format.v, 128, rows, p->bytes);
        for (cpu_isa isa = CPU_ISA_AVX2; isa <= cpu_isa_of_machine(); isa++) {
            cpu_few_side plan;
            float x[KEYS];
            float s[KEYS];
            float o[KEYS] = {0};
            for (int32_t j = 0; j < KEYS; j++) {
                x[j] = 1e4f;
            }
            const cpu_few_bytes nothing = {NULL, NULL};
            const double want = 128.0 * 1e4 * (double)p->values[0][0];
            assert_true(is_read(&p->fx, &p->fx.format.k, isa, &plan));
            assert_true(cpu_few_dot(&p->fx.format.k, &plan, 128, p->bytes, nothing, x, s, 1));
            assert_true(is_read(&p->fx, &p->fx.format.v, isa, &plan));
            assert_true(cpu_few_mix(&p->fx.format.v, &plan, 128, p->bytes, nothing, x, o, 1));
            for (int32_t j = 0; j < KEYS; j++) {
                parity_near((double)s[j], want, 1e-6 * want, "s", j);
                parity_near((double)o[j], want, 1e-6 * want, "o", j);
            }
        }
        free(rows);
        page_close(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_and_group_agrees_with_the_reference),
        cmocka_unit_test(segments_of_several_widths_agree_with_the_reference),
        cmocka_unit_test(what_it_cannot_do_is_left_to_the_reference),
        cmocka_unit_test(not_by_the_wrong_side_and_not_what_is_not_finite),
        cmocka_unit_test(constants_are_read_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
