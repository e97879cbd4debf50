#include "kvshard/pool.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void pages_go_out_lowest_first_until_none_is_left(void **state)
{
    (void)state;
    kv_pool *pool = NULL;
    int32_t page = -1;
    CHECK_STATUS(kv_pool_create(3, &base_heap, &pool), BASE_OK);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(kv_pool_n_free(pool), 3 - i);
        CHECK_STATUS(kv_pool_take(pool, &page), BASE_OK);
        assert_int_equal(page, i);
    }
    page = 77;
    CHECK_STATUS(kv_pool_take(pool, &page), BASE_EXHAUSTED);
    assert_int_equal(page, 77);
    kv_pool_release(pool, 1);
    assert_int_equal(kv_pool_n_free(pool), 1);
    CHECK_STATUS(kv_pool_take(pool, &page), BASE_OK);
    assert_int_equal(page, 1);
    kv_pool_destroy(pool);
}

static void no_page_is_handed_out_twice(void **state)
{
    (void)state;
    enum { N = 50 };
    kv_pool *pool = NULL;
    bool held[N] = {false};
    int32_t n_held = 0;
    CHECK_STATUS(kv_pool_create(N, &base_heap, &pool), BASE_OK);
    for (uint64_t i = 0; i < 5000; i++) {
        int32_t page = (int32_t)(base_random_u64(1, 0, i) % N);
        if (held[page]) {
            kv_pool_release(pool, page);
            held[page] = false;
            n_held--;
        } else if (n_held < N) {
            CHECK_STATUS(kv_pool_take(pool, &page), BASE_OK);
            assert_in_range(page, 0, N - 1);
            assert_false(held[page]);
            held[page] = true;
            n_held++;
        }
        assert_int_equal(kv_pool_n_free(pool), N - n_held);
    }
    kv_pool_destroy(pool);
}

static void releasing_a_page_that_is_free_asserts(void **state)
{
    (void)state;
    kv_pool *pool = NULL;
    int32_t page = -1;
    CHECK_STATUS(kv_pool_create(3, &base_heap, &pool), BASE_OK);
    CHECK_STATUS(kv_pool_take(pool, &page), BASE_OK);
    kv_pool_release(pool, page);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)fclose(stderr); /* the message is expected */
        kv_pool_release(pool, page);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    kv_pool_destroy(pool);
}

static void sizes_outside_the_limits_are_refused(void **state)
{
    (void)state;
    kv_pool *pool = NULL;
    CHECK_STATUS(kv_pool_create(0, &base_heap, &pool), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("n_pages is 0, allowed 1..16777216");
    CHECK_STATUS(kv_pool_create(KV_MAX_PAGES + 1, &base_heap, &pool), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("n_pages is 16777217");
    assert_null(pool);
    kv_pool_destroy(NULL);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        kv_pool *pool = NULL;
        const base_status st = kv_pool_create(8, &mem, &pool);
        if (st == BASE_OK) {
            assert_true(k > 0);
            kv_pool_destroy(pool);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(pool);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_go_out_lowest_first_until_none_is_left),
        cmocka_unit_test(no_page_is_handed_out_twice),
        cmocka_unit_test(releasing_a_page_that_is_free_asserts),
        cmocka_unit_test(sizes_outside_the_limits_are_refused),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
