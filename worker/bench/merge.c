/* ropewalk-bench-merge: one rank of `ropewalk bench merge`, started by mpirun.  Rank 0 writes what was found. */
#include "worker/bench/chain.h"
#include "worker/bench/program.h"
#include "worker/bench/ways.h"
#include "worker/boot/transport.h"

#include <stdio.h>

#define MAX_LENGTH 4096
#define GPU_LENGTH 256
#define CPU_LENGTH 64
#define LARGEST    2048

/* Of one rank: a decode step of 1 to 64 tokens of 32 heads, split over ranks or not; 2 KB to 1 MB. */
static const int32_t row_counts[] = {4, 8, 16, 32, 64, 256, 512, LARGEST};

typedef struct settings {
    const char *out, *device;
    int32_t length; /* 0: the device's */
    double seconds;
} settings;

static const base_option table[] = {
    {"out", 0, "FILE", "where rank 0 writes its JSON", BASE_OPTION_TEXT(settings, out),
     .needed = true},
    {"device", 0, "DEVICE", "cpu or cuda (a GPU if there is one)",
     BASE_OPTION_CHOICE(settings, device, "cpu, cuda")},
    {"length", 0, "K", "exchanges of a chain (256 on GPUs, 64 on CPUs)",
     BASE_OPTION_I32(settings, length, 1, MAX_LENGTH)},
    {"seconds", 0, "S", "of measuring, about, for each line",
     BASE_OPTION_REAL(settings, seconds, 0, 600)},
};
static const base_command command = {"ropewalk-bench-merge", "--out FILE [options]",
                                     BASE_OPTIONS(table)};

typedef struct bench {
    const settings *s;
    const boot_world *world;
    kern_device device;
    kern_ctx *ctx;
    comm *host;
    int32_t length;
    json_t *results, *absent;
} bench;

static base_status time_line(const bench *b, chain *c, const char *name, chain_link link,
                             bool graph)
{
    base_status st = BASE_OK;
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        chain_times t;
        if (link == CHAIN_MERGE_OWN && row_counts[i] < b->world->n_ranks) {
            continue; /* a rank would have none */
        }
        BASE_TRY(st, out, chain_time(c, link, row_counts[i], graph, &t));
        (void)json_array_append_new(
            b->results,
            json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:i}", "transport", name, "what",
                      chain_link_name(link), "mode", graph ? "graph" : "eager", "rows",
                      row_counts[i], "bytes", (int32_t)chain_link_bytes(link, row_counts[i]),
                      "p50_us", t.p50_us, "p99_us", t.p99_us, "runs", t.n_runs));
    }
out:
    return st;
}

/* Calls as they come and, on a GPU, in a graph; nothing recorded is left. */
static base_status time_both(const bench *b, const char *name, comm *tensors, chain_link link)
{
    base_status st = BASE_OK;
    chain *c = NULL;
    const chain_options options = {.ctx = b->ctx,
                                   .host = b->host,
                                   .tensors = tensors,
                                   .max_rows = LARGEST,
                                   .length = b->length,
                                   .seconds = b->s->seconds};
    BASE_TRY(st, out, chain_create(&options, &base_heap, &c));
    BASE_TRY(st, out, time_line(b, c, name, link, false));
    if (b->device != KERN_DEVICE_CPU) {
        st = time_line(b, c, name, link, true);
    }
out:
    chain_destroy(c);
    return st;
}

static base_status time_way(const bench *b, const way *w)
{
    comm *tensors = NULL;
    char who[32];
    const transport_place place = {.ctx = b->ctx,
                                   .host = b->host,
                                   .who = who,
                                   .shared_gpu = b->world->n_local > kern_gpu_count(),
                                   .splits = w->merges == CHAIN_MERGE_OWN,
                                   .head_dim = CHAIN_HEAD_DIM,
                                   .max_rows = LARGEST,
                                   .max_words = BENCH_MAX_WORDS,
                                   .limit_ms = BENCH_LIMIT_MS};
    (void)snprintf(who, sizeof who, "rank %d", b->world->rank);
    base_status st = transport_open(w->transport, &place, &base_heap, &tensors);

    if (st == BASE_UNAVAILABLE || st == BASE_BAD_INPUT) { /* on all ranks alike */
        (void)json_array_append_new(
            b->absent, json_pack("{s:s, s:s}", "transport", w->name, "why", base_last_error()));
        return BASE_OK;
    }
    if (st == BASE_OK) {
        st = time_both(b, w->name, tensors, w->merges);
    }
    if (st == BASE_OK && w->gathers) {
        st = time_both(b, w->name, tensors, CHAIN_BARE);
    }
    if (st == BASE_OK && w->gathers) {
        st = time_both(b, w->name, tensors, CHAIN_SUM);
    }
    comm_destroy(tensors);
    return st;
}

static base_status time_all(bench *b)
{
    base_status st = BASE_OK;
    const int32_t n_gpus = kern_gpu_count();

    BASE_TRY(st, out, kern_device_choose(b->s->device, &b->device));
    const bool on_gpu = b->device == KERN_DEVICE_CUDA;
    BASE_TRY(st, out,
             on_gpu ? kern_ctx_create_cuda(b->world->local_rank % n_gpus, &base_heap, &b->ctx)
                    : kern_ctx_create_cpu(1, &base_heap, &b->ctx));
    BASE_TRY(st, out, comm_mpi_create(&base_heap, &b->host));
    b->length = b->s->length != 0 ? b->s->length : on_gpu ? GPU_LENGTH : CPU_LENGTH;
    BASE_TRY(st, out, time_both(b, "none", NULL, CHAIN_NOTHING));
    for (int32_t i = 0; i < n_ways; i++) {
        if (ways[i].device == b->device) {
            BASE_TRY(st, out, time_way(b, &ways[i]));
        }
    }
out:
    return st;
}

static base_status run(void *settings_of, const boot_world *world, json_t **json_out)
{
    bench b = {.s = settings_of, .world = world, .results = json_array(), .absent = json_array()};
    const base_status st = time_all(&b);

    if (st == BASE_OK) {
        *json_out =
            json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:O, s:O}", "bench", "merge", "device",
                      kern_device_name(b.device), "ranks", world->n_ranks, "gpus",
                      b.device == KERN_DEVICE_CPU ? 0 : kern_gpu_count(), "length", b.length,
                      "head_dim", CHAIN_HEAD_DIM, "results", b.results, "absent", b.absent);
        comm_destroy(b.host);
        kern_ctx_destroy(b.ctx);
    }
    json_decref(b.results);
    json_decref(b.absent);
    return st;
}

int main(int argc, char **argv)
{
    static const bench_program program = {&command, "bench merge", run};
    settings s = {.seconds = 0.1};
    return bench_program_run(&program, argc, argv, &s, &s.out);
}
