#include "base/bytes.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static void grows_and_keeps_a_nul_behind(void **state)
{
    base_bytes b;
    (void)state;
    base_bytes_init(&b, 1000, &base_heap);
    for (int i = 0; i < 100; i++) {
        CHECK_STATUS(base_bytes_add(&b, "0123456789", 10), BASE_OK);
        assert_int_equal(b.data[b.n_bytes], '\0');
    }
    assert_int_equal(b.n_bytes, 1000);
    assert_memory_equal(b.data + 990, "0123456789", 10);
    base_bytes_reset(&b);
}

static void refuses_to_pass_its_limit_and_stays_as_it_was(void **state)
{
    base_bytes b;
    (void)state;
    base_bytes_init(&b, 4, &base_heap);
    CHECK_STATUS(base_bytes_add(&b, "abc", 3), BASE_OK);
    CHECK_STATUS(base_bytes_add(&b, "de", 2), BASE_OUT_OF_RANGE);
    assert_int_equal(b.n_bytes, 3);
    CHECK_STATUS(base_bytes_add(&b, "d", 1), BASE_OK);
    assert_string_equal(b.data, "abcd");
    base_bytes_reset(&b);
}

static void drops_from_the_front(void **state)
{
    base_bytes b;
    (void)state;
    base_bytes_init(&b, 100, &base_heap);
    CHECK_STATUS(base_bytes_add(&b, "hello world", 11), BASE_OK);
    base_bytes_drop_front(&b, 6);
    assert_string_equal(b.data, "world");
    base_bytes_drop_front(&b, 50);
    assert_int_equal(b.n_bytes, 0);
    base_bytes_reset(&b);
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        base_bytes b;
        base_status st = BASE_OK;
        size_t n_added = 0;
        base_bytes_init(&b, 1000, &mem);
        while (st == BASE_OK && n_added < 20) {
            st = base_bytes_add(&b, "0123456789", 10);
            n_added += st == BASE_OK;
        }
        CHECK_STATUS(st, BASE_NO_MEMORY);
        assert_int_equal(b.n_bytes, 10 * n_added); /* what was added is still there */
        base_bytes_reset(&b);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps_a_nul_behind),
        cmocka_unit_test(refuses_to_pass_its_limit_and_stays_as_it_was),
        cmocka_unit_test(drops_from_the_front),
        cmocka_unit_test(survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
