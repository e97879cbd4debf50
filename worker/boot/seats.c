#include "worker/boot/seats.h"

#include "base/alloc.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEET_MS 60000

static void copy(char to[SEAT_TEXT], const char *from)
{
    (void)snprintf(to, SEAT_TEXT, "%s", from == NULL ? "" : from);
}

base_status seat_take(const boot_world *world, const seat_wishes *wishes, seat *seat_out)
{
    base_status st = BASE_OK;
    kern_gpu gpu;
    seat s = {.gpu = -1, .build_has_cuda = kern_gpu_in_build(), .shared = wishes->share_gpu};
    const int32_t n_gpus = kern_gpu_count();

    (void)gethostname(s.host, sizeof s.host - 1);
    copy(s.device, wishes->device);
    copy(s.merge, wishes->merge);
    copy(s.weights, wishes->weights);
    if (n_gpus > 0 && strcmp(s.device, "cpu") != 0) {
        s.gpu = world->local_rank % n_gpus;
        BASE_TRY(st, out, kern_gpu_describe(s.gpu, &gpu));
        s.gpu_fits = gpu.capability == KERN_CUDA_CAPABILITY;
        (void)snprintf(s.gpu_name, sizeof s.gpu_name, "%.63s", gpu.name);
        copy(s.gpu_uuid, gpu.uuid);
    }
    *seat_out = s;
out:
    return st;
}

static bool same_gpu(const seat *a, const seat *b)
{
    return a->gpu >= 0 && b->gpu >= 0 && strcmp(a->host, b->host) == 0 &&
           strcmp(a->gpu_uuid, b->gpu_uuid) == 0;
}

static base_status check_alike(const seat *seats, int32_t n)
{
    for (int32_t r = 1; r < n; r++) {
        const bool devices = strcmp(seats[r].device, seats[0].device) == 0;
        if (!devices || strcmp(seats[r].merge, seats[0].merge) != 0 ||
            strcmp(seats[r].weights, seats[0].weights) != 0 || seats[r].shared != seats[0].shared) {
            return BASE_FAIL(BASE_BAD_INPUT, "%s of rank %d on %s differs from rank 0's",
                             !devices ? "--device" : "--merge, --weights or --share-gpu", r,
                             seats[r].host);
        }
    }
    return BASE_OK;
}

/* Every rank has a GPU, for itself unless they may share. */
static base_status check_gpus(const seat *seats, int32_t n)
{
    for (int32_t r = 0; r < n; r++) {
        const seat *s = &seats[r];
        if (!s->build_has_cuda) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "--device cuda, rank %d on %s: this build computes on the CPU; "
                             "configure it with the preset cuda",
                             r, s->host);
        }
        if (s->gpu < 0) {
            return BASE_FAIL(BASE_BAD_INPUT, "--device cuda, rank %d on %s: no GPU is visible here",
                             r, s->host);
        }
        for (int32_t other = 0; other < r && !s->shared; other++) {
            if (same_gpu(s, &seats[other])) {
                return BASE_FAIL(
                    BASE_BAD_INPUT,
                    "--device cuda, ranks %d and %d on %s: both have GPU %d, a %s, and "
                    "a GPU serves one rank: start fewer ranks there (--share-gpu is "
                    "for tests)",
                    other, r, s->host, s->gpu, s->gpu_name);
            }
        }
    }
    return BASE_OK;
}

static bool all_fit(const seat *seats, int32_t n)
{
    int32_t n_fit = 0;
    for (int32_t r = 0; r < n; r++) {
        n_fit += seats[r].gpu_fits;
    }
    return n_fit == n;
}

static base_status choose_device(const seat *seats, int32_t n, kern_device *device_out)
{
    base_status st = BASE_OK;
    *device_out = KERN_DEVICE_CPU;
    if (strcmp(seats[0].device, "cpu") == 0) {
        return BASE_OK;
    }
    const bool wanted = seats[0].device[0] != '\0';
    if (wanted || all_fit(seats, n)) {
        st = check_gpus(seats, n);
        *device_out = st == BASE_OK ? KERN_DEVICE_CUDA : KERN_DEVICE_CPU;
    }
    if (st != BASE_OK && !wanted) {
        BASE_INFO("computing on CPUs: %s", base_last_error());
        st = BASE_OK;
    }
    return st;
}

base_status seats_decide(const seat *seats, int32_t n, int32_t own, seat_plan *plan_out)
{
    base_status st = BASE_OK;
    const seat *s = &seats[own];
    seat_plan p = {.gpu = s->gpu, .n_sharing = 0, .one_host = true};

    BASE_TRY(st, out, check_alike(seats, n));
    BASE_TRY(st, out, choose_device(seats, n, &p.device));
    const bool gpus = p.device == KERN_DEVICE_CUDA;
    p.own_gpus = gpus;
    for (int32_t r = 0; r < n; r++) {
        p.n_sharing += same_gpu(s, &seats[r]);
        p.one_host &= strcmp(seats[r].host, seats[0].host) == 0;
        for (int32_t other = 0; other < r; other++) {
            p.own_gpus &= !same_gpu(&seats[r], &seats[other]);
        }
    }
    p.n_sharing = gpus ? p.n_sharing : 1;
    (void)snprintf(p.who, sizeof p.who, gpus ? "rank %d on %s, GPU %d" : "rank %d on %s", own,
                   s->host, s->gpu);
    *plan_out = p;
out:
    return st;
}

base_status seats_agree(comm *ranks, const boot_world *world, const seat_wishes *wishes,
                        seat_plan *plan_out)
{
    base_status st = BASE_OK;
    seat mine;
    seat *all = base_heap.get(base_heap.ctx, (size_t)world->n_ranks * sizeof *all);

    if (all == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "seats of %d ranks", world->n_ranks);
    }
    BASE_TRY(st, out, seat_take(world, wishes, &mine));
    BASE_TRY(st, out, comm_all_gather(ranks, &mine, all, sizeof mine, MEET_MS));
    st = seats_decide(all, world->n_ranks, world->rank, plan_out);
out:
    base_heap.put(base_heap.ctx, all);
    return st;
}
