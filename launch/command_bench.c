#include "kernels/kern.h"
#include "kernels/page.h"
#include "launch/bench.h"
#include "launch/commands.h"
#include "launch/options.h"

#include <stdio.h>
#include <string.h>

#define MAX_CONTEXT (1 << 23)
#define MAX_CHUNK   8192
#define MAX_QUERIES (1 << 16)
#define MERGE_RANKS 2

static const struct {
    const char *name;
    int32_t n_heads, n_kv_heads, head_dim;
} shapes[] = {{"llama-8b", 32, 8, 128}, {"qwen-3b", 16, 2, 128}, {"demo", 4, 2, 128}};

#define SHAPES "llama-8b, qwen-3b, demo"

typedef enum kind { ATTENTION, PREFILL, PACK, STEP, MERGE, N_KINDS } kind;

/* Each with what it takes where nothing is given. */
static const struct {
    const char *name;
    base_status (*run)(const bench_options *o, const base_alloc *mem, json_t **json_out);
    const char *policies, *threads;
    int64_t context;
} kinds[N_KINDS] = {
    [ATTENTION] = {"attention", bench_attention,
                   "bf16;tq:k=4,v=4;tq:k=3,v=3;tq:k=2,v=2;block-gtq:k=3,v=3", "1,2", 131072},
    [PREFILL] = {"prefill", bench_attention, "bf16;tq:k=3,v=3;block-gtq:k=3,v=3", "1", 98304},
    [PACK] = {"pack", bench_pack, "bf16;tq:k=4,v=4;tq:k=3,v=3;tq:k=2,v=2;block-gtq:k=3,v=3", "1",
              65536},
    [STEP] = {"step", bench_step, "tq:k=3,v=3", "1", 8192},
    [MERGE] = {"merge", bench_merge, "bf16", "1", 0},
};

#define KINDS "attention, prefill, pack, step, merge"

typedef struct settings { /* as given */
    const char *what, *shape, *kv, *threads, *paths, *device, *model, *fill;
    int32_t heads, kv_heads, head_dim, batch, queries, prefill_chunk, ranks;
    int64_t context; /* 0: the usual one */
    double seconds;  /* below 0: the usual ones */
    bool json;
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
    int64_t n = 0;
    if (o->n_threads == BENCH_MAX_COUNTS) {
        return BASE_FAIL(BASE_BAD_INPUT, "--threads names more than %d numbers", BENCH_MAX_COUNTS);
    }
    const base_status st = base_option_number("--threads", part, 1, KERN_MAX_THREADS, &n);
    if (st == BASE_OK) {
        o->threads[o->n_threads++] = (int32_t)n;
    }
    return st;
}

static base_status take_path(void *ctx, const char *part)
{
    bench_options *o = ((lists *)ctx)->o;
    for (cpu_isa isa = CPU_ISA_PLAIN; isa <= cpu_isa_of_machine(); isa++) {
        if (strcmp(part, cpu_isa_name(isa)) == 0 && o->n_paths < CPU_N_ISAS) {
            o->paths[o->n_paths++] = isa;
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT,
                     "--paths '%s', allowed plain, avx2, avx512 as far as this "
                     "machine has them, at most %d",
                     part, CPU_N_ISAS);
}

static base_status take_shape(const settings *s, bench_options *o)
{
    if (s->heads != 0 || s->kv_heads != 0 || s->head_dim != 0) {
        *o = (bench_options){.shape_name = "custom",
                             .n_heads = s->heads,
                             .n_kv_heads = s->kv_heads,
                             .head_dim = s->head_dim};
        if (s->shape != NULL || s->heads == 0 || s->kv_heads == 0 ||
            (s->head_dim != 64 && s->head_dim != 128)) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "--heads %d, --kv-heads %d, --head-dim %d: give all three (head dim "
                             "64 or 128) and no --shape",
                             s->heads, s->kv_heads, s->head_dim);
        }
        return BASE_OK;
    }
    size_t i = 0;
    while (s->shape != NULL && strcmp(shapes[i].name, s->shape) != 0) {
        i++; /* one of SHAPES it is */
    }
    *o = (bench_options){.shape_name = shapes[i].name,
                         .n_heads = shapes[i].n_heads,
                         .n_kv_heads = shapes[i].n_kv_heads,
                         .head_dim = shapes[i].head_dim};
    return BASE_OK;
}

/* CPU threads and paths: a GPU has one of each. */
static base_status take_cpu(const settings *s, kind what, lists *l)
{
    base_status st = BASE_OK;
    if (l->o->device == KERN_DEVICE_CUDA && (s->threads != NULL || s->paths != NULL)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "--threads and --paths are the CPU's, not --device cuda's");
    }
    const char *threads = l->o->device == KERN_DEVICE_CUDA ? "1" : kinds[what].threads;
    BASE_TRY(st, out, bench_list(s->threads != NULL ? s->threads : threads, ',', l, take_threads));
    const char *paths = s->paths != NULL ? s->paths : cpu_isa_name(cpu_isa_of_machine());
    st = bench_list(paths, ',', l, take_path);
out:
    return st;
}

static base_status options_of(settings *s, kind what, bench_options *o)
{
    base_status st = BASE_OK;
    lists l = {s, o};

    BASE_TRY(st, out, take_shape(s, o));
    const int32_t n_ranks = s->ranks != 0 ? s->ranks : what == MERGE ? MERGE_RANKS : 1;
    const bool threads = what != MERGE && n_ranks > 1; /* as which ranks compute on the CPU */
    BASE_TRY(st, out,
             kern_device_choose(s->device == NULL && threads ? "cpu" : s->device, &o->device));
    if (threads && o->device == KERN_DEVICE_CUDA) {
        st = BASE_FAIL(BASE_BAD_INPUT,
                       "--device cuda with %d ranks: ranks of a bench are threads on the CPU",
                       n_ranks);
        goto out;
    }
    o->n_ranks = n_ranks;
    o->context = s->context != 0 ? s->context : kinds[what].context;
    o->batch = s->batch;
    o->synthetic = s->fill != NULL ? strcmp(s->fill, "synthetic") == 0 : what != STEP;
    o->n_queries = what == PREFILL ? s->queries : 1;
    o->prefill_chunk = s->prefill_chunk;
    o->seconds = s->seconds >= 0.0                                ? s->seconds
                 : o->device == KERN_DEVICE_CUDA || what == MERGE ? 0.2
                                                                  : 10.0;
    o->model = s->model;
    BASE_TRY(st, out,
             bench_list(s->kv != NULL ? s->kv : kinds[what].policies, ';', &l, take_policy));
    BASE_TRY(st, out, take_cpu(s, what, &l));
    if (what != STEP && what != MERGE && !o->synthetic) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench %s fills pages with --fill synthetic",
                       kinds[what].name);
    } else if (what == STEP && (o->n_policies != 1 || o->n_threads != 1)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench step takes one policy and one number of threads");
    } else if (what == PACK && o->n_threads != 1) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench pack takes one number of threads");
    }
out:
    return st;
}

static double real_of(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

static void print_gpu(const json_t *root)
{
    if (real_of(root, "copy_gb_per_s") > 0.0) {
        (void)printf("%s: copy %.0f GB/s, read and written\n",
                     json_string_value(json_object_get(root, "gpu")),
                     real_of(root, "copy_gb_per_s"));
    }
}

static void print_attention(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    print_gpu(root);
    json_array_foreach(json_object_get(root, "read_bandwidth"), i, r)
    {
        (void)printf("reading memory, %.0f threads: %.1f GB/s\n", real_of(r, "threads"),
                     real_of(r, "gb_per_s"));
    }
    (void)printf("\n%s, %s, %.0f queries after %.0f x %.0f\n",
                 json_string_value(json_object_get(root, "bench")),
                 json_string_value(json_object_get(json_object_get(root, "shape"), "name")),
                 real_of(root, "queries"), real_of(root, "context"), real_of(root, "batch"));
    (void)printf("%-31s %-7s %7s %9s %11s %11s %11s %8s %8s %10s %8s %7s\n", "cache", "path",
                 "threads", "MB", "median us", "p10 us", "p90 us", "GB/s", "of read", "floor + us",
                 "TFLOP/s", "x bf16");
    json_array_foreach(json_object_get(root, "results"), i, r)
    {
        (void)printf(
            "%-31s %-7s %7.0f %9.1f %11.2f %11.2f %11.2f %8.2f %7.1f%% %10.2f %8.2f %7.2f\n",
            json_string_value(json_object_get(r, "policy")),
            json_string_value(json_object_get(r, "path")), real_of(r, "threads"),
            real_of(r, "bytes") * 1e-6, real_of(r, "median_us"), real_of(r, "p10_us"),
            real_of(r, "p90_us"), real_of(r, "gb_per_s"),
            100.0 * real_of(r, "share_of_read_bandwidth"), real_of(r, "us_over_floor"),
            real_of(r, "tflops"), real_of(r, "speed_against_bf16"));
    }
}

static void print_pack(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    print_gpu(root);
    (void)printf("%-31s %11s %9s %9s %11s %8s %13s\n", "cache", "median us", "MB in", "MB out",
                 "in GB/s", "of copy", "x copying in");
    json_array_foreach(json_object_get(root, "results"), i, r)
    {
        (void)printf("%-31s %11.2f %9.1f %9.1f %11.1f %7.1f%% %13.2f\n",
                     json_string_value(json_object_get(r, "policy")), real_of(r, "median_us"),
                     real_of(r, "input_bytes") * 1e-6, real_of(r, "page_bytes") * 1e-6,
                     real_of(r, "input_gb_per_s"), 100.0 * real_of(r, "share_of_copy_bandwidth"),
                     real_of(r, "speed_against_copying_input"));
    }
}

static void print_step(const json_t *root)
{
    size_t i = 0;
    size_t k = 0;
    const json_t *phase = NULL;
    const json_t *op = NULL;
    const json_t *gemm = json_object_get(root, "gemm");
    if (json_array_size(json_object_get(root, "memory")) > 0) {
        (void)printf("%9s %10s %10s %10s %10s  MB of a rank\n", "context", "weights", "pages",
                     "tails", "scratch");
    }
    json_array_foreach(json_object_get(root, "memory"), i, phase)
    {
        (void)printf("%9.0f %10.1f %10.1f %10.2f %10.2f\n", real_of(phase, "context"),
                     real_of(phase, "weight_bytes") * 1e-6, real_of(phase, "page_bytes") * 1e-6,
                     real_of(phase, "tail_bytes") * 1e-6, real_of(phase, "scratch_bytes") * 1e-6);
    }
    if (json_is_object(gemm)) {
        (void)printf(
            "\nGEMMs of a layer, %.0f rows, one thread: %.2f ms, the library alone %.2f ms: "
            "%.0f%% of its speed\n",
            real_of(gemm, "rows"), real_of(gemm, "layer_us") * 1e-3,
            real_of(gemm, "library_us") * 1e-3, 100.0 * real_of(gemm, "of_library"));
    }
    json_array_foreach(json_object_get(root, "phases"), i, phase)
    {
        (void)printf("\n%s: %.0f tokens in %.0f steps, %.1f ms, median step %.2f ms; work of all "
                     "ranks %.1f ms\n",
                     json_string_value(json_object_get(phase, "phase")), real_of(phase, "tokens"),
                     real_of(phase, "steps"), real_of(phase, "ms"),
                     real_of(phase, "median_step_ms"), real_of(phase, "busy_ms_of_all_ranks"));
        json_array_foreach(json_object_get(phase, "ops"), k, op)
        {
            if (real_of(op, "ms") > 0.0) { /* what was called, and timed */
                (void)printf("  %-10s %10.2f ms %6.1f%%\n",
                             json_string_value(json_object_get(op, "op")), real_of(op, "ms"),
                             100.0 * real_of(op, "share"));
            }
        }
    }
}

/* A line of the table ends where another transport, link or mode begins. */
static bool begins_line(const json_t *r, const json_t *last)
{
    static const char *const keys[] = {"transport", "what", "mode"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (last == NULL ||
            !json_equal(json_object_get(r, keys[i]), json_object_get(last, keys[i]))) {
            return true;
        }
    }
    return false;
}

static void print_merge(const json_t *root)
{
    const json_t *results = json_object_get(root, "results");
    const json_t *first = json_array_get(results, 0);
    const json_t *last = NULL;
    size_t i = 0;
    const json_t *r = NULL;
    (void)printf(
        "%.0f ranks on %.0f GPUs, chains of %.0f; us of a link, median / p99, largest of all "
        "ranks\n\n%-20s",
        real_of(root, "ranks"), real_of(root, "gpus"), real_of(root, "length"), "bytes");
    json_array_foreach(results, i, r)
    {
        if (i > 0 && begins_line(r, first)) {
            break;
        }
        (void)printf(" %15.0f", real_of(r, "bytes"));
    }
    json_array_foreach(results, i, r)
    {
        if (begins_line(r, last)) {
            (void)printf("\n%-6s %-7s %-5s", json_string_value(json_object_get(r, "transport")),
                         json_string_value(json_object_get(r, "what")),
                         json_string_value(json_object_get(r, "mode")));
        }
        (void)printf(" %7.2f/%7.2f", real_of(r, "p50_us"), real_of(r, "p99_us"));
        last = r;
    }
    (void)printf("\n");
    json_array_foreach(json_object_get(root, "absent"), i, r)
    {
        (void)printf("no %s: %s\n", json_string_value(json_object_get(r, "transport")),
                     json_string_value(json_object_get(r, "why")));
    }
}

static const base_option table[] = {
    {NULL, 0, "attention|prefill|pack|step|merge", "", BASE_OPTION_CHOICE(settings, what, KINDS),
     .needed = true},
    {"shape", 0, "NAME", SHAPES, BASE_OPTION_CHOICE(settings, shape, SHAPES)},
    {"heads", 0, "H", "query heads, instead of --shape", BASE_OPTION_I32(settings, heads, 1, 1024)},
    {"kv-heads", 0, "K", "KV heads", BASE_OPTION_I32(settings, kv_heads, 1, 256)},
    {"head-dim", 0, "D", "64 or 128", BASE_OPTION_I32(settings, head_dim, 64, 128)},
    {"context", 0, "N",
     "positions before the queries (attention 131072, prefill 98304), or to pack (65536), or of a "
     "prompt (step 8192)",
     BASE_OPTION_I64(settings, context, KERN_BLOCK_TOKENS, MAX_CONTEXT)},
    {"batch", 0, "B", "sequences of a call", BASE_OPTION_I32(settings, batch, 1, BENCH_MAX_BATCH)},
    {"queries", 0, "T", "prefill: of a sequence (32768)",
     BASE_OPTION_I32(settings, queries, 2, MAX_QUERIES)},
    {"fill", 0, "FILL",
     "synthetic pages of standard normal rows, or, step alone and as a rule, a prompt",
     BASE_OPTION_CHOICE(settings, fill, "prompt, synthetic")},
    {"kv", 0, "POLICY;..", "cache policies, side by side", BASE_OPTION_TEXT(settings, kv)},
    {"threads", 0, "1,2", "numbers of threads", BASE_OPTION_TEXT(settings, threads)},
    {"paths", 0, "PATH,..",
     "attention, prefill: code for plain, avx2, avx512 side by side (the best)",
     BASE_OPTION_TEXT(settings, paths)},
    {"ranks", 0, "N", "step: ranks, as threads (1); merge: as processes (2)",
     BASE_OPTION_I32(settings, ranks, 1, BENCH_MAX_RANKS)},
    {"model", 0, "DIR", "step: model folder", BASE_OPTION_TEXT(settings, model)},
    {"prefill-chunk", 0, "C", "step: tokens of a chunk",
     BASE_OPTION_I32(settings, prefill_chunk, 1, MAX_CHUNK)},
    {"seconds", 0, "S", "attention, prefill: how long to measure; merge: each line",
     BASE_OPTION_REAL(settings, seconds, 0, 600)},
    {"device", 0, "DEVICE", "cpu or cuda (a GPU if there is one)",
     BASE_OPTION_CHOICE(settings, device, "cpu, cuda")},
    {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(settings, json)},
};
static const base_command command = {
    "ropewalk bench", "attention|prefill|pack|step|merge [options]", BASE_OPTIONS(table)};

int command_bench(int argc, const char **argv)
{
    settings s = {.batch = 1,
                  .queries = 32768,
                  .prefill_chunk = 512,
                  .seconds = -1.0,
                  .model = "models/demo"};
    bench_options o;
    json_t *root = NULL;
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;

    if (!options_open(&command, argc, argv, &s, &line, &exit_status)) {
        goto out;
    }
    kind what = ATTENTION;
    while (strcmp(kinds[what].name, s.what) != 0) {
        what++; /* one of KINDS it is */
    }
    BASE_TRY(st, out, options_of(&s, what, &o));
    BASE_TRY(st, out, kinds[what].run(&o, &base_heap, &root));
    if (s.json) {
        (void)json_dumpf(root, stdout, JSON_REAL_PRECISION(9));
        (void)printf("\n");
    } else if (what == STEP) {
        print_step(root);
    } else if (what == MERGE) {
        print_merge(root);
    } else if (what == PACK) {
        print_pack(root);
    } else {
        print_attention(root);
    }
out:
    json_decref(root);
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    base_options_reset(&line);
    return exit_status;
}
