/* The fast page writer against the plain one: the same bytes for the same rows. */
#include "kernels/cpu/cpu_page_write.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

static void check_segment(const kern_segment *g, const uint16_t *rows, int32_t head_dim,
                          int32_t page_bytes)
{
    uint8_t *plain = parity_memory(page_bytes, 1);
    uint8_t *fast = parity_memory(page_bytes, 1);
    memset(plain, 0x5a, (size_t)page_bytes);
    memset(fast, 0x5a, (size_t)page_bytes);
    cpu_codes_encode(g, rows + g->first_dim, head_dim, CPU_ISA_PLAIN, plain);
    cpu_codes_encode(g, rows + g->first_dim, head_dim, cpu_isa_of_machine(), fast);
    assert_memory_equal(plain, fast, (size_t)page_bytes);
    free(plain);
    free(fast);
}

/* Rows of every magnitude, and every kind of value that is not a number or not usual. */
static uint16_t *odd_rows(int32_t head_dim)
{
    static const uint16_t odd[] = {0x7fc0, 0xffc1, 0x7f80, 0xff80, 0x0000, 0x8000,
                                   0x0001, 0x7f7f, 0xff7f, 0x0080, 0x3f80, 0x2edb};
    const int64_t n = (int64_t)KERN_BLOCK_TOKENS * head_dim;
    uint16_t *rows = parity_memory(n, sizeof *rows);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = i / head_dim;
        const double scale = pow(10.0, (double)(row % 60) - 30.0);
        rows[i] = base_bf16_from_f32((float)(scale * base_random_normal(7, 1, (uint64_t)i)));
        if (row % 5 == 0 && base_random_u64(7, 2, (uint64_t)i) % 50 == 0) {
            rows[i] = odd[base_random_u64(7, 3, (uint64_t)i) % (sizeof odd / sizeof odd[0])];
        }
        rows[i] = row == 9 ? 0 : rows[i];
    }
    return rows;
}

static void every_width_writes_the_same_bytes(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        const int32_t widths[8] = {bits, 9 - bits, bits, 3, bits, 8, bits, 1};
        for (int32_t n_segments = 1; n_segments <= 8; n_segments *= 2) {
            page_fixture fx;
            page_fixture_init(&fx, 128, n_segments, widths, widths, false, 1);
            uint16_t *rows = odd_rows(128);
            for (int32_t i = 0; i < n_segments; i++) {
                check_segment(&fx.format.k.segments[i], rows, 128, fx.format.head_page_bytes);
            }
            free(rows);
        }
    }
}

/* Values that lie on a threshold, which counts only those that are below. */
static void values_on_a_threshold_get_the_same_code(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        page_fixture fx;
        page_fixture_init(&fx, 64, 1, &bits, &bits, false, 2);
        uint16_t *rows = parity_memory(KERN_BLOCK_TOKENS * 64, sizeof *rows);
        const int32_t n_thresholds = (1 << bits) - 1;
        for (int32_t i = 0; i < KERN_BLOCK_TOKENS * 64; i++) {
            rows[i] = base_bf16_from_f32(i % 2 == 0 ? 1.0f : -1.0f); /* u is 1/8 or -1/8 */
        }
        for (int32_t i = 0; i < n_thresholds; i++) {
            fx.books[0].thresholds[i] = i < n_thresholds / 2 ? -0.125f : 0.125f;
        }
        check_segment(&fx.format.k.segments[0], rows, 64, fx.format.head_page_bytes);
        free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_writes_the_same_bytes),
        cmocka_unit_test(values_on_a_threshold_get_the_same_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
