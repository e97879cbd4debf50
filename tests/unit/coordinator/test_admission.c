#include "base/random.h"
#include "coordinator/admission.h"
#include "tests/support/test.h"

static const int64_t plenty[] = {100, 100};
static const int64_t none[] = {0, 0};

static coord_room room_of(int64_t max_context, const int64_t *free_blocks)
{
    return (coord_room){.open = true,
                        .max_context = max_context,
                        .free_slots = 1,
                        .running = 1,
                        .n_ranks = 2,
                        .free_blocks = free_blocks};
}

static void add(coord_queue *queue, coord_ticket *ticket, int64_t n_tokens, int64_t now_us)
{
    *ticket = (coord_ticket){.n_tokens = n_tokens, .deadline_us = INT64_MAX};
    CHECK_STATUS(coord_queue_add(queue, ticket, now_us), BASE_OK);
}

static void the_queue_is_bounded_and_first_come_first_served(void **state)
{
    coord_queue queue;
    coord_ticket t[3] = {0};
    coord_place place;
    const coord_room room = room_of(1000, plenty);
    (void)state;
    coord_queue_init(&queue, 2);
    assert_null(coord_queue_next(&queue, &room, 1, &place));
    add(&queue, &t[0], 900, 0);
    add(&queue, &t[1], 1, 0);
    CHECK_STATUS(coord_queue_add(&queue, &t[2], 0), BASE_EXHAUSTED);
    assert_int_equal(queue.n_waiting, 2);
    assert_false(t[2].waiting);
    assert_ptr_equal(coord_queue_next(&queue, &room, 1, &place), &t[0]);
    coord_queue_remove(&queue, &t[0]);
    coord_queue_remove(&queue, &t[0]); /* harmless */
    assert_ptr_equal(coord_queue_next(&queue, &room, 1, &place), &t[1]);
    CHECK_STATUS(coord_queue_add(&queue, &t[2], 0), BASE_OK);
}

static void nobody_overtakes_one_that_waits_for_blocks(void **state)
{
    coord_queue queue;
    coord_ticket t[2];
    coord_place place;
    const coord_room full = room_of(1000, none);
    (void)state;
    coord_queue_init(&queue, 2);
    add(&queue, &t[0], 900, 0);
    add(&queue, &t[1], 1, 0);
    assert_null(coord_queue_next(&queue, &full, 1, &place));
}

static void one_that_no_group_can_hold_blocks_nobody(void **state)
{
    coord_queue queue;
    coord_ticket t[2];
    coord_place place;
    const coord_room room = room_of(1000, plenty);
    (void)state;
    coord_queue_init(&queue, 2);
    add(&queue, &t[0], 1001, 10);
    add(&queue, &t[1], 1000, 10);
    assert_ptr_equal(coord_queue_next(&queue, &room, 1, &place), &t[1]);
    assert_null(coord_queue_stranded(&queue, &room, 1, 0, 109, 100));
    assert_ptr_equal(coord_queue_stranded(&queue, &room, 1, 0, 110, 100), &t[0]);
    assert_null(coord_queue_stranded(&queue, &room, 1, 50, 110, 100)); /* since the loss */
    coord_queue_remove(&queue, &t[0]);
    assert_null(coord_queue_stranded(&queue, &room, 1, 0, 1000, 100));
    assert_ptr_equal(coord_queue_stranded(&queue, &room, 0, 0, 1000, 100), &t[1]);
}

static void one_that_comes_back_takes_its_old_place_above_the_bound(void **state)
{
    coord_queue queue;
    coord_ticket t[4];
    (void)state;
    coord_queue_init(&queue, 3);
    for (int i = 0; i < 3; i++) {
        add(&queue, &t[i], 1, 0);
    }
    coord_queue_remove(&queue, &t[1]);
    coord_queue_remove(&queue, &t[0]);
    add(&queue, &t[3], 1, 0);
    coord_queue_return(&queue, &t[1], 5);
    coord_queue_return(&queue, &t[0], 5);
    assert_int_equal(queue.n_waiting, 4);
    const coord_ticket *at = queue.first;
    for (int i = 0; i < 4; i++, at = at->next) {
        assert_ptr_equal(at, &t[i]);
    }
    assert_null(at);
    assert_ptr_equal(queue.last, &t[3]);
    assert_int_equal(t[0].since_us, 5);
}

static void a_passed_deadline_is_found_wherever_it_waits(void **state)
{
    coord_queue queue;
    coord_ticket t[3];
    (void)state;
    coord_queue_init(&queue, 3);
    for (int i = 0; i < 3; i++) {
        add(&queue, &t[i], 1, 0);
    }
    t[1].deadline_us = 100;
    assert_null(coord_queue_expired(&queue, 99));
    assert_ptr_equal(coord_queue_expired(&queue, 100), &t[1]);
}

/* Links and order hold after any sequence of adds, removes and returns. */
static void order_and_links_hold_whatever_happens(void **state)
{
    enum { N = 40 };
    coord_queue queue;
    coord_ticket t[N] = {0};
    (void)state;
    coord_queue_init(&queue, N);
    for (uint64_t k = 0; k < 5000; k++) {
        coord_ticket *one = &t[base_random_u64(1, 0, k) % N];
        if (one->waiting) {
            coord_queue_remove(&queue, one);
        } else if (one->order != 0 && base_random_u64(1, 1, k) % 2 == 0) {
            coord_queue_return(&queue, one, 0);
        } else {
            CHECK_STATUS(coord_queue_add(&queue, one, 0), BASE_OK);
        }
        int32_t n = 0;
        const coord_ticket *prev = NULL;
        for (const coord_ticket *at = queue.first; at != NULL; at = at->next, n++) {
            assert_ptr_equal(at->prev, prev);
            assert_true(at->waiting);
            assert_true(prev == NULL || prev->order < at->order);
            prev = at;
        }
        assert_ptr_equal(queue.last, prev);
        assert_int_equal(queue.n_waiting, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_queue_is_bounded_and_first_come_first_served),
        cmocka_unit_test(nobody_overtakes_one_that_waits_for_blocks),
        cmocka_unit_test(one_that_no_group_can_hold_blocks_nobody),
        cmocka_unit_test(one_that_comes_back_takes_its_old_place_above_the_bound),
        cmocka_unit_test(a_passed_deadline_is_found_wherever_it_waits),
        cmocka_unit_test(order_and_links_hold_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
