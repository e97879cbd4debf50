/* What a group computes on, from where its ranks sit: no GPU is needed to decide. */
#include "tests/support/test.h"
#include "worker/boot/seats.h"

#include <stdio.h>

enum { MAX_SEATS = 8 };

/* n ranks on one host, each with a GPU of its own. */
static void sit(seat *seats, int32_t n, const char *device)
{
    for (int32_t r = 0; r < n; r++) {
        seats[r] = (seat){.gpu = r, .gpu_fits = 1, .build_has_cuda = 1};
        (void)snprintf(seats[r].host, SEAT_TEXT, "node7");
        (void)snprintf(seats[r].device, SEAT_TEXT, "%s", device);
        (void)snprintf(seats[r].gpu_name, SEAT_TEXT, "H200");
        (void)snprintf(seats[r].gpu_uuid, SEAT_TEXT, "uuid-%d", r);
    }
}

static void a_gpu_for_each_rank_is_taken(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 4, "");
    for (int32_t own = 0; own < 4; own++) {
        CHECK_STATUS(seats_decide(seats, 4, own, &plan), BASE_OK);
        assert_int_equal(plan.device, KERN_DEVICE_CUDA);
        assert_int_equal(plan.gpu, own);
        assert_int_equal(plan.n_sharing, 1);
        assert_true(plan.own_gpus && plan.one_host);
    }
    assert_string_equal(plan.who, "rank 3 on node7, GPU 3");
}

static void without_one_for_each_the_group_computes_on_cpus(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 3, "");
    (void)snprintf(seats[2].gpu_uuid, SEAT_TEXT, "uuid-0"); /* two GPUs, three ranks */
    CHECK_STATUS(seats_decide(seats, 3, 1, &plan), BASE_OK);
    assert_int_equal(plan.device, KERN_DEVICE_CPU);
    assert_false(plan.own_gpus);
    assert_string_equal(plan.who, "rank 1 on node7");
    sit(seats, 3, "");
    seats[1].gpu_fits = 0;
    CHECK_STATUS(seats_decide(seats, 3, 0, &plan), BASE_OK);
    assert_int_equal(plan.device, KERN_DEVICE_CPU);
    sit(seats, 3, "cpu");
    CHECK_STATUS(seats_decide(seats, 3, 0, &plan), BASE_OK);
    assert_int_equal(plan.device, KERN_DEVICE_CPU);
}

static void the_same_number_on_another_host_is_another_gpu(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 2, "cuda");
    seats[1].gpu = 0;
    (void)snprintf(seats[1].host, SEAT_TEXT, "node8");
    CHECK_STATUS(seats_decide(seats, 2, 1, &plan), BASE_OK);
    assert_int_equal(plan.device, KERN_DEVICE_CUDA);
    assert_string_equal(plan.who, "rank 1 on node8, GPU 0");
    assert_true(plan.own_gpus);
    assert_false(plan.one_host);
}

/* A launcher that shows each rank its own GPU alone: all are number 0. */
static void gpus_are_told_apart_by_more_than_their_numbers(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 2, "cuda");
    seats[1].gpu = 0;
    CHECK_STATUS(seats_decide(seats, 2, 1, &plan), BASE_OK);
    assert_int_equal(plan.gpu, 0);
}

static void a_gpu_that_two_would_have_is_refused_by_name(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 3, "cuda");
    seats[2].gpu = 1;
    (void)snprintf(seats[2].gpu_uuid, SEAT_TEXT, "uuid-1");
    for (int32_t own = 0; own < 3; own++) { /* on every rank alike */
        CHECK_STATUS(seats_decide(seats, 3, own, &plan), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("ranks 1 and 2 on node7");
        CHECK_ERROR_NAMES("GPU 1, a H200");
    }
    for (int32_t r = 0; r < 3; r++) {
        seats[r].shared = 1;
    }
    CHECK_STATUS(seats_decide(seats, 3, 2, &plan), BASE_OK);
    assert_int_equal(plan.n_sharing, 2);
    CHECK_STATUS(seats_decide(seats, 3, 0, &plan), BASE_OK);
    assert_int_equal(plan.n_sharing, 1);
    assert_false(plan.own_gpus); /* of the group, whichever rank looks */
}

static void a_rank_without_a_gpu_is_named(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 3, "cuda");
    seats[2].gpu = -1;
    CHECK_STATUS(seats_decide(seats, 3, 0, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("rank 2 on node7: no GPU");
    seats[1].build_has_cuda = 0;
    CHECK_STATUS(seats_decide(seats, 3, 0, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("rank 1 on node7: this build computes on the CPU");
}

static void ranks_with_other_command_lines_are_named(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 2, "cuda");
    (void)snprintf(seats[1].device, SEAT_TEXT, "cpu");
    CHECK_STATUS(seats_decide(seats, 2, 0, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--device of rank 1 on node7");
    sit(seats, 2, "cuda");
    seats[1].shared = 1;
    CHECK_STATUS(seats_decide(seats, 2, 0, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--share-gpu of rank 1");
    for (int32_t i = 0; i < 2; i++) {
        sit(seats, 2, "");
        (void)snprintf(i == 0 ? seats[1].merge : seats[1].weights, SEAT_TEXT, "auto");
        CHECK_STATUS(seats_decide(seats, 2, 0, &plan), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("--merge, --weights or --share-gpu of rank 1");
    }
}

/* This machine, whatever it has. */
static void one_rank_agrees_with_itself(void **state)
{
    (void)state;
    const boot_world alone = {.n_ranks = 1, .n_local = 1};
    seat_wishes wishes = {.device = "cpu"};
    seat_plan plan;
    comm *self = NULL;
    CHECK_STATUS(comm_self_create(&base_heap, &self), BASE_OK);
    CHECK_STATUS(seats_agree(self, &alone, &wishes, &plan), BASE_OK);
    assert_int_equal(plan.device, KERN_DEVICE_CPU);
    wishes.device = "cuda";
    if (kern_gpu_count() == 0) {
        CHECK_STATUS(seats_agree(self, &alone, &wishes, &plan), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("rank 0");
    } else {
        CHECK_STATUS(seats_agree(self, &alone, &wishes, &plan), BASE_OK);
        assert_int_equal(plan.device, KERN_DEVICE_CUDA);
    }
    comm_destroy(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_for_each_rank_is_taken),
        cmocka_unit_test(without_one_for_each_the_group_computes_on_cpus),
        cmocka_unit_test(the_same_number_on_another_host_is_another_gpu),
        cmocka_unit_test(gpus_are_told_apart_by_more_than_their_numbers),
        cmocka_unit_test(a_gpu_that_two_would_have_is_refused_by_name),
        cmocka_unit_test(a_rank_without_a_gpu_is_named),
        cmocka_unit_test(ranks_with_other_command_lines_are_named),
        cmocka_unit_test(one_rank_agrees_with_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
