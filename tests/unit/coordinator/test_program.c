/* The program ropewalk-coordinator as people start it. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "proto/rpc.h"
#include "tests/support/test.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

typedef struct program {
    pid_t pid;
    char log[64]; /* path of its output */
    char ports[64];
} program;

static int n_started; /* keeps their files apart */

static void start(program *p, const char *const *options)
{
    const char *argv[16] = {COORDINATOR_PROGRAM};
    posix_spawn_file_actions_t actions;
    int n = 1;

    (void)snprintf(p->log, sizeof p->log, "/tmp/coordinator-%d-%d.log", (int)getpid(), n_started);
    (void)snprintf(p->ports, sizeof p->ports, "/tmp/coordinator-%d-%d.ports", (int)getpid(),
                   n_started++);
    for (; options[n - 1] != NULL; n++) {
        argv[n] = strcmp(options[n - 1], "PORTS") == 0 ? p->ports : options[n - 1];
    }
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, p->log,
                                                      O_CREAT | O_WRONLY | O_TRUNC, 0600),
                     0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO), 0);
    assert_int_equal(posix_spawn(&p->pid, argv[0], &actions, NULL, (char *const *)argv, environ),
                     0);
    (void)posix_spawn_file_actions_destroy(&actions);
}

/* Waits at most 10 s for its end and returns the exit code. */
static int end(program *p)
{
    int status = 0;
    for (int i = 0; i < 1000; i++) {
        if (waitpid(p->pid, &status, WNOHANG) == p->pid) {
            assert_true(WIFEXITED(status));
            return WEXITSTATUS(status);
        }
        base_sleep_us(10000);
    }
    (void)kill(p->pid, SIGKILL);
    (void)waitpid(p->pid, &status, 0);
    fail_msg("the program did not end");
    return -1;
}

static void expect_refusal(const char *const *options, int code, const char *text)
{
    program p;
    char *log = NULL;
    size_t n_bytes = 0;
    start(&p, options);
    assert_int_equal(end(&p), code);
    CHECK_STATUS(base_file_read(p.log, 1 << 20, &base_heap, &log, &n_bytes), BASE_OK);
    if (strstr(log, text) == NULL) {
        fail_msg("it said '%s', want '%s'", log, text);
    }
    base_heap.put(base_heap.ctx, log);
    (void)unlink(p.log);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void unknown_and_impossible_options_are_refused_by_name(void **state)
{
    (void)state;
    expect_refusal(OPTIONS("--bogus"), 2, "--bogus");
    expect_refusal(OPTIONS("stray"), 2, "'stray'");
    expect_refusal(OPTIONS("--max-waiting", "0"), 2, "--max-waiting is 0, allowed 1..65536");
    expect_refusal(OPTIONS("--max-waiting", "many"), 2, "--max-waiting is many, allowed");
    expect_refusal(OPTIONS("--grace-ms", "-1"), 2, "--grace-ms is -1");
    expect_refusal(OPTIONS("--wait-for-group-ms", "-5"), 2, "--wait-for-group-ms is -5");
    expect_refusal(OPTIONS("--log-level", "loud"), 2, "--log-level is 'loud'");
    expect_refusal(OPTIONS("--listen", "nowhere"), 2, "nowhere");
}

static void help_is_no_failure(void **state)
{
    program p;
    (void)state;
    start(&p, OPTIONS("--help"));
    assert_int_equal(end(&p), 0);
    (void)unlink(p.log);
}

static void wait_ports(program *p, int *listen_out, int *attach_out)
{
    for (int i = 0; i < 1000; i++) {
        char *text = NULL;
        size_t n_bytes = 0;
        if (base_file_read(p->ports, 64, &base_heap, &text, &n_bytes) == BASE_OK) {
            assert_int_equal(sscanf(text, "%d %d\n", listen_out, attach_out), 2);
            base_heap.put(base_heap.ctx, text);
            return;
        }
        base_sleep_us(10000);
    }
    fail_msg("no port file came");
}

static void it_tells_its_ports_answers_and_ends_on_sigterm(void **state)
{
    program p;
    int listen_port = 0;
    int attach_port = 0;
    char target[32];
    rpc_channel *channel = NULL;
    base_bytes reply;
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1];
    (void)state;
    start(&p,
          OPTIONS("--listen", "127.0.0.1:0", "--attach", "127.0.0.1:0", "--port-file", "PORTS"));
    wait_ports(&p, &listen_port, &attach_port);
    assert_true(listen_port > 0 && attach_port > 0 && listen_port != attach_port);

    (void)snprintf(target, sizeof target, "127.0.0.1:%d", listen_port);
    expect_refusal(OPTIONS("--listen", target), 1, target); /* in use */

    rpc_init();
    CHECK_STATUS(rpc_channel_create(target, &channel), BASE_OK);
    base_bytes_init(&reply, 1024, &base_heap);
    CHECK_STATUS(rpc_client_unary(channel, "/grpc.health.v1.Health/Check", (base_view){NULL, 0},
                                  5000, &reply, &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_OK);
    assert_int_equal(reply.data[1], 2); /* NOT_SERVING: no group is there */
    base_bytes_reset(&reply);
    CHECK_STATUS(rpc_client_unary(channel, "/ropewalk.v1.Inference/ModelInfo", (base_view){NULL, 0},
                                  5000, &reply, &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_UNAVAILABLE);
    rpc_channel_destroy(channel);
    rpc_shutdown();

    assert_int_equal(kill(p.pid, SIGTERM), 0);
    assert_int_equal(end(&p), 0);
    (void)unlink(p.ports);
    (void)unlink(p.log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_and_impossible_options_are_refused_by_name),
        cmocka_unit_test(help_is_no_failure),
        cmocka_unit_test(it_tells_its_ports_answers_and_ends_on_sigterm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
