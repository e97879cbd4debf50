#include "kernels/comm/comm.h"

#include "base/alloc.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static void one_rank_talks_to_itself(void **state)
{
    (void)state;
    comm *c = NULL;
    char mine[] = "abc";
    char all[4] = "xyz";
    CHECK_STATUS(comm_self_create(&base_heap, &c), BASE_OK);
    assert_int_equal(comm_rank(c), 0);
    assert_int_equal(comm_size(c), 1);
    assert_string_equal(comm_name(c), "self");
    assert_null(comm_memory(c)); /* any will do */
    CHECK_STATUS(comm_look(c), BASE_OK);
    comm_abort(c); /* nothing is under way */
    CHECK_STATUS(comm_broadcast(c, mine, 3, 0, 1), BASE_OK);
    assert_string_equal(mine, "abc");
    CHECK_STATUS(comm_all_gather(c, mine, all, 2, 1), BASE_OK);
    assert_string_equal(all, "abz");
    CHECK_STATUS(comm_all_gather(c, all, all, 3, 1), BASE_OK);
    CHECK_STATUS(comm_all_gather(c, NULL, NULL, 0, 1), BASE_OK);
    assert_string_equal(all, "abz");
    const int32_t begins[] = {0, 3};
    CHECK_STATUS(comm_all_to_all(c, "xyz", all, begins, 1, 1), BASE_OK);
    assert_string_equal(all, "xyz");
    CHECK_STATUS(comm_all_to_all(c, "ab", all, NULL, 2, 1), BASE_OK);
    assert_string_equal(all, "abz");
    float x[] = {1.0f, 2.0f};
    CHECK_STATUS(comm_sum(c, x, 2, NULL, 1), BASE_OK);
    assert_true(x[0] == 1.0f && x[1] == 2.0f);
    comm_destroy(c);
    comm_destroy(NULL);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    comm *c = NULL;
    char byte = 1;
    char out = 7;
    CHECK_STATUS(comm_self_create(&base_heap, &c), BASE_OK);
    CHECK_STATUS(comm_broadcast(c, &byte, 1, 1, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(c, &byte, 1, 0, 0), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_gather(c, &byte, &out, 1, -1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_gather(c, &byte, &out, (size_t)1 << 31, 1), BASE_BAD_INPUT);
    const int32_t from_1[] = {1, 2};
    const int32_t back[] = {0, -1};
    const int32_t two[] = {0, 2};
    CHECK_STATUS(comm_all_to_all(c, &byte, &out, from_1, 1, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_to_all(c, &byte, &out, back, 1, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_to_all(c, &byte, &out, two, (size_t)1 << 30, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_to_all(c, &byte, &out, NULL, (size_t)1 << 31, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_to_all(c, &byte, &out, NULL, 1, 0), BASE_BAD_INPUT);
    CHECK_STATUS(comm_sum(c, NULL, -1, NULL, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_sum(c, NULL, (int64_t)1 << 29, NULL, 1), BASE_BAD_INPUT);
    CHECK_STATUS(comm_sum(c, NULL, 1, NULL, 0), BASE_BAD_INPUT);
    assert_int_equal(out, 7);
    comm_destroy(c);
}

static void create_survives_a_failed_allocation(void **state)
{
    (void)state;
    failing_alloc f = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &f};
    comm *c = NULL;
    CHECK_STATUS(comm_self_create(&mem, &c), BASE_NO_MEMORY);
    assert_null(c);
    CHECK_STATUS(comm_self_create(&mem, &c), BASE_OK);
    comm_destroy(c);
    assert_int_equal(f.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_talks_to_itself),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(create_survives_a_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
