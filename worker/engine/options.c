#include "worker/engine/options.h"

#include "base/alloc.h"
#include "kernels/kern.h"
#include "kvshard/pool.h"
#include "proto/rpc_address.h"
#include "worker/engine/engine.h"
#include "worker/engine/plan.h"

#include <errno.h>
#include <math.h>
#include <popt.h>
#include <stdlib.h>
#include <string.h>

typedef enum option_id {
    OPTION_COORDINATOR = 1,
    OPTION_MODEL,
    OPTION_ROPE_SCALING,
    OPTION_KV,
    OPTION_THREADS,
    OPTION_MAX_BATCH,
    OPTION_MAX_CONTEXT,
    OPTION_PREFILL_CHUNK,
    OPTION_PAGES,
    OPTION_KV_MEMORY_FRACTION,
    OPTION_LOG_LEVEL,
    OPTION_HELP,
} option_id;

static const struct poptOption table[] = {
    {"coordinator", 0, POPT_ARG_STRING, NULL, OPTION_COORDINATOR, NULL, NULL},
    {"model", 0, POPT_ARG_STRING, NULL, OPTION_MODEL, NULL, NULL},
    {"rope-scaling", 0, POPT_ARG_STRING, NULL, OPTION_ROPE_SCALING, NULL, NULL},
    {"kv", 0, POPT_ARG_STRING, NULL, OPTION_KV, NULL, NULL},
    {"threads", 0, POPT_ARG_STRING, NULL, OPTION_THREADS, NULL, NULL},
    {"max-batch", 0, POPT_ARG_STRING, NULL, OPTION_MAX_BATCH, NULL, NULL},
    {"max-context", 0, POPT_ARG_STRING, NULL, OPTION_MAX_CONTEXT, NULL, NULL},
    {"prefill-chunk", 0, POPT_ARG_STRING, NULL, OPTION_PREFILL_CHUNK, NULL, NULL},
    {"pages", 0, POPT_ARG_STRING, NULL, OPTION_PAGES, NULL, NULL},
    {"kv-memory-fraction", 0, POPT_ARG_STRING, NULL, OPTION_KV_MEMORY_FRACTION, NULL, NULL},
    {"log-level", 0, POPT_ARG_STRING, NULL, OPTION_LOG_LEVEL, NULL, NULL},
    {"help", 'h', POPT_ARG_NONE, NULL, OPTION_HELP, NULL, NULL},
    POPT_TABLEEND,
};

const char *worker_options_help(void)
{
    return "usage: mpirun -n RANKS ropewalk-worker --coordinator HOST:PORT --model DIR [options]\n"
           "\n"
           "One rank of a group. The context of every sequence is spread over the ranks; rank 0\n"
           "dials the coordinator and dials again when the line is lost.\n"
           "\n"
           "  --coordinator HOST:PORT    where the coordinator takes groups; unix:PATH too\n"
           "  --model DIR                folder with config.json and model.safetensors, or\n"
           "                             random:SHAPE[:SEED], SHAPE tiny, qwen2.5-3b, qwen3-8b,\n"
           "                             llama-3.1-8b or llama-3.1-70b\n"
           "  --rope-scaling JSON|none   instead of config.json's rope_scaling\n"
           "  --kv POLICY                how the cache is stored (bf16):\n"
           "                             bf16, or tq:k=BITS,v=BITS with 2..8 or 16 bits,\n"
           "                             or block-gtq:k=BITS,v=BITS[,calib=FILE]\n"
           "  --threads N                per rank, 1..256 (cores / ranks of the host)\n"
           "  --max-batch N              sequences at once, 1..1024 (8)\n"
           "  --max-context N            tokens of one sequence (what model and memory allow)\n"
           "  --prefill-chunk N          prompt tokens in a step, a multiple of 128 (512)\n"
           "  --pages N                  blocks of 128 tokens that each rank holds\n"
           "  --kv-memory-fraction F     of the free memory, for all ranks of the host (0.3)\n"
           "  --log-level LEVEL          error, warn, info or debug (info)\n"
           "  -h, --help                 this text\n";
}

static base_status read_int(const char *option, const char *text, int64_t low, int64_t high,
                            int64_t *out)
{
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < low || value > high) {
        return BASE_FAIL(BASE_BAD_INPUT, "--%s '%s', allowed %lld..%lld", option, text,
                         (long long)low, (long long)high);
    }
    *out = value;
    return BASE_OK;
}

static base_status read_i32(const char *option, const char *text, int32_t low, int32_t high,
                            int32_t *out)
{
    int64_t value = 0;
    const base_status st = read_int(option, text, low, high, &value);
    if (st == BASE_OK) {
        *out = (int32_t)value;
    }
    return st;
}

static base_status read_fraction(const char *option, const char *text, double *out)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0.0 && value <= 1.0)) {
        return BASE_FAIL(BASE_BAD_INPUT, "--%s '%s', allowed above 0, up to 1", option, text);
    }
    *out = value;
    return BASE_OK;
}

static base_status read_text(const char *option, const char *text, char *out)
{
    const size_t n_bytes = strlen(text);
    if (n_bytes == 0 || n_bytes >= WORKER_MAX_PATH_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "--%s of %zu bytes, allowed 1..%d", option, n_bytes,
                         WORKER_MAX_PATH_BYTES - 1);
    }
    memcpy(out, text, n_bytes + 1);
    return BASE_OK;
}

static base_status read_chunk(const char *text, int32_t *out)
{
    int32_t value = 0;
    const base_status st =
        read_i32("prefill-chunk", text, KERN_BLOCK_TOKENS, ENGINE_MAX_PREFILL_CHUNK, &value);
    if (st != BASE_OK) {
        return st;
    }
    if (value % KERN_BLOCK_TOKENS != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "--prefill-chunk %d, allowed are multiples of %d", value,
                         KERN_BLOCK_TOKENS);
    }
    *out = value;
    return BASE_OK;
}

static base_status read_address(const char *text, char *out)
{
    rpc_address address;
    const base_status st = rpc_address_parse(text, &address);
    return st == BASE_OK ? read_text("coordinator", text, out) : st;
}

static base_status read_policy(const char *text, worker_options *o)
{
    const base_status st = kv_policy_parse(text, &o->policy);
    return st == BASE_OK ? read_text("kv", text, o->policy_text) : st;
}

static base_status take_option(option_id id, const char *text, worker_options *o)
{
    switch (id) {
    case OPTION_COORDINATOR: return read_address(text, o->coordinator);
    case OPTION_MODEL: return read_text("model", text, o->model);
    case OPTION_ROPE_SCALING: return read_text("rope-scaling", text, o->rope_scaling);
    case OPTION_KV: return read_policy(text, o);
    case OPTION_THREADS: return read_i32("threads", text, 1, KERN_MAX_THREADS, &o->n_threads);
    case OPTION_MAX_BATCH: return read_i32("max-batch", text, 1, PLAN_MAX_SEQS, &o->max_batch);
    case OPTION_MAX_CONTEXT:
        return read_int("max-context", text, 2, (int64_t)KV_MAX_PAGES * KERN_BLOCK_TOKENS,
                        &o->max_context);
    case OPTION_PREFILL_CHUNK: return read_chunk(text, &o->prefill_chunk);
    case OPTION_PAGES: return read_i32("pages", text, 1, KV_MAX_PAGES, &o->n_pages);
    case OPTION_KV_MEMORY_FRACTION:
        return read_fraction("kv-memory-fraction", text, &o->kv_memory_fraction);
    case OPTION_LOG_LEVEL: return base_log_level_parse(text, &o->log_level);
    case OPTION_HELP: o->help = true; break;
    }
    return BASE_OK;
}

static base_status take_all(poptContext popt, worker_options *o)
{
    base_status st = BASE_OK;
    int id;

    while ((id = poptGetNextOpt(popt)) > 0 && !o->help) {
        char *text = poptGetOptArg(popt);
        st = take_option((option_id)id, text == NULL ? "" : text, o);
        base_heap.put(base_heap.ctx, text); /* popt took it from malloc */
        if (st != BASE_OK) {
            return st;
        }
    }
    if (o->help) {
        return BASE_OK;
    }
    if (id < -1) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: %s", poptBadOption(popt, POPT_BADOPTION_NOALIAS),
                         poptStrerror(id));
    }
    if (poptPeekArg(popt) != NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: options start with --", poptPeekArg(popt));
    }
    if (o->coordinator[0] == '\0' || o->model[0] == '\0') {
        return BASE_FAIL(BASE_BAD_INPUT, "--%s is missing",
                         o->coordinator[0] == '\0' ? "coordinator" : "model");
    }
    return BASE_OK;
}

base_status worker_options_parse(int argc, const char **argv, worker_options *options_out)
{
    base_status st = BASE_OK;
    worker_options o = {.max_batch = 8,
                        .prefill_chunk = 512,
                        .policy_text = "bf16",
                        .kv_memory_fraction = 0.3,
                        .log_level = BASE_LOG_INFO};
    poptContext popt = NULL;

    BASE_TRY(st, out, kv_policy_parse("bf16", &o.policy));
    popt = poptGetContext("ropewalk-worker", argc, argv, table, 0);
    if (popt == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "command line");
        goto out;
    }
    BASE_TRY(st, out, take_all(popt, &o));
    *options_out = o;

out:
    if (popt != NULL) {
        poptFreeContext(popt);
    }
    return st;
}
