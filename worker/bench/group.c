#include "worker/bench/group.h"

#include "worker/bench/ways.h"
#include "worker/boot/host.h"
#include "worker/boot/sizes.h"
#include "worker/model/resident.h"

#include <stdio.h>
#include <string.h>

static base_status open_device(bench_group *g, int32_t n_threads)
{
    base_status st = BASE_OK;
    kern_gpu gpu;
    double copy_gb = 0.0;

    if (g->seat.device == KERN_DEVICE_CPU) {
        return kern_ctx_create_cpu(n_threads > 0 ? n_threads : host_threads(g->world.n_local),
                                   &base_heap, &g->ctx);
    }
    BASE_TRY(st, out, kern_gpu_describe(g->seat.gpu, &gpu));
    (void)snprintf(g->gpu, sizeof g->gpu, "%s", gpu.name);
    BASE_TRY(st, out, kern_gpu_bandwidth(g->seat.gpu, &g->read_gb, &copy_gb));
    st = kern_ctx_create_cuda(g->seat.gpu, &base_heap, &g->ctx);
out:
    return st;
}

static base_status open_tensors(bench_group *g, int32_t max_rows)
{
    if (g->seat.device == KERN_DEVICE_CPU || g->world.n_ranks == 1) {
        g->tensors = g->ranks;
        return BASE_OK;
    }
    const way_place place = {.ctx = g->ctx,
                             .host = g->ranks,
                             .head_dim = g->model->config.head_dim,
                             .max_rows = max_rows,
                             .who = g->seat.who,
                             .shared_gpu = g->seat.n_sharing > 1};
    for (int32_t i = 0; i < n_ways; i++) {
        if (strcmp(ways[i].name, g->seat.merge) == 0) {
            return ways[i].open(&place, &base_heap, &g->tensors);
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT, "--merge %s cannot be timed", g->seat.merge);
}

/* When all ranks hold their weights, since ranks of one host or GPU share its memory. */
static base_status measure_room(bench_group *g)
{
    base_status st = BASE_OK;
    kern_gpu gpu;
    int64_t n_bytes = 0;
    int64_t least = 0;

    BASE_TRY(st, out, boot_least(g->ranks, -resident_bytes(g->model), &least));
    g->weight_bytes = -least;
    if (g->seat.device == KERN_DEVICE_CPU) {
        BASE_TRY(st, out, host_memory_available(&n_bytes));
        n_bytes = (int64_t)((double)n_bytes * SIZES_HOST_FRACTION / g->world.n_local);
    } else {
        BASE_TRY(st, out, kern_gpu_describe(g->seat.gpu, &gpu));
        n_bytes = (int64_t)((double)gpu.free_bytes * SIZES_GPU_FRACTION / g->seat.n_sharing);
    }
    st = boot_least(g->ranks, n_bytes, &g->room_bytes);
out:
    return st;
}

base_status bench_group_open(const bench_group_options *options, const boot_world *world,
                             bench_group *g)
{
    base_status st = BASE_OK;
    const bool splits = options->wishes.split_weights;
    const model_options parts = {.rank = splits ? world->rank : 0,
                                 .n_ranks = splits ? world->n_ranks : 1};

    *g = (bench_group){.world = *world};
    BASE_TRY(st, out,
             world->n_ranks == 1 ? comm_self_create(&base_heap, &g->ranks)
                                 : comm_mpi_create(&base_heap, &g->ranks));
    BASE_TRY(st, out, seats_agree(g->ranks, world, &options->wishes, &g->seat));
    BASE_TRY(st, out, model_open_with(options->model, &parts, &base_heap, &g->model));
    BASE_TRY(st, out, boot_compare(g->ranks, "model", g->model->hash));
    BASE_TRY(st, out, open_device(g, options->n_threads));
    BASE_TRY(st, out, open_tensors(g, options->batch * g->model->config.n_heads));
    BASE_TRY(st, out, resident_bind(g->ctx, g->model));
    st = measure_room(g);
out:
    return st;
}

void bench_group_close(bench_group *g)
{
    if (g->tensors != g->ranks) {
        comm_destroy(g->tensors);
    }
    resident_unbind(g->ctx, g->model);
    kern_ctx_destroy(g->ctx);
    model_close(g->model);
    comm_destroy(g->ranks);
}
