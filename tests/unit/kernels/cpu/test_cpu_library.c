#include "kernels/cpu/cpu_library.h"
#include "tests/support/test.h"

#include <string.h>

static void only_the_fallback_has_something_better(void **state)
{
    (void)state;
    assert_string_equal(cpu_library_better_core("Prescott", CPU_ISA_AVX512), "SkylakeX");
    assert_string_equal(cpu_library_better_core("prescott", CPU_ISA_AVX2), "Haswell");
    assert_null(cpu_library_better_core("Prescott", CPU_ISA_PLAIN));
    assert_null(cpu_library_better_core("Zen", CPU_ISA_AVX512));
    assert_null(cpu_library_better_core("Haswell", CPU_ISA_AVX2));
}

static void what_it_chose_has_a_name(void **state)
{
    (void)state;
    assert_non_null(cpu_library_core());
    assert_true(strlen(cpu_library_core()) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_fallback_has_something_better),
        cmocka_unit_test(what_it_chose_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
