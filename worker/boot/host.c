#include "worker/boot/host.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

base_status host_memory_available(int64_t *n_bytes_out)
{
    base_status st = BASE_FAIL(BASE_IO, "/proc/meminfo has no MemAvailable");
    char line[256];
    FILE *f = fopen("/proc/meminfo", "re");
    if (f == NULL) {
        return BASE_FAIL(BASE_IO, "/proc/meminfo: %s", strerror(errno));
    }
    while (fgets(line, (int)sizeof line, f) != NULL) {
        int64_t kilobytes = 0;
        if (sscanf(line, "MemAvailable: %" SCNd64 " kB", &kilobytes) == 1) {
            *n_bytes_out = kilobytes * 1024;
            st = BASE_OK;
            break;
        }
    }
    (void)fclose(f);
    return st;
}

int32_t host_threads(int32_t n_local)
{
    cpu_set_t bound;
    const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    long n = n_cores / n_local;

    if (sched_getaffinity(0, sizeof bound, &bound) == 0 && CPU_COUNT(&bound) < n) {
        n = CPU_COUNT(&bound);
    }
    return n < 1 ? 1 : (int32_t)n;
}
