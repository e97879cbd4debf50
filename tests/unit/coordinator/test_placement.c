#include "coordinator/placement.h"
#include "tests/support/test.h"

#define FREE(...) ((const int64_t[]){__VA_ARGS__})

static void the_group_with_the_most_free_blocks_takes_it(void **state)
{
    const coord_room rooms[] = {
        {.open = true,
         .max_context = 4096,
         .free_slots = 1,
         .n_ranks = 2,
         .free_blocks = FREE(4, 4)},
        {.open = true,
         .max_context = 4096,
         .free_slots = 1,
         .n_ranks = 2,
         .free_blocks = FREE(5, 6)},
        {.open = true,
         .max_context = 4096,
         .free_slots = 0,
         .n_ranks = 2,
         .free_blocks = FREE(9, 9)},
        {.open = false,
         .max_context = 4096,
         .free_slots = 1,
         .n_ranks = 2,
         .free_blocks = FREE(9, 9)},
        {.open = true,
         .max_context = 128,
         .free_slots = 1,
         .n_ranks = 2,
         .free_blocks = FREE(9, 9)},
    };
    coord_place place = {.room = -7};
    (void)state;
    assert_int_equal(coord_placement_choose(rooms, 5, 300, &place), COORD_FIT_NOW);
    assert_int_equal(place.room, 1);
    assert_int_equal(place.start_rank, 1); /* the emptiest */
}

static void of_equal_ones_the_less_busy_and_then_the_first_takes_it(void **state)
{
    static const int64_t free_blocks[] = {4, 4};
    coord_room rooms[3];
    coord_place place;
    (void)state;
    for (int i = 0; i < 3; i++) {
        rooms[i] = (coord_room){.open = true,
                                .max_context = 4096,
                                .free_slots = 4,
                                .running = i == 0 ? 2 : 1,
                                .n_ranks = 2,
                                .free_blocks = free_blocks};
    }
    assert_int_equal(coord_placement_choose(rooms, 3, 1, &place), COORD_FIT_NOW);
    assert_int_equal(place.room, 1);
}

static void what_does_not_fit_now_is_told_from_what_never_will(void **state)
{
    coord_room room = {.open = true,
                       .max_context = 1000,
                       .free_slots = 1,
                       .running = 1,
                       .n_ranks = 2,
                       .free_blocks = FREE(1, 0)};
    coord_place place = {.room = -7};
    (void)state;
    assert_int_equal(coord_placement_choose(&room, 1, 128, &place), COORD_FIT_NOW);
    place.room = -7;
    assert_int_equal(coord_placement_choose(&room, 1, 129, &place), COORD_FIT_LATER);
    assert_int_equal(coord_placement_choose(&room, 1, 1001, &place), COORD_FIT_NEVER);
    assert_int_equal(coord_placement_choose(&room, 0, 1, &place), COORD_FIT_NEVER);
    room.open = false;
    assert_int_equal(coord_placement_choose(&room, 1, 1, &place), COORD_FIT_LATER);
    assert_int_equal(place.room, -7);
}

static void an_idle_group_is_asked_even_if_its_blocks_seem_too_few(void **state)
{
    const coord_room room = {.open = true,
                             .max_context = 1000,
                             .free_slots = 1,
                             .running = 0,
                             .n_ranks = 3,
                             .free_blocks = FREE(0, 2, 1)};
    coord_place place;
    (void)state;
    assert_int_equal(coord_placement_choose(&room, 1, 1000, &place), COORD_FIT_NOW);
    assert_int_equal(place.start_rank, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_group_with_the_most_free_blocks_takes_it),
        cmocka_unit_test(of_equal_ones_the_less_busy_and_then_the_first_takes_it),
        cmocka_unit_test(what_does_not_fit_now_is_told_from_what_never_will),
        cmocka_unit_test(an_idle_group_is_asked_even_if_its_blocks_seem_too_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
