/* ropewalk-coordinator: takes calls from clients, and groups that dial in. */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/coordinator.h"
#include "proto/rpc.h"

#include <errno.h>
#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE  2
#define POLL_US     20000
#define MAX_WAIT_MS (24 * 3600 * 1000)

/* As given; popt's texts live as long as the process. */
typedef struct command_line {
    char *listen;
    char *attach;
    char *max_waiting;
    char *grace_ms;
    char *wait_for_group_ms;
    char *log_level;
    char *port_file;
} command_line;

typedef struct settings {
    coord_options options;
    int32_t grace_ms;
    base_log_level log_level;
    const char *port_file; /* NULL: none */
} settings;

static int parse(int argc, const char **argv, command_line *line)
{
    const unsigned int text = POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT;
    const struct poptOption table[] = {
        {"listen", 0, text, &line->listen, 0, "where clients call", "HOST:PORT"},
        {"attach", 0, text, &line->attach, 0,
         "where groups dial in; no authentication, so keep it private", "HOST:PORT"},
        {"max-waiting", 0, text, &line->max_waiting, 0, "requests that may wait for a group", "N"},
        {"grace-ms", 0, text, &line->grace_ms, 0,
         "how long running requests may go on after SIGTERM or SIGINT", "MS"},
        {"wait-for-group-ms", 0, text, &line->wait_for_group_ms, 0,
         "how long accepted requests wait for a lost group", "MS"},
        {"log-level", 0, text, &line->log_level, 0, "error, warn, info or debug", "LEVEL"},
        {"port-file", 0, POPT_ARG_STRING, &line->port_file, 0,
         "write \"LISTEN_PORT ATTACH_PORT\" there once both listen", "PATH"},
        POPT_AUTOHELP POPT_TABLEEND};
    int code = EXIT_SUCCESS;

    poptContext context = poptGetContext("ropewalk-coordinator", argc, argv, table, 0);
    const int rc = poptGetNextOpt(context);
    if (rc < -1) {
        (void)fprintf(stderr, "ropewalk-coordinator: %s: %s (see --help)\n",
                      poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(rc));
        code = EXIT_USAGE;
    } else if (poptPeekArg(context) != NULL) {
        (void)fprintf(stderr, "ropewalk-coordinator: unexpected argument '%s' (see --help)\n",
                      poptPeekArg(context));
        code = EXIT_USAGE;
    }
    (void)poptFreeContext(context);
    return code;
}

static bool read_number(const char *option, const char *text, int32_t low, int32_t high,
                        int32_t *value_out)
{
    char *rest = NULL;

    errno = 0;
    const long value = strtol(text, &rest, 10);
    if (errno != 0 || rest == text || *rest != '\0' || value < low || value > high) {
        (void)fprintf(stderr, "ropewalk-coordinator: %s %s, allowed %d..%d\n", option, text,
                      (int)low, (int)high);
        return false;
    }
    *value_out = (int32_t)value;
    return true;
}

static int check(const command_line *line, settings *out)
{
    int32_t wait_ms = 0;

    if (!read_number("--max-waiting", line->max_waiting, 1, COORD_MAX_WAITING,
                     &out->options.max_waiting) ||
        !read_number("--grace-ms", line->grace_ms, 0, MAX_WAIT_MS, &out->grace_ms) ||
        !read_number("--wait-for-group-ms", line->wait_for_group_ms, 0, MAX_WAIT_MS, &wait_ms)) {
        return EXIT_USAGE;
    }
    if (base_log_level_parse(line->log_level, &out->log_level) != BASE_OK) {
        (void)fprintf(stderr,
                      "ropewalk-coordinator: --log-level '%s', allowed error, warn, info, debug\n",
                      line->log_level);
        return EXIT_USAGE;
    }
    out->options.listen = line->listen;
    out->options.attach = line->attach;
    out->options.wait_for_group_ms = wait_ms;
    out->port_file = line->port_file;
    return EXIT_SUCCESS;
}

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
static void drain(coordinator *c, const sigset_t *signals, int32_t grace_ms)
{
    const int64_t until_us = base_now_us() + (int64_t)grace_ms * 1000;
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
    const base_status st = coordinator_create(&set->options, &base_heap, &c);
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
    BASE_INFO("clients at %s (port %d), groups at %s (port %d)", set->options.listen,
              (int)coordinator_listen_port(c), set->options.attach,
              (int)coordinator_attach_port(c));
    (void)sigwait(&signals, &number);
    BASE_INFO("%s: drains for at most %d ms", strsignal(number), (int)set->grace_ms);
    drain(c, &signals, set->grace_ms);

out:
    coordinator_destroy(c);
    rpc_shutdown();
    return code;
}

int main(int argc, const char **argv)
{
    static char listen[] = "127.0.0.1:50051";
    static char attach[] = "127.0.0.1:50052";
    static char max_waiting[] = "256";
    static char grace_ms[] = "5000";
    static char wait_for_group_ms[] = "30000";
    static char log_level[] = "info";
    static command_line line = {.listen = listen,
                                .attach = attach,
                                .max_waiting = max_waiting,
                                .grace_ms = grace_ms,
                                .wait_for_group_ms = wait_for_group_ms,
                                .log_level = log_level};
    settings set = {.port_file = NULL};

    int code = parse(argc, argv, &line);
    if (code == EXIT_SUCCESS) {
        code = check(&line, &set);
    }
    if (code != EXIT_SUCCESS) {
        return code;
    }
    base_log_init("coordinator", set.log_level);
    return serve(&set);
}
