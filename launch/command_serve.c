#include "base/clock.h"
#include "launch/client.h"
#include "launch/commands.h"
#include "launch/local_group.h"
#include "launch/options.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

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

int command_serve(int argc, const char **argv)
{
    char *model = NULL;
    char *device = NULL;
    char *kv = NULL;
    char *rope_scaling = NULL;
    char *listen = NULL;
    char *log_level = NULL;
    long long max_context = 0;
    int ranks = 1;
    int max_batch = 0;
    int prefill_chunk = 0;
    poptContext context = NULL;
    local_group *group = NULL;
    rpc_channel *channel = NULL;
    const struct poptOption table[] = {
        {"model", '\0', POPT_ARG_STRING, &model, 0, "model folder", "DIR"},
        {"ranks", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &ranks, 0, "MPI ranks", "N"},
        {"device", '\0', POPT_ARG_STRING, &device, 0, "cpu (default)", "DEVICE"},
        {"kv", '\0', POPT_ARG_STRING, &kv, 0, "KV cache policy: bf16 (default), tq:k=4,v=4",
         "POLICY"},
        {"rope-scaling", '\0', POPT_ARG_STRING, &rope_scaling, 0,
         "instead of config.json's rope_scaling", "JSON|none"},
        {"listen", '\0', POPT_ARG_STRING, &listen, 0, "where clients connect (127.0.0.1:50051)",
         "HOST:PORT"},
        {"max-context", '\0', POPT_ARG_LONGLONG, &max_context, 0,
         "tokens of a sequence (what fits)", "N"},
        {"max-batch", '\0', POPT_ARG_INT, &max_batch, 0, "sequences at once (8)", "N"},
        {"prefill-chunk", '\0', POPT_ARG_INT, &prefill_chunk, 0, "prompt tokens a step (512)", "N"},
        {"log-level", '\0', POPT_ARG_STRING, &log_level, 0, "error, warn, info, debug", "LEVEL"},
        POPT_AUTOHELP POPT_TABLEEND};

    base_status st = options_parse(argc, argv, table, "serve --model DIR [options]", &context);
    if (st != BASE_OK) {
        return options_report("serve", st);
    }
    if (model == NULL) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--model is missing");
        goto out;
    }
    if (device != NULL && strcmp(device, "cpu") != 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--device is '%s', allowed cpu", device);
        goto out;
    }
    const local_group_options options = {.model = model,
                                         .kv = kv != NULL ? kv : "bf16",
                                         .rope_scaling = rope_scaling,
                                         .listen = listen != NULL ? listen : "127.0.0.1:50051",
                                         .ranks = ranks,
                                         .max_context = max_context,
                                         .max_batch = max_batch,
                                         .prefill_chunk = prefill_chunk,
                                         .log_level = log_level};
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
        (void)printf("serving %s on %s, %d rank%s, %s\n", model, local_group_target(group), ranks,
                     ranks == 1 ? "" : "s", options.kv);
        (void)fflush(stdout);
        st = watch(group);
    } else if (stop) {
        st = BASE_OK;
    }
out:
    if (st != BASE_OK) {
        (void)options_report("serve", st);
    }
    local_group_close(group);
    options_end(context, table);
    return st == BASE_OK ? 0 : st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILED;
}
