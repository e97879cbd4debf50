#include "coordinator/groups.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static coord_group *make(const base_alloc *mem, base_status *st_out)
{
    static const int64_t total[] = {8, 8};
    const group_hello hello = {.ranks = 2,
                               .max_context = 1024,
                               .max_batch = 3,
                               .blocks_total_per_rank = total,
                               .weight_bytes_per_rank = total,
                               .exchange = base_view_of("mpi")};
    coord_group *group = NULL;
    *st_out = coord_group_create(&hello, NULL, 1000, mem, &group);
    return group;
}

static coord_group *make_one(void)
{
    base_status st = BASE_OK;
    coord_group *group = make(&base_heap, &st);
    assert_int_equal(st, BASE_OK);
    return group;
}

static void take_load(coord_group *group, int32_t running, int64_t free_0, int64_t free_1)
{
    const int64_t free_blocks[] = {free_0, free_1};
    const group_up load = {.kind = GROUP_UP_LOAD,
                           .running = running,
                           .blocks_free_per_rank = free_blocks,
                           .n_blocks_free = 2};
    CHECK_STATUS(coord_group_take_load(group, &load), BASE_OK);
}

static void what_was_sent_comes_off_the_estimate_until_it_is_answered(void **state)
{
    coord_group *group = make_one();
    (void)state;
    coord_slot *slot = coord_group_open_slot(group, NULL, 1, (int64_t)3 * 128); /* ranks 1, 0, 1 */
    assert_int_equal(group->blocks_free[0], 7);
    assert_int_equal(group->blocks_free[1], 6);
    take_load(group, 0, 8, 8); /* from before rank 0 saw it */
    assert_int_equal(group->blocks_free[1], 6);
    CHECK_STATUS(coord_group_take_admitted(group, slot, 2), BASE_BAD_INPUT);
    CHECK_STATUS(coord_group_take_admitted(group, slot, 0), BASE_OK);
    take_load(group, 1, 6, 7); /* now counted by rank 0 */
    assert_int_equal(group->blocks_free[0], 6);
    assert_int_equal(group->blocks_free[1], 7);
    coord_group_destroy(group);
}

static void a_refused_slot_gives_its_blocks_back(void **state)
{
    coord_group *group = make_one();
    (void)state;
    coord_slot *slot = coord_group_open_slot(group, NULL, 0, 1024);
    assert_int_equal(group->blocks_free[0], 4);
    coord_group_close_slot(group, slot);
    assert_int_equal(group->blocks_free[0], 8);
    assert_int_equal(coord_group_room(group).free_slots, 3);
    coord_group_destroy(group);
}

static void sequence_numbers_are_never_used_twice(void **state)
{
    coord_group *group = make_one();
    uint64_t seqs[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        seqs[i] = coord_group_open_slot(group, NULL, 0, 1)->seq;
    }
    assert_int_equal(coord_group_room(group).free_slots, 0);
    coord_group_close_slot(group, coord_group_find(group, seqs[1]));
    assert_null(coord_group_find(group, seqs[1]));
    const uint64_t again = coord_group_open_slot(group, NULL, 0, 1)->seq;
    assert_true(again > seqs[2]);
    assert_non_null(coord_group_find(group, again));
    assert_non_null(coord_group_find(group, seqs[0]));
    assert_null(coord_group_find(group, 0));
    assert_null(coord_group_find(group, UINT64_MAX));
    coord_group_destroy(group);
}

static void the_gate_opens_when_a_load_shows_more_room_than_the_one_before(void **state)
{
    coord_group *group = make_one();
    (void)state;
    take_load(group, 2, 5, 5);
    coord_group_take_refusal(group);
    assert_false(coord_group_room(group).open);
    take_load(group, 3, 2, 2); /* the refusal may have been decided on this already */
    assert_false(coord_group_room(group).open);
    take_load(group, 3, 2, 2);
    assert_false(coord_group_room(group).open);
    take_load(group, 3, 2, 3); /* more blocks, though fewer than at first */
    assert_true(coord_group_room(group).open);

    coord_group_take_refusal(group);
    take_load(group, 3, 2, 2);
    take_load(group, 2, 2, 2); /* fewer running */
    assert_true(coord_group_room(group).open);

    coord_group_take_refusal(group);
    take_load(group, 0, 2, 2); /* idle: there will be no more room than now */
    assert_true(coord_group_room(group).open);
    coord_group_destroy(group);
}

static void a_load_for_other_ranks_is_refused(void **state)
{
    coord_group *group = make_one();
    const group_up load = {.kind = GROUP_UP_LOAD, .n_blocks_free = 0};
    (void)state;
    CHECK_STATUS(coord_group_take_load(group, &load), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("0 counts for 2 ranks");
    coord_group_destroy(group);
}

static void silence_is_two_seconds(void **state)
{
    coord_group *group = make_one();
    (void)state;
    assert_false(coord_group_is_silent(group, 1000 + 1999999));
    assert_true(coord_group_is_silent(group, 1000 + 2000000));
    coord_group_destroy(group);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        base_status st = BASE_OK;
        coord_group *group = make(&mem, &st);
        if (st == BASE_OK) {
            assert_true(k > 0);
            coord_group_destroy(group);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(group);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_sent_comes_off_the_estimate_until_it_is_answered),
        cmocka_unit_test(a_refused_slot_gives_its_blocks_back),
        cmocka_unit_test(sequence_numbers_are_never_used_twice),
        cmocka_unit_test(the_gate_opens_when_a_load_shows_more_room_than_the_one_before),
        cmocka_unit_test(a_load_for_other_ranks_is_refused),
        cmocka_unit_test(silence_is_two_seconds),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
