#include "worker/engine/command_queue.h"

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static base_status push(command_queue *q, group_down_kind kind, uint64_t seq)
{
    group_down *down = q->mem.get(q->mem.ctx, sizeof *down);
    if (down == NULL) {
        return BASE_NO_MEMORY;
    }
    down->kind = kind;
    down->seq = seq;
    const base_status st = command_queue_push(q, down);
    if (st != BASE_OK) {
        q->mem.put(q->mem.ctx, down);
    }
    return st;
}

static void check_pop(command_queue *q, group_down_kind kind, uint64_t seq)
{
    const group_down *down = command_queue_pop(q);
    assert_non_null(down);
    assert_int_equal(down->kind, kind);
    assert_int_equal(down->seq, seq);
}

static void commands_come_out_in_order(void **state)
{
    (void)state;
    command_queue q;
    command_queue_init(&q, &base_heap);
    assert_null(command_queue_pop(&q));
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_STATUS(push(&q, GROUP_DOWN_ADMIT, i), BASE_OK);
        CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, i), BASE_OK);
    }
    for (uint64_t i = 1; i <= 3; i++) {
        check_pop(&q, GROUP_DOWN_ADMIT, i);
        check_pop(&q, GROUP_DOWN_CREDIT, i);
    }
    assert_null(command_queue_pop(&q));
    assert_false(command_queue_is_muted(&q));
    command_queue_reset(&q);
}

static void a_lost_stream_cancels_what_ran_and_mutes_until_that_is_taken(void **state)
{
    (void)state;
    command_queue q;
    command_queue_init(&q, &base_heap);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK_STATUS(push(&q, GROUP_DOWN_ADMIT, i), BASE_OK);
        check_pop(&q, GROUP_DOWN_ADMIT, i);
    }
    command_queue_forget(&q, 2);
    command_queue_forget(&q, 99);
    CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, 1), BASE_OK);
    command_queue_lose(&q);
    assert_true(command_queue_is_muted(&q));
    /* The next stream counts its sequences from 1 again. */
    CHECK_STATUS(push(&q, GROUP_DOWN_ADMIT, 1), BASE_OK);
    check_pop(&q, GROUP_DOWN_CANCEL, 3);
    check_pop(&q, GROUP_DOWN_CANCEL, 1);
    assert_true(command_queue_is_muted(&q));
    check_pop(&q, GROUP_DOWN_ADMIT, 1);
    assert_false(command_queue_is_muted(&q));
    assert_null(command_queue_pop(&q));
    command_queue_reset(&q);
}

static void two_losses_in_a_row_keep_the_cancels_of_the_first(void **state)
{
    (void)state;
    command_queue q;
    command_queue_init(&q, &base_heap);
    CHECK_STATUS(push(&q, GROUP_DOWN_ADMIT, 1), BASE_OK);
    check_pop(&q, GROUP_DOWN_ADMIT, 1);
    command_queue_lose(&q);
    CHECK_STATUS(push(&q, GROUP_DOWN_DRAIN, 0), BASE_OK);
    CHECK_STATUS(push(&q, GROUP_DOWN_ADMIT, 5), BASE_OK);
    command_queue_lose(&q);
    check_pop(&q, GROUP_DOWN_CANCEL, 1);
    check_pop(&q, GROUP_DOWN_DRAIN, 0); /* the admit is gone: nobody waits for it */
    assert_true(command_queue_is_muted(&q));
    check_pop(&q, GROUP_DOWN_CANCEL, 5);
    assert_null(command_queue_pop(&q));
    assert_false(command_queue_is_muted(&q));
    command_queue_reset(&q);
}

static void an_idle_stream_is_lost_without_a_trace(void **state)
{
    (void)state;
    command_queue q;
    command_queue_init(&q, &base_heap);
    CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, 1), BASE_OK);
    command_queue_lose(&q);
    assert_false(command_queue_is_muted(&q));
    assert_null(command_queue_pop(&q));
    command_queue_reset(&q);
}

static void a_flood_is_refused(void **state)
{
    (void)state;
    command_queue q;
    command_queue_init(&q, &base_heap);
    for (int i = 0; i < COMMAND_QUEUE_MAX; i++) {
        CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, 1), BASE_OK);
    }
    CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, 1), BASE_EXHAUSTED);
    (void)command_queue_pop(&q);
    CHECK_STATUS(push(&q, GROUP_DOWN_CREDIT, 1), BASE_OK);
    command_queue_reset(&q);
}

static void failed_allocations_leave_the_queue_as_it_was(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        command_queue q;
        command_queue_init(&q, &mem);
        base_status st = push(&q, GROUP_DOWN_ADMIT, 1);
        const bool first = st == BASE_OK;
        st = first ? push(&q, GROUP_DOWN_ADMIT, 2) : st;
        command_queue_lose(&q); /* must work whatever failed before */
        int n_cancels = 0;
        for (const group_down *d = command_queue_pop(&q); d != NULL; d = command_queue_pop(&q)) {
            assert_int_equal(d->kind, GROUP_DOWN_CANCEL);
            n_cancels++;
        }
        assert_int_equal(n_cancels, first + (st == BASE_OK));
        assert_false(command_queue_is_muted(&q));
        command_queue_reset(&q);
        assert_int_equal(f.n_live, 0);
        if (st == BASE_OK) {
            assert_true(k > 4);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_come_out_in_order),
        cmocka_unit_test(a_lost_stream_cancels_what_ran_and_mutes_until_that_is_taken),
        cmocka_unit_test(two_losses_in_a_row_keep_the_cancels_of_the_first),
        cmocka_unit_test(an_idle_stream_is_lost_without_a_trace),
        cmocka_unit_test(a_flood_is_refused),
        cmocka_unit_test(failed_allocations_leave_the_queue_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
