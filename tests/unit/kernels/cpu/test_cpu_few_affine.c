/* The fast paths of decode on affine pages against the plain reference: decode to f32, sums in double. */
#include "kernels/cpu/cpu_few_affine.h"

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

static void check_dot(const page *p, int32_t n_rows)
{
    const int32_t dim = p->fx.format.head_dim;
    float *q = parity_normals(80, (int64_t)n_rows * dim, 0.088);
    float *s = parity_guarded((int64_t)n_rows * KEYS);
    double widest[16];
    for (int32_t r = 0; r < n_rows; r++) {
        widest[r] = widest_product(p, q + (int64_t)r * dim);
    }
    assert_true(cpu_few_affine_dot(&p->fx.format.k, dim, p->bytes, q, s, n_rows));
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

static void check_mix(const page *p, int32_t n_rows)
{
    const int32_t dim = p->fx.format.head_dim;
    float *w = parity_normals(81, (int64_t)n_rows * KEYS, 1.0);
    float *o = parity_guarded((int64_t)n_rows * dim);
    for (int32_t i = 0; i < n_rows * KEYS; i++) {
        w[i] = w[i] * w[i] / 8.0f; /* as weights are: positive, few large ones */
    }
    for (int32_t i = 0; i < n_rows * dim; i++) {
        o[i] = 1.0f;
    }
    assert_true(cpu_few_affine_mix(&p->fx.format.v, dim, p->bytes, w, o, n_rows));
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
    static const kern_side none = {.n_segments = 0};
    return cpu_few_affine_reads_k(&none);
}

static void check_rows(page *p)
{
    static const int32_t rows[] = {1, 2, 3, 4, 7, 16};
    assert_true(cpu_few_affine_reads_k(&p->fx.format.k));
    assert_true(cpu_few_affine_reads_v(&p->fx.format.v));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        check_dot(p, rows[i]);
        check_mix(p, rows[i]);
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
        {PAGE_AFFINE(2, 32), PAGE_AFFINE(8, 32)}, {4, PAGE_AFFINE(2, 32)}, {16, 16}};
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        page_fixture fx;
        page_fixture_init(&fx, 128, 2, unread[i], unread[i], false, 1);
        assert_false(cpu_few_affine_reads_k(&fx.format.k));
        assert_false(cpu_few_affine_reads_v(&fx.format.v));
    }
    if (!fast_path_is_here()) {
        skip();
    }
    const int32_t bits = PAGE_AFFINE(2, 32);
    page *p = page_open(64, 1, &bits, &bits);
    assert_false(cpu_few_affine_reads_v(&p->fx.format.k)); /* by channel */
    assert_false(cpu_few_affine_reads_k(&p->fx.format.v));
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        float x[2 * KEYS] = {0};
        float out[2 * KEYS] = {0};
        x[KEYS - 1] = odd[i];
        assert_false(cpu_few_affine_dot(&p->fx.format.k, 64, p->bytes, x, out, 2));
        assert_false(cpu_few_affine_mix(&p->fx.format.v, 64, p->bytes, x, out, 1));
        for (int32_t j = 0; j < 2 * KEYS; j++) {
            assert_true(out[j] == 0.0f);
        }
    }
    page_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_and_group_agrees_with_the_reference),
        cmocka_unit_test(segments_of_several_widths_agree_with_the_reference),
        cmocka_unit_test(what_it_cannot_do_is_left_to_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
