#include "worker/model/random_model.h"

#include "base/half.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "worker/model/made.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX          "random:"
#define MAX_THREADS     64
#define THREAD_ELEMENTS ((int64_t)1 << 20) /* fewer are not worth a thread */
#define WORD_ELEMENTS   2                  /* 16 bits of a random word each */

struct random_weights {
    made_tensors made;
    uint64_t seed;
    int32_t n_threads;
    base_alloc mem;
};

static const struct {
    const char *name;
    const char *config_json;
} shapes[] = {
#define X(name, config_json) {name, config_json},
#include "worker/model/random_shapes.def"
#undef X
};

static const char shape_names[] = ""
#define X(name, config_json) " " name
#include "worker/model/random_shapes.def"
#undef X
    ;

bool random_model_is(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0;
}

static base_status seed_parse(const char *text, uint64_t *seed_out)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long seed = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9') {
        return BASE_FAIL(BASE_BAD_INPUT, "random model: seed '%.64s', allowed 0..2^64-1", text);
    }
    *seed_out = seed;
    return BASE_OK;
}

base_status random_model_parse(const char *name, base_view *config_json_out, uint64_t *seed_out)
{
    uint64_t seed = 0;
    const char *shape = random_model_is(name) ? name + strlen(PREFIX) : name;
    const char *colon = strchr(shape, ':');
    const base_view view = {shape, colon == NULL ? strlen(shape) : (size_t)(colon - shape)};
    if (colon != NULL) {
        const base_status st = seed_parse(colon + 1, &seed);
        if (st != BASE_OK) {
            return st;
        }
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (base_view_equal(view, base_view_of(shapes[i].name))) {
            *config_json_out = base_view_of(shapes[i].config_json);
            *seed_out = seed;
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT, "random model: shape '%.64s', there are:%s", shape,
                     shape_names);
}

/* With so many of what ranks share out. */
static double weight_bytes(const model_config *c, int32_t n_heads, int32_t n_ffn, int32_t n_vocab)
{
    const double width = c->width;
    const double rows = (c->n_heads + 2.0 * c->n_kv_heads) * c->head_dim;
    const double shared = (double)n_heads * c->head_dim + 3.0 * n_ffn;
    const double tables = c->tied_embeddings ? 1.0 : 2.0;
    return 2.0 * width * (tables * n_vocab + c->n_layers * (rows + shared));
}

int64_t random_weights_bytes(const model_config *config)
{
    return (int64_t)weight_bytes(config, config->n_heads, config->ffn_width, config->n_vocab);
}

static int32_t thread_count(void)
{
    cpu_set_t cores;
    const int n = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

base_status random_weights_create(const model_config *config, const model_split *split,
                                  uint64_t seed, const base_alloc *mem,
                                  random_weights **weights_out)
{
    const double n_bytes =
        weight_bytes(config, model_span_count(split->heads), model_span_count(split->ffn),
                     model_span_count(split->vocab));
    const double n_host_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (n_bytes > n_host_bytes) {
        return BASE_FAIL(BASE_NO_MEMORY,
                         "random model: its weights take %.1f GB on each rank, this host has %.1f",
                         n_bytes / 1e9, n_host_bytes / 1e9);
    }
    random_weights *w = mem->get(mem->ctx, sizeof *w);
    if (w == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "random model");
    }
    w->mem = *mem;
    w->made.mem = *mem;
    w->seed = seed;
    w->n_threads = thread_count();
    BASE_INFO("random model: making %.2f GB of weights with %d threads", n_bytes / 1e9,
              w->n_threads);
    *weights_out = w;
    return BASE_OK;
}

void random_weights_destroy(random_weights *w)
{
    if (w == NULL) {
        return;
    }
    const base_alloc mem = w->mem;
    made_tensors_reset(&w->made);
    mem.put(mem.ctx, w);
}

typedef struct job {
    pthread_t thread;
    uint16_t *data;   /* pieces of the tensor, one behind the other */
    uint32_t keys[2]; /* of the tensor */
    int64_t first;    /* its element that the first piece begins with */
    int64_t pitch;    /* from one piece's first element to the next one's */
    int64_t length;   /* of a piece */
    int64_t begin;    /* elements of data that this job makes */
    int64_t end;
    float middle;
    float spread;
} job;

/* A bijection that scatters neighbours. */
static inline uint32_t mixed(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* Uniform in middle +- spread.  Not base/random: weights are many, and these loops become vectors. */
static inline uint32_t weight(const job *j, uint32_t bits)
{
    return base_bf16_from_f32(j->middle +
                              j->spread * (((float)(int32_t)bits - 32767.5f) / 32768.0f));
}

/* Two elements of the tensor: those that word i makes. */
static inline uint32_t two_weights(const job *j, int64_t i)
{
    const uint32_t word = mixed(mixed((uint32_t)i ^ j->keys[0]) + j->keys[1]);
    return weight(j, word & 0xffffu) | weight(j, word >> 16) << 16;
}

/* Elements begin..end-1 of the tensor. */
static void make_elements(const job *j, int64_t begin, int64_t end, uint16_t *to)
{
    if (begin % WORD_ELEMENTS != 0 && begin < end) {
        *to++ = (uint16_t)(two_weights(j, begin++ / WORD_ELEMENTS) >> 16);
    }
    const int64_t first = begin / WORD_ELEMENTS;
    const int64_t n = end / WORD_ELEMENTS - first;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t two = two_weights(j, first + i);
        memcpy(to + i * WORD_ELEMENTS, &two, sizeof two);
    }
    if (end % WORD_ELEMENTS != 0 && begin < end) {
        to[n * WORD_ELEMENTS] = (uint16_t)two_weights(j, end / WORD_ELEMENTS);
    }
}

static void *job_run(void *arg)
{
    const job j = *(const job *)arg;
    for (int64_t at = j.begin; at < j.end;) {
        const int64_t inside = at % j.length;
        const int64_t left = j.length - inside;
        const int64_t n = left < j.end - at ? left : j.end - at;
        const int64_t element = j.first + at / j.length * j.pitch + inside;
        make_elements(&j, element, element + n, j.data + at);
        at += n;
    }
    return NULL;
}

static void fill(const job *whole, int32_t n_threads)
{
    job jobs[MAX_THREADS];
    bool is_running[MAX_THREADS] = {false};
    const int64_t n_worth = whole->end / THREAD_ELEMENTS + 1;
    const int32_t n = n_worth < n_threads ? (int32_t)n_worth : n_threads;
    for (int32_t t = 0; t < n; t++) {
        jobs[t] = *whole;
        jobs[t].begin = whole->end / n * t;
        jobs[t].end = t + 1 == n ? whole->end : whole->end / n * (t + 1);
        is_running[t] = t > 0 && pthread_create(&jobs[t].thread, NULL, job_run, &jobs[t]) == 0;
        if (t > 0 && !is_running[t]) {
            (void)job_run(&jobs[t]);
        }
    }
    (void)job_run(&jobs[0]);
    for (int32_t t = 1; t < n; t++) {
        if (is_running[t]) {
            (void)pthread_join(jobs[t].thread, NULL);
        }
    }
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text);
    return n >= strlen(end) && strcmp(text + n - strlen(end), end) == 0;
}

base_status random_weights_make(random_weights *w, const char *name, const model_slice *slice,
                                const void **data_out)
{
    const int32_t cols = slice->cols;
    base_hasher *hasher = NULL;
    const base_status st = base_hasher_create(&hasher);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add_text(hasher, name);
    const base_hash hash = base_hasher_end(hasher);
    uint64_t stream = 0;
    for (int32_t i = 0; i < 8; i++) { /* little-endian on every machine */
        stream |= (uint64_t)hash.bytes[i] << (8 * i);
    }
    const uint64_t keys = base_random_u64(w->seed, stream, 0);
    const model_span row = model_slice_rows(slice);
    const model_span col = model_slice_cols(slice);
    const int64_t pitch = cols == 0 ? 1 : cols;
    const int64_t n_rows = model_span_count(row);
    const int64_t n_cols = model_span_count(col);
    job whole = {.keys = {(uint32_t)keys, (uint32_t)(keys >> 32)},
                 .first = row.begin * pitch + col.begin,
                 .pitch = pitch,
                 .length = n_cols == pitch ? n_rows * n_cols : n_cols,
                 .end = n_rows * n_cols};
    const bool is_norm = cols == 0 && !ends_with(name, "bias");
    whole.middle = is_norm ? 1.0f : 0.0f;
    whole.spread = is_norm ? 0.25f : cols == 0 ? 0.5f : (float)sqrt(3.0 / cols);
    whole.data = made_tensors_add(&w->made, (size_t)whole.end * sizeof(uint16_t));
    if (whole.data == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "random model: tensor '%s' of %lld bytes", name,
                         (long long)whole.end * 2);
    }
    fill(&whole, w->n_threads);
    *data_out = whole.data;
    return BASE_OK;
}
