#include "launch/bench.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FALLBACK_CACHE_BYTES ((int64_t)32 << 20)
#define MAX_READERS          64
#define MAX_PART             128
#define WORDS_AHEAD          512

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_times_add(bench_times *t, double us)
{
    if (t->n < BENCH_MAX_RUNS) {
        t->us[t->n++] = us;
    }
}

double bench_times_at(bench_times *t, double q)
{
    if (t->n == 0) {
        return 0.0;
    }
    qsort(t->us, (size_t)t->n, sizeof t->us[0], compare);
    return t->us[(int32_t)(q * (t->n - 1) + 0.5)];
}

int64_t bench_cold_bytes(kern_device device)
{
    long last_level = 0;
    kern_gpu gpu;
    if (device == KERN_DEVICE_CUDA && kern_gpu_describe(0, &gpu) == BASE_OK) {
        return 5 * gpu.cache_bytes;
    }
#ifdef _SC_LEVEL3_CACHE_SIZE
    last_level = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    const int64_t cache = last_level > 0 ? last_level : FALLBACK_CACHE_BYTES;
    return 5 * cache;
}

base_status bench_device_open(const bench_options *o, const base_alloc *mem, bench_device *device)
{
    base_status st = BASE_OK;
    *device = (bench_device){.read_gb = 0.0};
    if (o->device == KERN_DEVICE_CUDA) {
        BASE_TRY(st, out, kern_gpu_describe(0, &device->gpu));
        BASE_TRY(st, out, kern_gpu_bandwidth(0, &device->read_gb, &device->copy_gb));
    }
    for (int32_t i = 0; i < o->n_threads; i++) {
        BASE_TRY(st, out, kern_ctx_create(o->device, o->threads[i], mem, &device->ctx[i]));
    }
out:
    return st;
}

void bench_device_close(bench_device *device)
{
    for (int32_t i = 0; i < BENCH_MAX_COUNTS; i++) {
        kern_ctx_destroy(device->ctx[i]);
    }
}

base_status bench_time_ops(kern_ctx *ctx, const void *owner, base_status (*ops)(void *arg),
                           void *arg, double *us_out)
{
    base_status st = BASE_OK;
    const kern_replay_key key = {.owner = owner};
    kern_stopwatch watch;

    BASE_TRY(st, out, kern_stopwatch_start(ctx, &watch));
    BASE_TRY(st, out, kern_replay_or_record(ctx, &key, ops, arg));
    st = kern_stopwatch_stop(ctx, &watch, us_out);
out:
    return st;
}

typedef struct reader {
    pthread_t id;
    const uint64_t *words;
    int64_t n_words;
    uint64_t sum;
} reader;

typedef uint64_t word4 __attribute__((vector_size(32)));

/* Eight sums in flight and lines asked for ahead, so that waiting for memory is all that is left. */
static void *read_all(void *arg)
{
    reader *r = arg;
    word4 sums[8] = {{0}};
    for (int64_t i = 0; i < r->n_words; i += 32) {
        for (int j = 0; j < 32; j += 8) {
            __builtin_prefetch(r->words + i + WORDS_AHEAD + j);
        }
        for (int j = 0; j < 8; j++) {
            word4 w;
            memcpy(&w, r->words + i + 4 * (int64_t)j, sizeof w);
            sums[j] ^= w;
        }
    }
    for (int j = 0; j < 8; j++) {
        r->sum ^= sums[j][0] ^ sums[j][1] ^ sums[j][2] ^ sums[j][3];
    }
    return NULL;
}

base_status bench_read_memory(const void *bytes, int64_t n_bytes, int32_t n_threads, double *us_out)
{
    static volatile uint64_t keep; /* so that the reads are not dropped */
    reader readers[MAX_READERS] = {{0}};
    int32_t n_started = 1;
    const int32_t n = n_threads < MAX_READERS ? n_threads : MAX_READERS;
    const int64_t n_lines = n_bytes / 256;
    const int64_t begun = base_now_ns();

    for (int32_t i = 0; i < n; i++) {
        const int64_t begin = n_lines * i / n;
        readers[i].words = (const uint64_t *)bytes + begin * 32;
        readers[i].n_words = (n_lines * (i + 1) / n - begin) * 32;
    }
    while (n_started < n &&
           pthread_create(&readers[n_started].id, NULL, read_all, &readers[n_started]) == 0) {
        n_started++;
    }
    if (n_started == n) {
        (void)read_all(&readers[0]);
    }
    for (int32_t i = 1; i < n_started; i++) {
        pthread_join(readers[i].id, NULL);
        keep ^= readers[i].sum;
    }
    keep ^= readers[0].sum;
    if (n_started < n) {
        return BASE_FAIL(BASE_NO_MEMORY, "thread %d of %d could not be started", n_started, n);
    }
    *us_out = (double)(base_now_ns() - begun) * 1e-3;
    return BASE_OK;
}

base_status bench_list(const char *text, char separator, void *ctx,
                       base_status (*take)(void *ctx, const char *part))
{
    base_status st = BASE_OK;
    while (st == BASE_OK) {
        char part[MAX_PART];
        const char *end = strchr(text, separator);
        const size_t n = end != NULL ? (size_t)(end - text) : strlen(text);
        if (n == 0 || n >= sizeof part) {
            return BASE_FAIL(BASE_BAD_INPUT, "a list has a part of %zu letters, allowed 1..%d", n,
                             MAX_PART - 1);
        }
        memcpy(part, text, n);
        part[n] = '\0';
        st = take(ctx, part);
        if (end == NULL) {
            break;
        }
        text = end + 1;
    }
    return st;
}
