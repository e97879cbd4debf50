#include "base/half.h"
#include "tests/support/test.h"

#include <math.h>

static void bf16_round_trips_every_value(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = base_f32_from_bf16((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(base_f32_from_bf16(base_bf16_from_f32(f))));
        } else {
            assert_int_equal(base_bf16_from_f32(f), h);
        }
    }
}

static void f16_round_trips_every_value(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = base_f32_from_f16((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(base_f32_from_f16(base_f16_from_f32(f))));
        } else {
            assert_int_equal(base_f16_from_f32(f), h);
        }
    }
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(base_bf16_from_f32(base_bits_f32(0x3f808000u)),
                     0x3f80); /* tie, down to even */
    assert_int_equal(base_bf16_from_f32(base_bits_f32(0x3f818000u)), 0x3f82); /* tie, up to even */
    assert_int_equal(base_bf16_from_f32(base_bits_f32(0x3f808001u)), 0x3f81);
    assert_int_equal(base_f16_from_f32(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(base_f16_from_f32(1.0f + 0x3p-11f), 0x3c02);
    assert_int_equal(base_f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(base_f16_from_f32(65520.0f), 0x7c00);
    assert_int_equal(base_f16_from_f32(0x1p-25f), 0);
    assert_int_equal(base_f16_from_f32(0x1.8p-25f), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_round_trips_every_value),
        cmocka_unit_test(f16_round_trips_every_value),
        cmocka_unit_test(rounding_is_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
