#include "worker/boot/watchman.h"

#include "base/clock.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define PATIENCE_US 2000000

typedef struct world {
    atomic_int_least64_t due_us;
    atomic_bool faulty;
    atomic_int n_looks;
    atomic_int n_raised;
    char said[256]; /* before n_raised counts */
} world;

static int64_t due_us(void *ctx)
{
    return atomic_load(&((world *)ctx)->due_us);
}

static base_status look(void *ctx)
{
    world *w = ctx;
    atomic_fetch_add(&w->n_looks, 1);
    return atomic_load(&w->faulty) ? BASE_FAIL(BASE_PEER_LOST, "a fault of the transport")
                                   : BASE_OK;
}

static void note(void *ctx)
{
    world *w = ctx;
    (void)snprintf(w->said, sizeof w->said, "%s", base_last_error());
    atomic_fetch_add(&w->n_raised, 1);
}

static bool raised_in_time(world *w)
{
    const int64_t until = base_now_us() + PATIENCE_US;
    while (atomic_load(&w->n_raised) == 0 && base_now_us() < until) {
        base_sleep_us(1000);
    }
    return atomic_load(&w->n_raised) == 1;
}

static watchman *start(world *w)
{
    const watchman_post post = {due_us, look, note, w};
    watchman *man = NULL;
    CHECK_STATUS(watchman_start(&post, &base_heap, &man), BASE_OK);
    return man;
}

static void nothing_is_raised_while_all_is_well(void **state)
{
    (void)state;
    world w = {.due_us = 0};
    watchman *man = start(&w);
    while (atomic_load(&w.n_looks) < 3) {
        base_sleep_us(1000);
    }
    atomic_store(&w.due_us, base_now_us() + 3600ll * 1000000);
    const int seen = atomic_load(&w.n_looks);
    while (atomic_load(&w.n_looks) < seen + 3) {
        base_sleep_us(1000);
    }
    watchman_stop(man);
    assert_int_equal(atomic_load(&w.n_raised), 0);
    watchman_stop(NULL);
}

static void an_overdue_step_is_raised_once(void **state)
{
    (void)state;
    world w = {.due_us = 0};
    const int64_t due = base_now_us() + 100000;
    atomic_store(&w.due_us, due);
    watchman *man = start(&w);
    assert_true(raised_in_time(&w));
    assert_true(base_now_us() >= due);
    base_sleep_us(100000);
    watchman_stop(man);
    assert_int_equal(atomic_load(&w.n_raised), 1);
    assert_non_null(strstr(w.said, "overdue"));
}

static void a_fault_of_the_transport_is_raised(void **state)
{
    (void)state;
    world w = {.due_us = 0};
    watchman *man = start(&w);
    atomic_store(&w.faulty, true);
    assert_true(raised_in_time(&w));
    watchman_stop(man);
    assert_string_equal(w.said, "a fault of the transport");
}

static void without_memory_there_is_no_watchman(void **state)
{
    (void)state;
    world w = {.due_us = 0};
    failing_alloc failing = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &failing};
    const watchman_post post = {due_us, look, note, &w};
    watchman *man = NULL;
    CHECK_STATUS(watchman_start(&post, &mem, &man), BASE_NO_MEMORY);
    assert_int_equal(failing.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_raised_while_all_is_well),
        cmocka_unit_test(an_overdue_step_is_raised_once),
        cmocka_unit_test(a_fault_of_the_transport_is_raised),
        cmocka_unit_test(without_memory_there_is_no_watchman),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
