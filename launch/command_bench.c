#include "kernels/kern.h"
#include "kernels/page.h"
#include "launch/bench.h"
#include "launch/commands.h"
#include "launch/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONTEXT (1 << 23)
#define MAX_BATCH   256
#define MAX_CHUNK   8192

static const struct {
    const char *name;
    int32_t n_heads, n_kv_heads, head_dim;
} shapes[] = {{"llama-8b", 32, 8, 128}, {"qwen-3b", 16, 2, 128}, {"demo", 4, 2, 128}};

#define N_SHAPES (sizeof shapes / sizeof shapes[0])

typedef struct settings { /* as given */
    const char *shape, *kv, *threads, *device, *model;
    int heads, kv_heads, head_dim, batch, prefill_chunk, json;
    long long context;
    double seconds;
    char policies[BENCH_MAX_POLICIES][128];
} settings;

typedef struct lists {
    settings *s;
    bench_options *o;
} lists;

static base_status take_policy(void *ctx, const char *part)
{
    lists *l = ctx;
    bench_options *o = l->o;
    if (o->n_policies == BENCH_MAX_POLICIES) {
        return BASE_FAIL(BASE_BAD_INPUT, "--kv names more than %d policies", BENCH_MAX_POLICIES);
    }
    (void)snprintf(l->s->policies[o->n_policies], sizeof l->s->policies[0], "%s", part);
    o->policies[o->n_policies] = l->s->policies[o->n_policies];
    o->n_policies++;
    return BASE_OK;
}

static base_status take_threads(void *ctx, const char *part)
{
    bench_options *o = ((lists *)ctx)->o;
    char *end = NULL;
    const long n = strtol(part, &end, 10);
    if (*end != '\0' || n < 1 || n > KERN_MAX_THREADS || o->n_threads == BENCH_MAX_COUNTS) {
        return BASE_FAIL(BASE_BAD_INPUT, "--threads '%s', allowed 1..%d, at most %d of them", part,
                         KERN_MAX_THREADS, BENCH_MAX_COUNTS);
    }
    o->threads[o->n_threads++] = (int32_t)n;
    return BASE_OK;
}

static base_status take_shape(const settings *s, bench_options *o)
{
    const char *name = s->shape != NULL ? s->shape : "llama-8b";
    if (s->heads != 0 || s->kv_heads != 0 || s->head_dim != 0) {
        *o = (bench_options){.shape_name = "custom",
                             .n_heads = s->heads,
                             .n_kv_heads = s->kv_heads,
                             .head_dim = s->head_dim};
        if (s->shape != NULL || s->heads < 1 || s->heads > 1024 || s->kv_heads < 1 ||
            s->kv_heads > 256 || (s->head_dim != 64 && s->head_dim != 128)) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "--heads %d, --kv-heads %d, --head-dim %d: give all three (head dim "
                             "64 or 128) and no --shape",
                             s->heads, s->kv_heads, s->head_dim);
        }
        return BASE_OK;
    }
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            *o = (bench_options){.shape_name = shapes[i].name,
                                 .n_heads = shapes[i].n_heads,
                                 .n_kv_heads = shapes[i].n_kv_heads,
                                 .head_dim = shapes[i].head_dim};
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT, "--shape is '%s', allowed llama-8b, qwen-3b, demo", name);
}

static base_status options_of(settings *s, const char *what, bench_options *o)
{
    base_status st = BASE_OK;
    const bool step = strcmp(what, "step") == 0;
    lists l = {s, o};

    if (!step && strcmp(what, "attention") != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "bench of '%s', allowed attention, step", what);
    }
    if (s->device != NULL && strcmp(s->device, "cpu") != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "--device is '%s', allowed cpu", s->device);
    }
    if (s->context < KERN_BLOCK_TOKENS || s->context > MAX_CONTEXT || s->batch < 1 ||
        s->batch > MAX_BATCH || !(s->seconds >= 0.0 && s->seconds <= 600.0)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "--context %lld, allowed %d..%d; --batch %d, 1..%d; --seconds %g, 0..600",
                         s->context, KERN_BLOCK_TOKENS, MAX_CONTEXT, s->batch, MAX_BATCH,
                         s->seconds);
    }
    if (s->prefill_chunk < 1 || s->prefill_chunk > MAX_CHUNK) {
        return BASE_FAIL(BASE_BAD_INPUT, "--prefill-chunk %d, allowed 1..%d", s->prefill_chunk,
                         MAX_CHUNK);
    }
    BASE_TRY(st, out, take_shape(s, o));
    o->context = s->context;
    o->batch = s->batch;
    o->prefill_chunk = s->prefill_chunk;
    o->seconds = s->seconds;
    o->model = s->model != NULL ? s->model : "models/demo";
    const char *kv = step ? "tq:k=3,v=3" : "bf16;tq:k=4,v=4;tq:k=3,v=3;tq:k=2,v=2";
    BASE_TRY(st, out, bench_list(s->kv != NULL ? s->kv : kv, ';', &l, take_policy));
    const char *threads = s->threads != NULL ? s->threads : step ? "1" : "1,2";
    BASE_TRY(st, out, bench_list(threads, ',', &l, take_threads));
    if (step && (o->n_policies != 1 || o->n_threads != 1)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench step takes one policy and one number of threads");
    }
out:
    return st;
}

static double real_of(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

static void print_attention(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    json_array_foreach(json_object_get(root, "read_bandwidth"), i, r)
    {
        (void)printf("reading memory, %.0f threads: %.1f GB/s\n", real_of(r, "threads"),
                     real_of(r, "gb_per_s"));
    }
    (void)printf("\n%-14s %7s %9s %10s %10s %10s %7s %8s %9s\n", "cache", "threads", "MB",
                 "median ms", "p10 ms", "p90 ms", "GB/s", "of read", "x bf16");
    json_array_foreach(json_object_get(root, "results"), i, r)
    {
        (void)printf("%-14s %7.0f %9.1f %10.2f %10.2f %10.2f %7.2f %7.0f%% %9.2f\n",
                     json_string_value(json_object_get(r, "policy")), real_of(r, "threads"),
                     real_of(r, "bytes") * 1e-6, real_of(r, "median_us") * 1e-3,
                     real_of(r, "p10_us") * 1e-3, real_of(r, "p90_us") * 1e-3,
                     real_of(r, "gb_per_s"), 100.0 * real_of(r, "share_of_read_bandwidth"),
                     real_of(r, "speed_against_bf16"));
    }
}

static void print_step(const json_t *root)
{
    size_t i = 0;
    size_t k = 0;
    const json_t *phase = NULL;
    const json_t *op = NULL;
    (void)printf("scratch %.1f MB, whatever the context\n", real_of(root, "scratch_bytes") * 1e-6);
    json_array_foreach(json_object_get(root, "phases"), i, phase)
    {
        (void)printf("\n%s: %.0f tokens in %.0f steps, %.1f ms, median step %.2f ms\n",
                     json_string_value(json_object_get(phase, "phase")), real_of(phase, "tokens"),
                     real_of(phase, "steps"), real_of(phase, "ms"),
                     real_of(phase, "median_step_ms"));
        json_array_foreach(json_object_get(phase, "ops"), k, op)
        {
            (void)printf("  %-10s %10.2f ms %6.1f%%\n",
                         json_string_value(json_object_get(op, "op")), real_of(op, "ms"),
                         100.0 * real_of(op, "share"));
        }
    }
}

int command_bench(int argc, const char **argv)
{
    static settings s; /* popt keeps pointers to it */
    static bench_options o;
    json_t *root = NULL;
    poptContext context = NULL;
    s = (settings){.context = 131072, .batch = 1, .prefill_chunk = 512, .seconds = 10.0};
    long long context_given = 0;
    const struct poptOption table[] = {
        {"shape", '\0', POPT_ARG_STRING, &s.shape, 0, "llama-8b, qwen-3b or demo", "NAME"},
        {"heads", '\0', POPT_ARG_INT, &s.heads, 0, "query heads, instead of --shape", "H"},
        {"kv-heads", '\0', POPT_ARG_INT, &s.kv_heads, 0, "KV heads", "K"},
        {"head-dim", '\0', POPT_ARG_INT, &s.head_dim, 0, "64 or 128", "D"},
        {"context", '\0', POPT_ARG_LONGLONG, &context_given, 0,
         "positions (attention 131072, step 8192)", "N"},
        {"batch", '\0', POPT_ARG_INT, &s.batch, 0, "sequences of a call", "B"},
        {"kv", '\0', POPT_ARG_STRING, &s.kv, 0, "cache policies, side by side", "POLICY;.."},
        {"threads", '\0', POPT_ARG_STRING, &s.threads, 0, "numbers of threads", "1,2"},
        {"model", '\0', POPT_ARG_STRING, &s.model, 0, "step: model folder", "DIR"},
        {"prefill-chunk", '\0', POPT_ARG_INT, &s.prefill_chunk, 0, "step: tokens of a chunk", "C"},
        {"seconds", '\0', POPT_ARG_DOUBLE, &s.seconds, 0, "attention: how long to measure", "S"},
        {"device", '\0', POPT_ARG_STRING, &s.device, 0, "cpu", "NAME"},
        {"json", '\0', POPT_ARG_NONE, &s.json, 0, "one JSON object", NULL},
        POPT_AUTOHELP POPT_TABLEEND};

    base_status st = options_parse(argc, argv, table, "bench attention|step [options]", &context);
    if (st != BASE_OK) {
        return options_report("bench", st);
    }
    const char *what = poptGetArg(context);
    if (what == NULL || poptPeekArg(context) != NULL) {
        st = BASE_FAIL(BASE_BAD_INPUT, "one of attention, step is needed");
        goto out;
    }
    const bool step = strcmp(what, "step") == 0;
    s.context = context_given != 0 ? context_given : step ? 8192 : 131072;
    BASE_TRY(st, out, options_of(&s, what, &o));
    BASE_TRY(st, out, (step ? bench_step : bench_attention)(&o, &base_heap, &root));
    if (s.json) {
        (void)json_dumpf(root, stdout, JSON_REAL_PRECISION(9));
        (void)printf("\n");
    } else if (step) {
        print_step(root);
    } else {
        print_attention(root);
    }
out:
    json_decref(root);
    options_end(context, table);
    return st == BASE_OK ? 0 : options_report("bench", st);
}
