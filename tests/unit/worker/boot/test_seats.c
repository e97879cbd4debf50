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
        assert_string_equal(plan.merge, "nccl-ag");
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
    assert_string_equal(plan.merge, "mpi");
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
}

static void a_transport_of_the_other_device_is_refused(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    sit(seats, 2, "cuda");
    for (int32_t r = 0; r < 2; r++) {
        (void)snprintf(seats[r].merge, SEAT_TEXT, "mpi");
    }
    CHECK_STATUS(seats_decide(seats, 2, 0, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--merge mpi, but ranks on GPUs exchange by nccl-ag, nccl-ar or lsa");
    for (int32_t r = 0; r < 2; r++) {
        (void)snprintf(seats[r].device, SEAT_TEXT, "cpu");
    }
    CHECK_STATUS(seats_decide(seats, 2, 0, &plan), BASE_OK);
    assert_string_equal(plan.merge, "mpi");
}

static void lsa_is_for_gpus(void **state)
{
    (void)state;
    seat seats[MAX_SEATS];
    seat_plan plan;
    for (int32_t on_gpu = 0; on_gpu < 2; on_gpu++) {
        sit(seats, 2, on_gpu ? "cuda" : "cpu");
        (void)snprintf(seats[0].merge, SEAT_TEXT, "lsa");
        (void)snprintf(seats[1].merge, SEAT_TEXT, "lsa");
        CHECK_STATUS(seats_decide(seats, 2, 1, &plan), on_gpu ? BASE_OK : BASE_BAD_INPUT);
    }
    assert_string_equal(plan.merge, "lsa");
}

static void split_weights_have_transports_of_their_own(void **state)
{
    (void)state;
    static const char *const others[] = {"nccl-ag", "nccl-ar", "lsa"}; /* but the last */
    seat seats[MAX_SEATS];
    seat_plan plan;
    for (int32_t on_gpu = 0; on_gpu < 2; on_gpu++) {
        sit(seats, 2, on_gpu ? "cuda" : "cpu");
        seats[0].splits = 1;
        CHECK_STATUS(seats_decide(seats, 2, 1, &plan), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("--weights");
        seats[1].splits = 1;
        CHECK_STATUS(seats_decide(seats, 2, 1, &plan), BASE_OK);
        assert_string_equal(plan.merge, on_gpu ? "nccl-a2a" : "mpi");
        assert_true(plan.splits);
    }
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(seats[0].merge, SEAT_TEXT, "%s", others[i]);
        (void)snprintf(seats[1].merge, SEAT_TEXT, "%s", others[i]);
        CHECK_STATUS(seats_decide(seats, 2, 1, &plan), i == 2 ? BASE_OK : BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("ranks on GPUs with split weights exchange by nccl-a2a or lsa");
    }
    assert_string_equal(plan.merge, "lsa");
    sit(seats, 2, "cuda"); /* and whole weights not this one */
    (void)snprintf(seats[0].merge, SEAT_TEXT, "nccl-a2a");
    (void)snprintf(seats[1].merge, SEAT_TEXT, "nccl-a2a");
    CHECK_STATUS(seats_decide(seats, 2, 1, &plan), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("exchange by nccl-ag, nccl-ar or lsa");
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
        cmocka_unit_test(a_transport_of_the_other_device_is_refused),
        cmocka_unit_test(lsa_is_for_gpus),
        cmocka_unit_test(split_weights_have_transports_of_their_own),
        cmocka_unit_test(one_rank_agrees_with_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
