#include "kernels/comm/comm_merge.h"
#include "kernels/kern.h"
#include "kernels/page.h"
#include "launch/bench.h"
#include "launch/bench_print.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "worker/bench/chunks.h"

#include <stdio.h>
#include <string.h>

#define MAX_QUERIES (1 << 16)
#define MERGE_RANKS 2

static const struct {
    const char *name;
    int32_t n_heads, n_kv_heads, head_dim;
} shapes[] = {{"llama-8b", 32, 8, 128}, {"qwen-3b", 16, 2, 128}, {"demo", 4, 2, 128}};

#define SHAPES "llama-8b, qwen-3b, demo"

typedef enum kind { ATTENTION, PREFILL, PACK, STEP, MERGE, SCALE, N_KINDS } kind;

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
    [SCALE] = {"scale", bench_scale, "bf16;tq:k=4,v=4;tq:k=3,v=3;kivi:k=2,v=2", "1", 0},
};

#define KINDS   "attention, prefill, pack, step, merge, scale"
#define USAGE   "attention|prefill|pack|step|merge|scale"
#define LENGTHS "128K,256K,512K,1M,2M,4M,8M"

typedef struct settings { /* as given */
    const char *what, *shape, *kv, *threads, *paths, *device, *model, *fill, *contexts, *merge,
        *weights;
    int32_t heads, kv_heads, head_dim, batch, queries, prefill_chunk, ranks;
    int64_t context; /* 0: the usual one */
    double seconds;  /* below 0: the usual ones */
    bool json, share_gpu, prefill, whole, parts;
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
    const bool processes = what == MERGE || what == SCALE;
    const int32_t n_ranks = s->ranks != 0 ? s->ranks : what == MERGE ? MERGE_RANKS : 1;
    const bool threads = !processes && n_ranks > 1; /* as which ranks compute on the CPU */
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
    o->wished_device = s->device;
    o->merge = s->merge;
    o->weights = s->weights;
    o->share_gpu = s->share_gpu;
    o->prefill = s->prefill;
    o->whole = s->whole;
    o->parts = s->parts;
    BASE_TRY(st, out,
             options_lengths("--contexts", s->contexts, KERN_BLOCK_TOKENS, BENCH_MAX_CONTEXT,
                             o->contexts, BENCH_MAX_CONTEXTS, &o->n_contexts));
    BASE_TRY(st, out,
             bench_list(s->kv != NULL ? s->kv : kinds[what].policies, ';', &l, take_policy));
    BASE_TRY(st, out, take_cpu(s, what, &l));
    if (what != STEP && what != MERGE && !o->synthetic) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench %s fills pages with --fill synthetic",
                       kinds[what].name);
    } else if (what == STEP && (o->n_policies != 1 || o->n_threads != 1)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench step takes one policy and one number of threads");
    } else if ((what == PACK || what == SCALE) && o->n_threads != 1) {
        st = BASE_FAIL(BASE_BAD_INPUT, "bench %s takes one number of threads", kinds[what].name);
    } else if (s->prefill && what != SCALE) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--prefill is bench scale's, not bench %s's",
                       kinds[what].name);
    } else if (!s->prefill && (s->whole || s->parts)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--%s is of bench scale --prefill",
                       s->whole ? "whole" : "parts");
    } else if (s->prefill) {
        st = bench_chunks_check(s->prefill_chunk);
    }
out:
    return st;
}

static const base_option table[] = {
    {NULL, 0, USAGE, "", BASE_OPTION_CHOICE(settings, what, KINDS), .needed = true},
    {"shape", 0, "NAME", SHAPES, BASE_OPTION_CHOICE(settings, shape, SHAPES)},
    {"heads", 0, "H", "query heads, instead of --shape", BASE_OPTION_I32(settings, heads, 1, 1024)},
    {"kv-heads", 0, "K", "KV heads", BASE_OPTION_I32(settings, kv_heads, 1, 256)},
    {"head-dim", 0, "D", "64 or 128", BASE_OPTION_I32(settings, head_dim, 64, 128)},
    {"context", 0, "N",
     "positions before the queries (attention 131072, prefill 98304), or to pack (65536), or of a "
     "prompt (step 8192)",
     BASE_OPTION_I64(settings, context, KERN_BLOCK_TOKENS, BENCH_MAX_CONTEXT)},
    {"contexts", 0, "N,..", "scale: positions of a sequence, as 128K or 1M",
     BASE_OPTION_TEXT(settings, contexts)},
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
    {"ranks", 0, "N", "step: ranks, as threads (1); merge (2) and scale (1): as processes",
     BASE_OPTION_I32(settings, ranks, 1, BENCH_MAX_RANKS)},
    {"merge", 0, "TRANSPORT", "scale: how ranks exchange partials (what the device has)",
     BASE_OPTION_CHOICE(settings, merge, COMM_MERGE_CHOICES)},
    {"weights", 0, "HOW", "scale: replicated, or split over the ranks",
     BASE_OPTION_CHOICE(settings, weights, "auto, replicated, split")},
    {"share-gpu", 0, NULL, "scale: ranks may share a GPU, for tests: times say nothing",
     BASE_OPTION_FLAG(settings, share_gpu)},
    {"model", 0, "DIR", "step, scale: model folder", BASE_OPTION_TEXT(settings, model)},
    {"prefill", 0, NULL, "scale: prompts of as many positions, too",
     BASE_OPTION_FLAG(settings, prefill)},
    {"whole", 0, NULL, "with --prefill: all chunks of a prompt, too",
     BASE_OPTION_FLAG(settings, whole)},
    {"parts", 0, NULL, "with --prefill: op by op, too", BASE_OPTION_FLAG(settings, parts)},
    {"prefill-chunk", 0, "C", "step, scale: tokens of a chunk of a prompt",
     BASE_OPTION_I32(settings, prefill_chunk, 1, BENCH_MAX_CHUNK)},
    {"seconds", 0, "S", "attention, prefill: how long to measure; merge: each line",
     BASE_OPTION_REAL(settings, seconds, 0, 600)},
    {"device", 0, "DEVICE", "cpu or cuda (a GPU if there is one)",
     BASE_OPTION_CHOICE(settings, device, "cpu, cuda")},
    {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(settings, json)},
};
static const base_command command = {"ropewalk bench", USAGE " [options]", BASE_OPTIONS(table)};

int command_bench(int argc, const char **argv)
{
    settings s = {.batch = 1,
                  .queries = 32768,
                  .prefill_chunk = 512,
                  .seconds = -1.0,
                  .model = "models/demo",
                  .contexts = LENGTHS,
                  .weights = "replicated"};
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
    } else {
        bench_print(root);
    }
out:
    json_decref(root);
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    base_options_reset(&line);
    return exit_status;
}
