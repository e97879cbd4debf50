#include "tests/soak/group.h"

#include "kernels/comm/comm_lsa.h"
#include "kernels/comm/comm_nccl.h"
#include "tests/soak/stall.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/late_comm.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/watchman.h"
#include "worker/engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONG_WAIT_MS 600000

struct soak_group {
    const char *merge;
    boot_world world;
    kern_ctx *ctx;
    comm *host;
    comm *tensors; /* on ctx; NULL on CPUs */
    late_comm late_host, late_tensors;
    engine_comms comms; /* that come late */
    engine *engine;
    watchman *watchman;
};

base_status soak_group_open(const char *merge, soak_group **group_out, kern_device *device_out,
                            int32_t *n_ranks_out)
{
    base_status st = BASE_OK;
    const boot_launch launch = {NULL, NULL, NULL};
    soak_group *g = base_heap.get(base_heap.ctx, sizeof *g);

    if (g == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "group");
    }
    *g = (soak_group){.merge = merge};
    BASE_TRY(st, out, boot_mpi_start(&launch, &g->world));
    BASE_TRY(st, out, comm_mpi_create(&base_heap, &g->host));
    if (g->world.rank != 0 && freopen("/dev/null", "w", stdout) == NULL) {
        st = BASE_FAIL(BASE_IO, "/dev/null");
        goto out;
    }
    *device_out = strcmp(merge, "mpi") == 0 ? KERN_DEVICE_CPU : KERN_DEVICE_CUDA;
    *n_ranks_out = g->world.n_ranks;
    *group_out = g;
    g = NULL;
out:
    base_heap.put(base_heap.ctx, g);
    return st;
}

/* Exchanges between GPUs, each of which may be late. */
static base_status join_gpus(soak_group *g, int32_t head_dim)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, gpu_ranks_open(&g->world, g->host, COMM_NCCL_AG, &g->ctx, &g->tensors));
    if (strncmp(g->merge, "lsa", 3) == 0) {
        const comm_lsa_options lsa = {.host = g->host,
                                      .ctx = g->ctx,
                                      .tensors = g->tensors,
                                      .head_dim = head_dim,
                                      .max_rows = COMM_LSA_MAX_ROWS,
                                      .max_words = PLAN_MAX_SEQS,
                                      .limit_ms = ENGINE_STEP_MS};
        BASE_TRY(st, out, comm_lsa_create(&lsa, &base_heap, &g->tensors));
    }
    g->comms.tensors = late_comm_make(&g->late_tensors, g->tensors, g->ctx, stall);
    BASE_TRY(st, out, stall(g->ctx, g->world.rank)); /* loaded before anything is recorded */
    st = kern_wait(g->ctx);
out:
    return st;
}

base_status soak_group_join(soak_group *g, int32_t head_dim)
{
    g->comms.plans = late_comm_make(&g->late_host, g->host, NULL, NULL);
    if (strcmp(g->merge, "mpi") != 0) {
        return join_gpus(g, head_dim);
    }
    g->comms.tensors = g->comms.plans;
    return kern_ctx_create_cpu(1, &base_heap, &g->ctx);
}

void soak_group_close(soak_group *g)
{
    if (g != NULL) {
        comm_destroy(g->tensors);
        kern_ctx_destroy(g->ctx);
        comm_destroy(g->host);
        base_heap.put(base_heap.ctx, g);
        boot_mpi_end();
    }
}

int32_t soak_group_rank(const soak_group *g)
{
    return g->world.rank;
}

kern_ctx *soak_group_ctx(const soak_group *g)
{
    return g->ctx;
}

engine_comms soak_group_comms(const soak_group *g)
{
    return g->comms;
}

base_status soak_group_meet(soak_group *g)
{
    base_status st = BASE_NO_MEMORY;
    const uint8_t mine = 0;
    uint8_t *all = base_heap.get(base_heap.ctx, (size_t)g->world.n_ranks);
    if (all != NULL) {
        st = comm_all_gather(g->host, &mine, all, sizeof mine, LONG_WAIT_MS);
    }
    base_heap.put(base_heap.ctx, all);
    return st;
}

static int64_t due_us(void *ctx)
{
    return engine_due_us(((soak_group *)ctx)->engine);
}

static base_status look(void *ctx)
{
    return comm_look(((soak_group *)ctx)->comms.tensors);
}

static void raise_alarm(void *ctx)
{
    (void)fprintf(stderr, "rank %d: %s\n", ((soak_group *)ctx)->world.rank, base_last_error());
    _exit(EXIT_FAILURE);
}

base_status soak_group_watch(soak_group *g, engine *e)
{
    const watchman_post post = {due_us, look, raise_alarm, g};
    g->engine = e;
    return g->tensors == NULL ? BASE_OK : watchman_start(&post, &base_heap, &g->watchman);
}

base_status soak_group_rest(soak_group *g)
{
    watchman_stop(g->watchman);
    return comm_look(g->comms.tensors);
}
