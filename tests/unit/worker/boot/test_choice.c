/* How weights are shared and partials exchanged: tables of what a group may have, and what it then does. */
#include "tests/support/test.h"
#include "worker/boot/choice.h"

#include <stdio.h>

#define GB ((int64_t)1 << 30)

static const char vocab[] = "vocab_size is 511";

static void weights_are_whole_unless_they_leave_no_room_and_can_be_split(void **state)
{
    (void)state;
    static const struct {
        choice_weights_case c;
        base_status want;
        bool splits;
        const char *says; /* in the reason, or in the error */
    } rows[] = {
        /* what is asked for is done */
        {{"split", KERN_DEVICE_CUDA, 4, 16 * GB, 100 * GB, GB, NULL}, BASE_OK, true, "as asked"},
        {{"split", KERN_DEVICE_CPU, 2, 16 * GB, -GB, GB, NULL}, BASE_OK, true, "as asked"},
        {{"replicated", KERN_DEVICE_CUDA, 4, 16 * GB, GB, 2 * GB, NULL},
         BASE_OK,
         false,
         "as asked"},
        {{"replicated", KERN_DEVICE_CPU, 2, 16 * GB, -GB, GB, NULL}, BASE_OK, false, "as asked"},
        /* unless a GPU has no room for it */
        {{"replicated", KERN_DEVICE_CUDA, 4, 16 * GB, -1024 * 1024, GB, NULL},
         BASE_BAD_INPUT,
         false,
         "--weights replicated: the whole model takes 16384 MB, which is 1 MB more"},
        /* auto: a cache of the least use is the limit */
        {{"auto", KERN_DEVICE_CUDA, 4, 16 * GB, GB, GB, NULL},
         BASE_OK,
         false,
         "replicated: beside"},
        {{"auto", KERN_DEVICE_CUDA, 4, 16 * GB, GB - 1, GB, NULL}, BASE_OK, true, "split: beside"},
        {{"auto", KERN_DEVICE_CUDA, 4, 16 * GB, -GB, GB, NULL}, BASE_OK, true, "split: beside"},
        {{"auto", KERN_DEVICE_CPU, 2, 16 * GB, GB, GB, NULL}, BASE_OK, false, "1024 are enough"},
        {{"auto", KERN_DEVICE_CPU, 2, 16 * GB, GB - 1, GB, NULL}, BASE_OK, true, "all 16384 MB"},
        /* weights that cannot be split stay whole: memory mapped from files may still do on a host */
        {{"auto", KERN_DEVICE_CPU, 3, 16 * GB, 0, GB, vocab}, BASE_OK, false, vocab},
        {{"auto", KERN_DEVICE_CUDA, 3, 16 * GB, 0, GB, vocab}, BASE_OK, false, vocab},
        {{"auto", KERN_DEVICE_CUDA, 3, 16 * GB, -GB, GB, vocab}, BASE_BAD_INPUT, false, vocab},
        {{"auto", KERN_DEVICE_CUDA, 3, 16 * GB, GB, GB, vocab}, BASE_OK, false, "replicated"},
        {{"auto", KERN_DEVICE_CUDA, 1, 16 * GB, 2 * GB, GB, NULL}, BASE_OK, false, "one rank"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char why[CHOICE_TEXT] = "";
        bool splits = false;
        CHECK_STATUS(choice_of_weights(&rows[i].c, &splits, why), rows[i].want);
        if (splits != rows[i].splits) {
            fail_msg("row %zu: split %d, want %d", i, splits, rows[i].splits);
        }
        if (rows[i].want != BASE_OK) {
            CHECK_ERROR_NAMES(rows[i].says);
        } else if (strstr(why, rows[i].says) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s'", i, why, rows[i].says);
        }
    }
}

static seat_plan plan_of(kern_device device, bool own_gpus, bool one_host)
{
    return (seat_plan){.device = device, .own_gpus = own_gpus, .one_host = one_host};
}

static void partials_go_the_way_that_the_machine_has(void **state)
{
    (void)state;
    static const struct {
        const char *wish;
        kern_device device;
        bool own_gpus, one_host, splits;
        const char *want; /* NULL: refused */
        const char *says;
    } rows[] = {
        {"auto", KERN_DEVICE_CPU, false, true, false, "mpi", "compute on CPUs"},
        {"auto", KERN_DEVICE_CPU, false, false, true, "mpi", "compute on CPUs"},
        {"auto", KERN_DEVICE_CUDA, true, true, false, "lsa", "for itself"},
        {"auto", KERN_DEVICE_CUDA, true, false, false, "nccl-ag", "several hosts"},
        {"auto", KERN_DEVICE_CUDA, false, true, false, "nccl-ag", "share a GPU"},
        {"auto", KERN_DEVICE_CUDA, true, true, true, "lsa", "for itself"},
        {"auto", KERN_DEVICE_CUDA, true, false, true, "nccl-a2a", "several hosts"},
        {"auto", KERN_DEVICE_CUDA, false, true, true, "nccl-a2a", "share a GPU"},
        /* what is asked for, or a refusal that names it */
        {"mpi", KERN_DEVICE_CPU, false, true, false, "mpi", "as asked"},
        {"nccl-ag", KERN_DEVICE_CUDA, true, true, false, "nccl-ag", "as asked"},
        {"nccl-ar", KERN_DEVICE_CUDA, true, false, false, "nccl-ar", "as asked"},
        {"lsa", KERN_DEVICE_CUDA, false, true, false, "lsa", "as asked"},
        {"nccl-a2a", KERN_DEVICE_CUDA, true, true, true, "nccl-a2a", "as asked"},
        {"lsa", KERN_DEVICE_CUDA, false, false, true, "lsa", "as asked"},
        {"mpi", KERN_DEVICE_CUDA, true, true, false, NULL,
         "--merge mpi, but ranks on GPUs exchange by nccl-ag, nccl-ar or lsa"},
        {"lsa", KERN_DEVICE_CPU, false, true, false, NULL,
         "--merge lsa, but ranks on CPUs exchange by mpi"},
        {"nccl-a2a", KERN_DEVICE_CUDA, true, true, false, NULL, "nccl-ag, nccl-ar or lsa"},
        {"nccl-ag", KERN_DEVICE_CUDA, true, true, true, NULL,
         "ranks on GPUs with split weights exchange by nccl-a2a or lsa"},
        {"nccl-ar", KERN_DEVICE_CUDA, true, true, true, NULL, "with split weights"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const seat_plan plan = plan_of(rows[i].device, rows[i].own_gpus, rows[i].one_host);
        const char *merge = NULL;
        char why[CHOICE_TEXT] = "";
        const base_status st = choice_of_merge(&plan, rows[i].wish, rows[i].splits, &merge, why);
        if (rows[i].want == NULL) {
            CHECK_STATUS(st, BASE_BAD_INPUT);
            CHECK_ERROR_NAMES(rows[i].says);
            continue;
        }
        CHECK_STATUS(st, BASE_OK);
        assert_string_equal(merge, rows[i].want);
        if (strstr(why, rows[i].says) == NULL || strstr(why, merge) == NULL) {
            fail_msg("row %zu: '%s' does not say '%s' of %s", i, why, rows[i].says, merge);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_whole_unless_they_leave_no_room_and_can_be_split),
        cmocka_unit_test(partials_go_the_way_that_the_machine_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
