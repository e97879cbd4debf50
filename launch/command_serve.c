#include "base/clock.h"
#include "kernels/comm/comm_merge.h"
#include "launch/client.h"
#include "launch/commands.h"
#include "launch/local_group.h"
#include "launch/options.h"

#include <signal.h>
#include <stdio.h>

#define READY_TIMEOUT_MS 600000 /* reading the weights of a large model */
#define WATCH_US         100000

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

/* Waits until a signal, or until one of the two programs ends. */
static base_status watch(const local_group *group)
{
    base_status st = BASE_OK;
    while (!stop && st == BASE_OK) {
        base_sleep_us(WATCH_US);
        st = local_group_check(group);
    }
    return stop ? BASE_OK : st;
}

typedef struct serve_settings {
    const char *model, *device, *merge, *weights, *kv, *rope_scaling, *listen, *log_level;
    int32_t ranks, max_batch, prefill_chunk;
    int64_t max_context;
    bool share_gpu;
} serve_settings;

static const base_option table[] = {
    {"model", 0, "DIR", "model folder", BASE_OPTION_TEXT(serve_settings, model), .needed = true},
    {"ranks", 0, "N", "MPI ranks", BASE_OPTION_I32(serve_settings, ranks, 1, LOCAL_MAX_RANKS)},
    {"device", 0, "DEVICE", "cpu or cuda (GPUs if there is one for each rank)",
     BASE_OPTION_CHOICE(serve_settings, device, "cpu, cuda")},
    {"merge", 0, "TRANSPORT",
     "how ranks exchange partials: mpi on CPUs; nccl-ag, nccl-ar or lsa on GPUs; nccl-a2a if split "
     "(auto: what the machine has)",
     BASE_OPTION_CHOICE(serve_settings, merge, COMM_MERGE_CHOICES)},
    {"weights", 0, "LAYOUT",
     "replicated, or split: each rank holds its share of them (auto: split where all do not fit)",
     BASE_OPTION_CHOICE(serve_settings, weights, "auto, replicated, split")},
    {"share-gpu", 0, NULL, "ranks may share a GPU: slow, for tests",
     BASE_OPTION_FLAG(serve_settings, share_gpu)},
    {"kv", 0, "POLICY",
     "how the cache is stored: bf16, tq:k=4,v=4, block-gtq:k=3,v=3, kivi:k=2,v=2,g=128",
     BASE_OPTION_TEXT(serve_settings, kv)},
    {"rope-scaling", 0, "JSON|none", "instead of config.json's rope_scaling",
     BASE_OPTION_TEXT(serve_settings, rope_scaling)},
    {"listen", 0, "HOST:PORT", "where clients connect", BASE_OPTION_TEXT(serve_settings, listen)},
    {"max-context", 0, "N", "tokens of a sequence (what fits)",
     BASE_OPTION_I64(serve_settings, max_context, 1, INT64_MAX)},
    {"max-batch", 0, "N", "sequences at once (8)",
     BASE_OPTION_I32(serve_settings, max_batch, 1, INT32_MAX)},
    {"prefill-chunk", 0, "N", "prompt tokens a step (512)",
     BASE_OPTION_I32(serve_settings, prefill_chunk, 1, INT32_MAX)},
    {"log-level", 0, "LEVEL", "error, warn, info or debug",
     BASE_OPTION_CHOICE(serve_settings, log_level, "error, warn, info, debug")},
};
static const base_command command = {"ropewalk serve", "--model DIR [options]",
                                     BASE_OPTIONS(table)};

int command_serve(int argc, const char **argv)
{
    serve_settings s = {.ranks = 1, .kv = "bf16", .listen = "127.0.0.1:50051", .log_level = "info"};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;
    local_group *group = NULL;
    rpc_channel *channel = NULL;

    if (!options_open(&command, argc, argv, &s, &line, &exit_status)) {
        goto out;
    }
    const local_group_options options = {.model = s.model,
                                         .kv = s.kv,
                                         .device = s.device,
                                         .merge = s.merge,
                                         .weights = s.weights,
                                         .share_gpu = s.share_gpu,
                                         .rope_scaling = s.rope_scaling,
                                         .listen = s.listen,
                                         .ranks = s.ranks,
                                         .max_context = s.max_context,
                                         .max_batch = s.max_batch,
                                         .prefill_chunk = s.prefill_chunk,
                                         .log_level = s.log_level};
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);

    BASE_TRY(st, out, local_group_open(&options, &group));
    rpc_init();
    st = rpc_channel_create(local_group_target(group), &channel);
    if (st == BASE_OK) {
        st = client_wait_ready(channel, local_group_target(group), group, READY_TIMEOUT_MS, &stop);
    }
    rpc_channel_destroy(channel);
    rpc_shutdown();
    if (st == BASE_OK) {
        (void)printf("serving %s on %s, %d rank%s, %s\n", s.model, local_group_target(group),
                     s.ranks, s.ranks == 1 ? "" : "s", s.kv);
        (void)fflush(stdout);
        st = watch(group);
    } else if (stop) {
        st = BASE_OK;
    }
out:
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    local_group_close(group);
    base_options_reset(&line);
    return exit_status;
}
