#include "worker/bench/group.h"

#include "worker/bench/program.h"
#include "worker/boot/room.h"
#include "worker/model/resident.h"

#include <stdio.h>

/* Before the context: it takes memory meanwhile. */
static base_status measure_gpu(bench_group *g)
{
    base_status st = BASE_OK;
    const seat_plan *plan = &g->m.seat;
    kern_gpu gpu;
    double copy_gb = 0.0;

    if (plan->device == KERN_DEVICE_CPU) {
        return BASE_OK;
    }
    BASE_TRY(st, out, kern_gpu_describe(plan->gpu, &gpu));
    (void)snprintf(g->gpu, sizeof g->gpu, "%s", gpu.name);
    st = kern_gpu_bandwidth(plan->gpu, &g->read_gb, &copy_gb);
out:
    return st;
}

/* When all ranks hold their weights, since ranks of one host or GPU share its memory. */
static base_status measure_room(bench_group *g)
{
    base_status st = BASE_OK;
    const member *m = &g->m;
    room r;
    int64_t least = 0;

    BASE_TRY(st, out, boot_least(m->ranks, -resident_bytes(m->model), &least));
    g->weight_bytes = -least;
    BASE_TRY(st, out, room_measure(&m->seat, &m->world, 0.0, &r));
    st = boot_least(m->ranks, room_beside(&r, 0), &g->room_bytes);
out:
    return st;
}

base_status bench_group_open(const bench_group_options *options, const boot_world *world,
                             bench_group *g)
{
    base_status st = BASE_OK;
    const base_view no_rope = {NULL, 0};
    member *m = &g->m;

    *g = (bench_group){.gpu = ""};
    BASE_TRY(st, out, member_meet(m, world, &options->wishes));
    BASE_TRY(st, out, member_read(m, options->model, no_rope));
    BASE_TRY(st, out, member_load(m, 0, 0.0));
    BASE_TRY(st, out, measure_gpu(g));
    const member_lines lines = {.n_threads = options->n_threads,
                                .max_rows = options->batch * m->model->config.n_heads,
                                .max_words = BENCH_MAX_WORDS,
                                .limit_ms = BENCH_LIMIT_MS,
                                .shared_gpu = m->seat.n_sharing > 1};
    BASE_TRY(st, out, member_connect(m, &lines));
    BASE_TRY(st, out, resident_bind(m->ctx, m->model));
    st = measure_room(g);
out:
    return st;
}

base_status bench_group_largest(const bench_group *g, double *values, int32_t n)
{
    base_status st = BASE_OK;
    const int32_t n_ranks = g->m.world.n_ranks;
    const size_t n_bytes = (size_t)n * sizeof *values;
    double *all = base_heap.get(base_heap.ctx, (size_t)n_ranks * n_bytes);

    if (all == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "times of %d ranks", n_ranks);
    }
    BASE_TRY(st, out, comm_all_gather(g->m.ranks, values, all, n_bytes, BENCH_TIMEOUT_MS));
    for (int32_t i = 0; i < n_ranks * n; i++) {
        values[i % n] = all[i] > values[i % n] ? all[i] : values[i % n];
    }
out:
    base_heap.put(base_heap.ctx, all);
    return st;
}

void bench_group_close(bench_group *g)
{
    resident_unbind(g->m.ctx, g->m.model);
    member_end(&g->m);
}
