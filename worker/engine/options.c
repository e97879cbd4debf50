#include "worker/engine/options.h"

#include "kernels/comm/comm_merge.h"
#include "kernels/kern.h"
#include "kvshard/pool.h"
#include "proto/rpc_address.h"
#include "worker/engine/engine.h"
#include "worker/engine/plan.h"

#define CPU_CHUNK 512
#define GPU_CHUNK 4096

static const base_option table[] = {
    {"coordinator", 0, "HOST:PORT", "where the coordinator takes groups; unix:PATH too",
     BASE_OPTION_TEXT(worker_options, coordinator), .needed = true},
    {"model", 0, "DIR",
     "folder with config.json and model.safetensors, or random:SHAPE[:SEED], SHAPE tiny, "
     "qwen2.5-3b, qwen3-8b, llama-3.1-8b or llama-3.1-70b",
     BASE_OPTION_TEXT(worker_options, model), .needed = true},
    {"rope-scaling", 0, "JSON|none", "instead of config.json's rope_scaling",
     BASE_OPTION_TEXT(worker_options, rope_scaling)},
    {"kv", 0, "POLICY",
     "how the cache is stored: bf16, or tq:k=BITS,v=BITS with 2..8 or 16 bits, or "
     "block-gtq:k=BITS,v=BITS[,calib=FILE], or kivi:k=BITS,v=BITS,g=GROUP,w=WINDOW,s=SINKS",
     BASE_OPTION_TEXT(worker_options, policy_text)},
    {"device", 0, "DEVICE", "where ops run: cpu or cuda (GPUs where each rank has one for itself)",
     BASE_OPTION_CHOICE(worker_options, device, "cpu, cuda")},
    {"merge", 0, "TRANSPORT",
     "how ranks exchange partials: mpi on CPUs; nccl-ag, nccl-ar or lsa on GPUs; nccl-a2a if "
     "split; "
     "auto: lsa where each rank has a GPU of one host, else NCCL",
     BASE_OPTION_CHOICE(worker_options, merge, COMM_MERGE_CHOICES)},
    {"weights", 0, "LAYOUT",
     "replicated: all on each rank, or split: heads, MLP and vocabulary shared out to the ranks; "
     "auto: split where all do not fit",
     BASE_OPTION_CHOICE(worker_options, weights, "auto, replicated, split")},
    {"share-gpu", 0, NULL, "ranks may share a GPU and talk over loopback: slow, for tests",
     BASE_OPTION_FLAG(worker_options, share_gpu)},
    {"threads", 0, "N", "per rank (cores / ranks of the host)",
     BASE_OPTION_I32(worker_options, n_threads, 1, KERN_MAX_THREADS)},
    {"max-batch", 0, "N", "sequences at once",
     BASE_OPTION_I32(worker_options, max_batch, 1, PLAN_MAX_SEQS)},
    {"max-context", 0, "N", "tokens of one sequence (what model and memory allow)",
     BASE_OPTION_I64(worker_options, max_context, 2, (int64_t)KV_MAX_PAGES *KERN_BLOCK_TOKENS)},
    {"prefill-chunk", 0, "N",
     "prompt tokens in a step, a multiple of 128 (512; 4096 on GPUs); fewer where a step would "
     "take more than 250 ms",
     BASE_OPTION_I32(worker_options, prefill_chunk, KERN_BLOCK_TOKENS, ENGINE_MAX_PREFILL_CHUNK)},
    {"pages", 0, "N", "blocks of 128 tokens that each rank holds",
     BASE_OPTION_I32(worker_options, n_pages, 1, KV_MAX_PAGES)},
    {"kv-memory-fraction", 0, "F",
     "of the free memory, for all ranks of the host (0.3; 0.9 of a GPU's)",
     BASE_OPTION_REAL_ABOVE(worker_options, kv_memory_fraction, 0, 1)},
    {"log-level", 0, "LEVEL", "error, warn, info or debug",
     BASE_OPTION_CHOICE(worker_options, log_level_text, "error, warn, info, debug")},
};
static const base_command command = {
    "ropewalk-worker",
    "--coordinator HOST:PORT --model DIR [options]\n\n"
    "One rank of a group, started by mpirun -n RANKS. The context of every sequence is spread\n"
    "over the ranks; rank 0 dials the coordinator and dials again when the line is lost.\n",
    BASE_OPTIONS(table)};

void worker_options_settle(worker_options *options, kern_device device)
{
    if (options->prefill_chunk == 0) {
        options->prefill_chunk = device == KERN_DEVICE_CUDA ? GPU_CHUNK : CPU_CHUNK;
    }
}

void worker_options_help(const worker_options *from, FILE *out)
{
    base_options_help(&command, from, out);
}

base_status worker_options_parse(int argc, const char *const *argv, const base_alloc *mem,
                                 base_options *line_out, worker_options *options_out)
{
    base_status st = BASE_OK;
    worker_options o = {.max_batch = 8,
                        .policy_text = "bf16",
                        .merge = "auto",
                        .weights = "auto",
                        .log_level_text = "info"};
    rpc_address address;

    BASE_TRY(st, out, base_options_read(&command, argc, argv, mem, &o, line_out));
    if (!line_out->help) {
        BASE_TRY(st, out, rpc_address_parse(o.coordinator, &address));
        BASE_TRY(st, out, kv_policy_parse(o.policy_text, &o.policy));
        BASE_TRY(st, out, base_log_level_parse(o.log_level_text, &o.log_level));
    }
    if (o.prefill_chunk % KERN_BLOCK_TOKENS != 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--prefill-chunk is %d, allowed are multiples of %d",
                       o.prefill_chunk, KERN_BLOCK_TOKENS);
        goto out;
    }
    *options_out = o;
out:
    return st;
}
