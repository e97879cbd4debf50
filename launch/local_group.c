#include "launch/local_group.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "kernels/cpu/cpu_library.h"
#include "kernels/device.h"
#include "launch/process.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCAL_MAX_ARGS   48
#define PORT_WAIT_US     10000000
#define WORKER_GRACE_MS  3000
#define COORD_GRACE_MS   4000
#define MAX_TARGET_BYTES 300
#define MAX_REASON_BYTES 512

struct local_group {
    pid_t coordinator;
    pid_t mpirun;
    char target[MAX_TARGET_BYTES];
    char attach[64];
    const char *log_path; /* or NULL */
    long log_begin;       /* its bytes before this group's */
};

typedef struct arguments {
    char *argv[LOCAL_MAX_ARGS];
    int n;
} arguments;

/* The strings are only read by execvp, which asks for char * for historical reasons. */
static void add(arguments *a, const char *text)
{
    a->argv[a->n++] = (char *)(uintptr_t)text;
    a->argv[a->n] = NULL;
}

static void add_option(arguments *a, const char *name, const char *value)
{
    if (value != NULL) {
        add(a, name);
        add(a, value);
    }
}

static const char *number_text(char buffer[24], int64_t value)
{
    (void)snprintf(buffer, 24, "%" PRId64, value);
    return value > 0 ? buffer : NULL;
}

/* Waits for the coordinator's port file and turns the two ports into addresses. */
static base_status read_ports(local_group *g, const char *port_file, const char *listen)
{
    const int64_t until = base_now_us() + PORT_WAIT_US;
    int ports[2] = {0, 0};

    for (;;) {
        char *text = NULL;
        size_t n_bytes = 0;
        int exit_status = 0;
        if (base_file_read(port_file, 64, &base_heap, &text, &n_bytes) == BASE_OK) {
            const int n = sscanf(text, "%d %d\n", &ports[0], &ports[1]);
            const bool whole = n == 2 && n_bytes > 0 && text[n_bytes - 1] == '\n';
            base_heap.put(base_heap.ctx, text);
            if (whole) {
                break;
            }
        }
        if (!process_alive(g->coordinator, &exit_status)) {
            return BASE_FAIL(BASE_UNAVAILABLE, "ropewalk-coordinator ended with status %d",
                             exit_status);
        }
        if (base_now_us() > until) {
            return BASE_FAIL(BASE_TIMEOUT, "ropewalk-coordinator did not listen within 10 s");
        }
        base_sleep_us(5000);
    }
    const char *colon = strrchr(listen, ':');
    const int host_bytes = colon != NULL ? (int)(colon - listen) : (int)strlen(listen);
    (void)snprintf(g->target, sizeof g->target, "%.*s:%d", host_bytes, listen, ports[0]);
    (void)snprintf(g->attach, sizeof g->attach, "127.0.0.1:%d", ports[1]);
    return BASE_OK;
}

static base_status start_coordinator(local_group *g, const local_group_options *o)
{
    base_status st;
    char program[PROCESS_MAX_PATH];
    char port_file[] = "/tmp/ropewalk-ports-XXXXXX";
    arguments a = {.n = 0};

    BASE_TRY(st, out, process_make_file(port_file));
    BASE_TRY(st, out, process_sibling("ropewalk-coordinator", program));
    add(&a, program);
    add_option(&a, "--listen", o->listen);
    add_option(&a, "--attach", "127.0.0.1:0");
    add_option(&a, "--port-file", port_file);
    add_option(&a, "--wait-for-group-ms", "0"); /* no other one will come */
    add_option(&a, "--log-level", o->log_level);
    BASE_TRY(st, out, process_start(a.argv, o->log_path, &g->coordinator));
    st = read_ports(g, port_file, o->listen);
out:
    (void)unlink(port_file); /* not at the end: a group may be killed */
    return st;
}

void local_group_set_environment(void)
{
    if (geteuid() == 0) { /* containers run as root; mpirun wants to be told twice */
        (void)setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
        (void)setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    }
    (void)setenv("OMPI_MCA_pml", "ob1", 0);
    (void)setenv("OMPI_MCA_btl", "self,vader", 0);
    /* Cross-memory attach needs ptrace rights that containers lack; copies through shared memory do not. */
    (void)setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    /* When a rank dies mpirun ends the others at once; its default sleeps twice for a second on the way. */
    (void)setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", 0);
}

static base_status start_workers(local_group *g, const local_group_options *o)
{
    base_status st;
    char program[PROCESS_MAX_PATH];
    char ranks[24], context[24], batch[24], chunk[24];
    arguments a = {.n = 0};

    BASE_TRY(st, out, process_sibling("ropewalk-worker", program));
    local_group_set_environment();
    add(&a, "mpirun");
    add(&a, "--oversubscribe");
    add_option(&a, "--bind-to", "none");
    add_option(&a, "-n", number_text(ranks, o->ranks));
    add(&a, program);
    add_option(&a, "--coordinator", g->attach);
    add_option(&a, "--model", o->model);
    add_option(&a, "--kv", o->kv);
    add_option(&a, "--device", o->device);
    add_option(&a, "--merge", o->merge);
    add_option(&a, "--weights", o->weights);
    if (o->share_gpu) {
        add(&a, "--share-gpu");
    }
    add_option(&a, "--rope-scaling", o->rope_scaling);
    add_option(&a, "--max-context", number_text(context, o->max_context));
    add_option(&a, "--max-batch", number_text(batch, o->max_batch));
    add_option(&a, "--prefill-chunk", number_text(chunk, o->prefill_chunk));
    add_option(&a, "--log-level", o->log_level);
    st = process_start(a.argv, o->log_path, &g->mpirun);
out:
    return st;
}

/* 0 if it is not there. */
static long log_bytes(const char *path)
{
    struct stat s;
    return path != NULL && stat(path, &s) == 0 ? (long)s.st_size : 0;
}

/* The workers would refuse it too, in their log. */
static base_status check_device(const local_group_options *o)
{
    base_status st = BASE_OK;
    kern_device device = KERN_DEVICE_CPU;
    if (o->device != NULL) {
        BASE_TRY(st, out, kern_device_choose(o->device, &device));
    }
    if (device == KERN_DEVICE_CUDA && o->ranks > kern_gpu_count() && !o->share_gpu) {
        st = BASE_FAIL(BASE_BAD_INPUT,
                       "--device cuda with %d ranks: a GPU serves one rank, and there are %d here",
                       o->ranks, kern_gpu_count());
    }
out:
    return st;
}

base_status local_group_open(const local_group_options *options, local_group **group_out)
{
    base_status st = BASE_OK;
    local_group *g = NULL;

    g = base_heap.get(base_heap.ctx, sizeof *g);
    if (g == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "local group");
    }
    BASE_TRY(st, out, check_device(options));
    g->log_path = options->log_path;
    g->log_begin = log_bytes(options->log_path);
    BASE_TRY(st, out, start_coordinator(g, options));
    BASE_TRY(st, out, start_workers(g, options));
    *group_out = g;
    g = NULL;
out:
    local_group_close(g);
    return st;
}

void local_group_close(local_group *group)
{
    if (group == NULL) {
        return;
    }
    process_end(group->mpirun, WORKER_GRACE_MS);
    process_end(group->coordinator, COORD_GRACE_MS);
    base_heap.put(base_heap.ctx, group);
}

const char *local_group_target(const local_group *group)
{
    return group->target;
}

base_status local_group_check(const local_group *group)
{
    int exit_status = 0;
    if (!process_alive(group->mpirun, &exit_status)) {
        char said[MAX_REASON_BYTES]; /* first: the others follow when one leaves */
        process_said(group->log_path, group->log_begin, " error worker", said, sizeof said);
        return BASE_FAIL(BASE_UNAVAILABLE, "the mpirun group ended with status %d%s%s", exit_status,
                         said[0] != '\0' ? ": worker" : "", said);
    }
    if (!process_alive(group->coordinator, &exit_status)) {
        return BASE_FAIL(BASE_UNAVAILABLE, "ropewalk-coordinator ended with status %d",
                         exit_status);
    }
    return BASE_OK;
}
