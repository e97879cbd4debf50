#include "base/clock.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/cpu/cpu_library.h"
#include "kernels/device.h"
#include "kernels/page.h"
#include "launch/commands.h"
#include "launch/local_group.h"
#include "launch/options.h"
#include "launch/process.h"
#include "launch/tune.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MPIRUN_WAIT_MS   20000
#define TUNE_LIMIT_MS    60000
#define MIN_SHM_BYTES    ((uint64_t)64 << 20)
#define MIN_MEMORY_BYTES ((int64_t)2 << 30)

typedef struct finding {
    const char *name;
    bool ok;
    char text[256];  /* what was seen */
    const char *fix; /* what to do; "" when ok */
} finding;

static void found(finding *f, const char *name, bool ok, const char *fix)
{
    f->name = name;
    f->ok = ok;
    f->fix = ok ? "" : fix;
}

static void check_programs(finding *f)
{
    char path[PROCESS_MAX_PATH];
    const bool ok = process_sibling("ropewalk-coordinator", path) == BASE_OK &&
                    process_sibling("ropewalk-worker", path) == BASE_OK;
    (void)snprintf(f->text, sizeof f->text, "%s",
                   ok ? "coordinator and worker are beside this program" : base_last_error());
    found(f, "programs", ok, "build all targets: cmake --build --preset release");
}

/* Two ranks of `true`: starts, finds the host, and ends. */
static void check_mpirun(finding *f)
{
    static char name[] = "mpirun", over[] = "--oversubscribe", n[] = "-n", two[] = "2",
                prog[] = "true";
    char *argv[] = {name, over, n, two, prog, NULL};
    pid_t pid = 0;
    int exit_status = 0;
    bool ended = false;

    local_group_set_environment();
    if (process_start(argv, "/dev/null", &pid) != BASE_OK) {
        (void)snprintf(f->text, sizeof f->text, "%s", base_last_error());
        found(f, "mpirun", false, "install Open MPI: apt-get install openmpi-bin");
        return;
    }
    const int64_t start = base_now_us();
    while (!(ended = !process_alive(pid, &exit_status)) &&
           base_now_us() - start < (int64_t)MPIRUN_WAIT_MS * 1000) {
        base_sleep_us(10000);
    }
    process_end(pid, 500);
    (void)snprintf(f->text, sizeof f->text,
                   ended ? "2 ranks ended with status %d after %" PRId64 " ms"
                         : "2 ranks did not end (%d) within %" PRId64 " ms",
                   exit_status, (base_now_us() - start) / 1000);
    found(
        f, "mpirun", ended && exit_status == 0,
        "run `mpirun -n 2 true` by hand and read its message; a missing host name or ssh is usual");
}

static void check_port(finding *f, const char *name, uint16_t port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool ok = false;
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        ok = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    }
    (void)snprintf(f->text, sizeof f->text, "127.0.0.1:%d: %s", port,
                   ok ? "free" : strerror(errno));
    if (fd >= 0) {
        (void)close(fd);
    }
    found(f, name, ok, "another program listens there: stop it, or choose another with --listen");
}

static void check_memory(finding *f)
{
    const int64_t bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    (void)snprintf(f->text, sizeof f->text, "%.1f GB free, %ld cores", (double)bytes / 1e9,
                   sysconf(_SC_NPROCESSORS_ONLN));
    found(f, "memory", bytes >= MIN_MEMORY_BYTES, "less than 2 GB is free: end other programs");
}

static void check_shared_memory(finding *f)
{
    struct statvfs s;
    uint64_t bytes = 0;
    if (statvfs("/dev/shm", &s) == 0) {
        bytes = (uint64_t)s.f_bavail * s.f_frsize;
    }
    (void)snprintf(f->text, sizeof f->text, "/dev/shm has %.0f MB free", (double)bytes / 1e6);
    found(f, "shared memory", bytes >= MIN_SHM_BYTES,
          "ranks of one host talk through /dev/shm: in a container start it with --shm-size=1g");
}

static void check_library(finding *f)
{
    (void)snprintf(f->text, sizeof f->text, "OpenBLAS runs its %s code", cpu_library_core());
    found(f, "matrix library", true, "");
}

/* A GPU that this build cannot use is worth a word, not a fault; nor is a machine without one. */
static void check_gpus(finding *f)
{
    const bool there = access("/dev/nvidiactl", F_OK) == 0;
    const int32_t n = kern_gpu_count();
    size_t at = 0;
    f->text[0] = '\0';
    for (int32_t i = 0; i < n && at < sizeof f->text; i++) {
        kern_gpu g;
        if (kern_gpu_describe(i, &g) != BASE_OK) {
            (void)snprintf(f->text, sizeof f->text, "%s", base_last_error());
            found(f, "gpu", false, "nvidia-smi says more; another program may hold the GPU");
            return;
        }
        at +=
            (size_t)snprintf(f->text + at, sizeof f->text - at,
                             "%s%s, %.1f of %.1f GB free, driver for CUDA %d.%d%s",
                             i == 0 ? "" : "; ", g.name, (double)g.free_bytes / 1e9,
                             (double)g.total_bytes / 1e9, g.driver / 1000, g.driver % 1000 / 10,
                             g.capability == KERN_CUDA_CAPABILITY ? "" : " (not a Hopper: unused)");
    }
    if (n == 0) {
        (void)snprintf(f->text, sizeof f->text, "%s; this build %s",
                       there ? "an NVIDIA driver is here" : "no NVIDIA driver",
                       kern_gpu_in_build() ? "finds no GPU" : "computes on the CPU");
    }
    found(f, "gpu", true, "");
}

/* What ranks on GPUs exchange partials over. */
static void check_exchange(finding *f)
{
    const int32_t version = comm_nccl_version();
    const int32_t n = kern_gpu_count();
    int32_t apart[2] = {-1, -1};
    size_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t peer = 0; peer < n; peer++) {
            if (i != peer && apart[0] < 0 && !kern_gpu_reaches(i, peer)) {
                apart[0] = i;
                apart[1] = peer;
            }
        }
    }
    if (version == 0) {
        at = (size_t)snprintf(f->text, sizeof f->text,
                              "no NCCL in this build: ranks compute on CPUs");
    } else {
        at = (size_t)snprintf(f->text, sizeof f->text, "NCCL %d.%d.%d, %d GPU%s: one rank each",
                              version / 10000, version / 100 % 100, version % 100, n,
                              n == 1 ? "" : "s");
    }
    if (n > 1) {
        (void)snprintf(f->text + at, sizeof f->text - at,
                       apart[0] < 0
                           ? ", each reads every other's memory"
                           : ", and GPU %d does not read GPU %d's memory: exchanges are slow",
                       apart[0], apart[1]);
    }
    found(f, "exchange", true, "");
}

static int print(const finding *all, size_t n, bool json)
{
    int n_faults = 0;
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        n_faults += all[i].ok ? 0 : 1;
        if (json) {
            (void)json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:s}", "check",
                                                        all[i].name, "ok", all[i].ok, "seen",
                                                        all[i].text, "fix", all[i].fix));
            continue;
        }
        (void)printf("%-14s %-6s %s\n", all[i].name, all[i].ok ? "ok" : "FAULT", all[i].text);
        if (!all[i].ok) {
            (void)printf("%-21s do: %s\n", "", all[i].fix);
        }
    }
    if (json) {
        json_t *root = json_pack("{s:i, s:O}", "faults", n_faults, "checks", list);
        (void)json_dumpf(root, stdout, 0);
        (void)printf("\n");
        json_decref(root);
    }
    json_decref(list);
    return n_faults == 0 ? 0 : EXIT_FAILED;
}

typedef struct doctor_settings {
    const char *model, *kv, *contexts, *device;
    int32_t ranks;
    bool json, tune, share_gpu;
} doctor_settings;

static const base_option table[] = {
    {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(doctor_settings, json)},
    {"tune", 0, NULL, "time decode steps with every --merge and --weights, and say which to use",
     BASE_OPTION_FLAG(doctor_settings, tune)},
    {"ranks", 0, "N", "tune: MPI ranks",
     BASE_OPTION_I32(doctor_settings, ranks, 2, BENCH_MAX_RANKS)},
    {"model", 0, "DIR", "tune: model folder, or random:SHAPE",
     BASE_OPTION_TEXT(doctor_settings, model)},
    {"kv", 0, "POLICY", "tune: how the cache is stored", BASE_OPTION_TEXT(doctor_settings, kv)},
    {"contexts", 0, "N,..", "tune: positions of a sequence, as 8K or 1M",
     BASE_OPTION_TEXT(doctor_settings, contexts)},
    {"device", 0, "DEVICE", "tune: cpu or cuda (GPUs if there is one for each rank)",
     BASE_OPTION_CHOICE(doctor_settings, device, "cpu, cuda")},
    {"share-gpu", 0, NULL, "tune: ranks may share a GPU, for tests: times say nothing",
     BASE_OPTION_FLAG(doctor_settings, share_gpu)},
};
static const base_command command = {
    "ropewalk doctor", "[--json]\n       ropewalk doctor --tune [options]", BASE_OPTIONS(table)};

static base_status tune(const doctor_settings *s)
{
    base_status st = BASE_OK;
    bench_options o = {.model = s->model,
                       .policies = {s->kv},
                       .n_policies = 1,
                       .threads = {0},
                       .n_threads = 1,
                       .n_ranks = s->ranks,
                       .batch = 1,
                       .share_gpu = s->share_gpu,
                       .limit_ms = TUNE_LIMIT_MS};

    o.threads[0] = (int32_t)sysconf(_SC_NPROCESSORS_ONLN) / s->ranks;
    o.threads[0] = o.threads[0] < 1 ? 1 : o.threads[0];
    const bool gpus = kern_gpu_count() >= s->ranks;
    BASE_TRY(st, out,
             kern_device_choose(s->device != NULL ? s->device
                                : gpus            ? "cuda"
                                                  : "cpu",
                                &o.device));
    BASE_TRY(st, out,
             options_lengths("--contexts", s->contexts, KERN_BLOCK_TOKENS, BENCH_MAX_CONTEXT,
                             o.contexts, BENCH_MAX_CONTEXTS, &o.n_contexts));
    st = tune_print(&o, &base_heap);
out:
    return st;
}

int command_doctor(int argc, const char **argv)
{
    doctor_settings s = {
        .model = "models/demo", .kv = "bf16", .contexts = "8K,32K,128K", .ranks = 2};
    base_options line;
    int exit_status = 0;
    finding all[9];

    if (!options_open(&command, argc, argv, &s, &line, &exit_status)) {
        goto out;
    }
    if (s.tune) {
        const base_status st = tune(&s);
        exit_status = st == BASE_OK ? 0 : options_report(&command, st);
        goto out;
    }
    check_programs(&all[0]);
    check_mpirun(&all[1]);
    check_port(&all[2], "client port", 50051);
    check_port(&all[3], "attach port", 50052);
    check_memory(&all[4]);
    check_shared_memory(&all[5]);
    check_library(&all[6]);
    check_gpus(&all[7]);
    check_exchange(&all[8]);
    exit_status = print(all, sizeof all / sizeof all[0], s.json);
out:
    base_options_reset(&line);
    return exit_status;
}
