/* ropewalk-coordinator: takes calls from clients, and groups that dial in. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/options.h"
#include "coordinator/coordinator.h"
#include "proto/rpc.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE  2
#define POLL_US     20000
#define MAX_WAIT_MS (24 * 3600 * 1000)

typedef struct settings {
    const char *listen, *attach;
    const char *port_file; /* NULL: none */
    const char *log_level;
    int32_t max_waiting;
    int64_t grace_ms, wait_for_group_ms;
} settings;

static const base_option table[] = {
    {"listen", 0, "HOST:PORT", "where clients call", BASE_OPTION_TEXT(settings, listen)},
    {"attach", 0, "HOST:PORT", "where groups dial in; no authentication, so keep it private",
     BASE_OPTION_TEXT(settings, attach)},
    {"max-waiting", 0, "N", "requests that may wait for a group",
     BASE_OPTION_I32(settings, max_waiting, 1, COORD_MAX_WAITING)},
    {"grace-ms", 0, "MS", "how long running requests may go on after SIGTERM or SIGINT",
     BASE_OPTION_I64(settings, grace_ms, 0, MAX_WAIT_MS)},
    {"wait-for-group-ms", 0, "MS", "how long accepted requests wait for a lost group",
     BASE_OPTION_I64(settings, wait_for_group_ms, 0, MAX_WAIT_MS)},
    {"log-level", 0, "LEVEL", "error, warn, info or debug",
     BASE_OPTION_CHOICE(settings, log_level, "error, warn, info, debug")},
    {"port-file", 0, "PATH", "write \"LISTEN_PORT ATTACH_PORT\" there once both listen",
     BASE_OPTION_TEXT(settings, port_file)},
};
static const base_command command = {"ropewalk-coordinator", "[options]", BASE_OPTIONS(table)};

/* Appears whole or not at all: who waits for the file may read it at once. */
static int write_ports(const char *path, const coordinator *c)
{
    char part[4096];
    const int n = snprintf(part, sizeof part, "%s.part", path);
    FILE *file = n < (int)sizeof part ? fopen(part, "w") : NULL;

    if (file == NULL) {
        BASE_ERROR("--port-file %s cannot be written: %m", path);
        return EXIT_FAILURE;
    }
    const int n_out =
        fprintf(file, "%d %d\n", (int)coordinator_listen_port(c), (int)coordinator_attach_port(c));
    if (fclose(file) != 0 || n_out < 0 || rename(part, path) != 0) {
        BASE_ERROR("--port-file %s cannot be written: %m", path);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/* Returns when everything accepted has ended, grace has passed, or a second signal came. */
static void drain(coordinator *c, const sigset_t *signals, int64_t grace_ms)
{
    const int64_t until_us = base_now_us() + grace_ms * 1000;
    const struct timespec pause = {.tv_nsec = POLL_US * 1000L};

    coordinator_drain(c);
    while (coordinator_live_requests(c) > 0 && base_now_us() < until_us) {
        if (sigtimedwait(signals, NULL, &pause) > 0) {
            BASE_WARN("second signal: ends at once");
            return;
        }
    }
}

static int serve(const settings *set)
{
    int code = EXIT_SUCCESS;
    coordinator *c = NULL;
    sigset_t signals;
    int number = 0;

    /* Before the first thread, which inherits it: only this one takes the signals. */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    rpc_init();
    const coord_options options = {.listen = set->listen,
                                   .attach = set->attach,
                                   .max_waiting = set->max_waiting,
                                   .wait_for_group_ms = set->wait_for_group_ms};
    const base_status st = coordinator_create(&options, &base_heap, &c);
    if (st != BASE_OK) {
        BASE_ERROR("%s", base_last_error());
        code = st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILURE;
        goto out;
    }
    if (set->port_file != NULL) {
        code = write_ports(set->port_file, c);
        if (code != EXIT_SUCCESS) {
            goto out;
        }
    }
    BASE_INFO("clients at %s (port %d), groups at %s (port %d)", set->listen,
              (int)coordinator_listen_port(c), set->attach, (int)coordinator_attach_port(c));
    (void)sigwait(&signals, &number);
    BASE_INFO("%s: drains for at most %lld ms", strsignal(number), (long long)set->grace_ms);
    drain(c, &signals, set->grace_ms);

out:
    coordinator_destroy(c);
    rpc_shutdown();
    return code;
}

int main(int argc, const char **argv)
{
    settings set = {.listen = "127.0.0.1:50051",
                    .attach = "127.0.0.1:50052",
                    .max_waiting = 256,
                    .grace_ms = 5000,
                    .wait_for_group_ms = 30000,
                    .log_level = "info"};
    base_log_level level = BASE_LOG_INFO;
    base_options line;
    int code = EXIT_SUCCESS;

    base_status st = base_options_read(&command, argc, argv, &base_heap, &set, &line);
    if (st == BASE_OK) {
        st = base_log_level_parse(set.log_level, &level);
    }
    if (st != BASE_OK) {
        (void)fprintf(stderr, "ropewalk-coordinator: %s (see --help)\n", base_last_error());
        code = EXIT_USAGE;
    } else if (line.help) {
        base_options_help(&command, &set, stdout);
    } else {
        base_log_init("coordinator", level);
        code = serve(&set);
    }
    base_options_reset(&line);
    return code;
}
