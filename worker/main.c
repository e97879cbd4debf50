/* ropewalk-worker: one rank of a group.  Boot, step loop, exit code. */
#include "base/log.h"
#include "kernels/comm/comm_lsa.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/cpu/cpu_library.h"
#include "kernels/device.h"
#include "kvshard/calibration.h"
#include "proto/rpc.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/host.h"
#include "worker/boot/seats.h"
#include "worker/boot/sizes.h"
#include "worker/boot/watchman.h"
#include "worker/engine/attach.h"
#include "worker/engine/engine.h"
#include "worker/engine/options.h"
#include "worker/engine/plan.h"
#include "worker/model/resident.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define EXIT_USAGE       2
#define FAREWELL_SECONDS 3

static volatile sig_atomic_t stop_wanted;

static void on_stop_signal(int signal_number)
{
    (void)signal_number;
    stop_wanted = 1;
}

typedef struct rank {
    boot_world world;
    comm *ranks;   /* over the host's memory */
    comm *tensors; /* the same, or over the GPUs' */
    model *model;
    kv_calibration *calibration; /* NULL: the policy needs none */
    kv_format *format;
    seat_plan seat;
    kern_ctx *ctx;
    engine *engine;
    watchman *watchman; /* NULL: nothing that could hang without a deadline */
    engine_options sizes;
} rank;

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN; /* a lost peer is a return value */
    (void)sigaction(SIGPIPE, &action, NULL);
}

/* What else must be equal on all ranks. */
static base_status hash_sizes(const engine_options *sizes, base_hash *hash_out)
{
    base_hasher *hasher = NULL;
    const base_status st = base_hasher_create(&hasher);
    if (st == BASE_OK) {
        base_hasher_add_u64(hasher, (uint64_t)sizes->max_batch);
        base_hasher_add_u64(hasher, (uint64_t)sizes->prefill_chunk);
        base_hasher_add_u64(hasher, (uint64_t)sizes->max_context);
        base_hasher_add_u64(hasher, (uint64_t)sizes->n_ahead);
        *hash_out = base_hasher_end(hasher);
    }
    return st;
}

/* Bytes for pages, tails and scratch: a share of what the host has free, or the GPU beside the weights. */
static base_status choose_memory(const rank *r, const worker_options *options, int64_t *n_bytes_out)
{
    base_status st = BASE_OK;
    kern_gpu gpu;
    int64_t n_bytes = 0;
    double fraction = options->kv_memory_fraction;

    const bool on_gpu = r->seat.device == KERN_DEVICE_CUDA;
    const int32_t n_sharing = on_gpu ? r->seat.n_sharing : r->world.n_local;
    if (on_gpu) {
        BASE_TRY(st, out, kern_gpu_describe(r->seat.gpu, &gpu));
        n_bytes = gpu.free_bytes - n_sharing * resident_bytes(r->model);
        fraction = fraction == 0.0 ? SIZES_GPU_FRACTION : fraction;
    } else {
        BASE_TRY(st, out, host_memory_available(&n_bytes));
        fraction = fraction == 0.0 ? SIZES_HOST_FRACTION : fraction;
    }
    *n_bytes_out = (int64_t)((double)n_bytes * fraction / n_sharing);

out:
    return st;
}

static base_status choose_sizes(rank *r, const worker_options *options)
{
    base_status st = BASE_OK;
    int64_t memory_bytes = 0;
    int64_t least = 0;
    int32_t n_pages = 0;
    base_hash hash;

    BASE_TRY(st, out, choose_memory(r, options, &memory_bytes));
    BASE_TRY(st, out,
             sizes_pages(options, &r->model->config, &r->model->split, r->format, r->world.n_ranks,
                         memory_bytes, &n_pages));
    BASE_TRY(st, out, boot_least(r->ranks, n_pages, &least));
    BASE_TRY(st, out,
             sizes_engine(options, &r->model->config, r->world.n_ranks, (int32_t)least, &r->sizes));
    r->sizes.n_ahead = r->seat.device == KERN_DEVICE_CUDA;
    BASE_TRY(st, out, hash_sizes(&r->sizes, &hash));
    BASE_TRY(st, out, boot_compare(r->ranks, "command line", hash));

out:
    return st;
}

/* The one-shot exchange in front of what there is, where all ranks reach each other's memory. */
static base_status add_lsa(rank *r)
{
    const comm_lsa_options options = {.host = r->ranks,
                                      .ctx = r->ctx,
                                      .tensors = r->tensors,
                                      .head_dim = r->model->config.head_dim,
                                      .max_rows = COMM_LSA_MAX_ROWS,
                                      .max_words = PLAN_MAX_SEQS,
                                      .limit_ms = ENGINE_STEP_MS};
    const base_status st = comm_lsa_create(&options, &base_heap, &r->tensors);
    if (st == BASE_UNAVAILABLE) {
        BASE_WARN("--merge lsa, but exchange by %s: %s", comm_name(r->tensors), base_last_error());
        return BASE_OK;
    }
    return st;
}

/* lsa has behind it what the weights would have without it. */
static comm_nccl_way way_of(const seat_plan *plan)
{
    return strcmp(plan->merge, "nccl-ar") == 0 ? COMM_NCCL_AR
           : plan->splits                      ? COMM_NCCL_A2A
                                               : COMM_NCCL_AG;
}

/* Of the kind that the seats decided. */
static base_status make_context(rank *r, int32_t n_threads, const worker_options *options)
{
    base_status st = BASE_OK;
    const bool on_gpu = r->seat.device == KERN_DEVICE_CUDA;

    BASE_TRY(st, out,
             on_gpu ? kern_ctx_create_cuda(r->seat.gpu, &base_heap, &r->ctx)
                    : kern_ctx_create_cpu(n_threads, &base_heap, &r->ctx));
    if (on_gpu && r->world.n_ranks > 1) {
        const comm_nccl_options nccl = {.host = r->ranks,
                                        .ctx = r->ctx,
                                        .who = r->seat.who,
                                        .way = way_of(&r->seat),
                                        .shared_gpu = options->share_gpu};
        BASE_TRY(st, out, comm_nccl_create(&nccl, &base_heap, &r->tensors));
        if (strcmp(r->seat.merge, "lsa") == 0) {
            st = add_lsa(r);
        }
    } else {
        r->tensors = r->ranks;
    }
out:
    return st;
}

static base_status make_rank(rank *r, const worker_options *options)
{
    base_status st = BASE_OK;
    const int32_t n_threads =
        options->n_threads > 0 ? options->n_threads : host_threads(r->world.n_local);
    const seat_wishes wishes = {options->device, options->merge, options->share_gpu,
                                strcmp(options->weights, "split") == 0};

    BASE_TRY(st, out,
             r->world.n_ranks == 1 ? comm_self_create(&base_heap, &r->ranks)
                                   : comm_mpi_create(&base_heap, &r->ranks));
    BASE_TRY(st, out, seats_agree(r->ranks, &r->world, &wishes, &r->seat));
    const model_options parts = {.rope_text = base_view_of(options->rope_scaling),
                                 .rank = r->seat.splits ? r->world.rank : 0,
                                 .n_ranks = r->seat.splits ? r->world.n_ranks : 1};
    BASE_TRY(st, out, model_open_with(options->model, &parts, &base_heap, &r->model));
    BASE_TRY(st, out, boot_compare(r->ranks, "model", r->model->hash));
    const model_config *c = &r->model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    BASE_TRY(st, out,
             kv_calibration_open(options->policy_text, options->model, r->model->hash, &shape,
                                 &base_heap, &r->calibration));
    BASE_TRY(st, out,
             kv_format_create_calibrated(&options->policy, &shape, r->calibration, &base_heap,
                                         &r->format));
    BASE_TRY(st, out, boot_compare(r->ranks, "kv policy", r->format->policy_hash));
    BASE_TRY(st, out, make_context(r, n_threads, options));
    BASE_TRY(st, out, choose_sizes(r, options));
    const engine_comms comms = {.plans = r->ranks, .tensors = r->tensors};
    BASE_TRY(st, out,
             engine_create(r->model, r->format, r->ctx, &comms, &r->sizes, &base_heap, &r->engine));
    BASE_INFO("ready: %s, %lld MB of weights%s, %s, %s, exchange by %s, %d threads, %d pages of "
              "%lld bytes, %d sequences of %lld tokens",
              r->model->name, (long long)(resident_bytes(r->model) >> 20),
              model_is_split(&r->model->split) ? ", split" : "", kern_device_name(r->seat.device),
              r->seat.who, comm_name(r->tensors), n_threads, r->sizes.n_pages,
              (long long)r->format->page_bytes, r->sizes.max_batch,
              (long long)r->sizes.max_context);

out:
    return st;
}

static void end_rank(rank *r)
{
    watchman_stop(r->watchman);
    engine_destroy(r->engine);
    if (r->tensors != r->ranks) {
        comm_destroy(r->tensors);
    }
    kern_ctx_destroy(r->ctx);
    kv_format_destroy(r->format);
    kv_calibration_destroy(r->calibration);
    model_close(r->model);
    comm_destroy(r->ranks);
}

static base_status attach_rank(const rank *r, const char *coordinator, attach **attach_out)
{
    const model_config *c = &r->model->config;
    char model_hash[BASE_HASH_TEXT_BYTES];
    char policy_hash[BASE_HASH_TEXT_BYTES];
    char policy[KV_MAX_POLICY_TEXT];
    int64_t blocks[GROUP_MAX_RANKS];
    base_hash tokenizer;
    base_hasher *hasher = NULL;

    base_status st = base_hasher_create(&hasher);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add(hasher, r->model->tokenizer_json.data, r->model->tokenizer_json.n_bytes);
    tokenizer = base_hasher_end(hasher);
    base_hash_text(r->model->hash, model_hash);
    base_hash_text(r->format->policy_hash, policy_hash);
    kv_policy_text(&r->format->policy, policy);
    for (int32_t i = 0; i < r->world.n_ranks; i++) {
        blocks[i] = r->sizes.n_pages;
    }
    const group_hello hello = {
        .protocol = GROUP_PROTOCOL,
        .page_format = KV_PAGE_FORMAT_VERSION,
        .build = base_view_of(ROPEWALK_BUILD),
        .model = base_view_of(r->model->name),
        .model_hash = base_view_of(model_hash),
        .policy = base_view_of(policy),
        .policy_hash = base_view_of(policy_hash),
        .ranks = r->world.n_ranks,
        .max_context = r->sizes.max_context,
        .max_batch = r->sizes.max_batch,
        .vocab_size = c->n_vocab,
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .k_bits_per_element = r->format->k_bits_per_element,
        .v_bits_per_element = r->format->v_bits_per_element,
        .bytes_per_token = llround(kv_format_bytes_per_token(r->format)),
        .bytes_per_page = r->format->page_bytes,
        .blocks_total_per_rank = blocks,
        .tokenizer_json = r->model->tokenizer_json,
        .tokenizer_sha256 = {(const char *)tokenizer.bytes, sizeof tokenizer.bytes},
        .generation_config_json = r->model->generation_config_json,
        .eos_ids = c->eos_ids,
        .n_eos_ids = (size_t)c->n_eos_ids,
    };
    return attach_create(coordinator, &hello, &base_heap, attach_out);
}

/* gRPC starts here, on rank 0 only: after MPI, and nothing forks later. */
static base_status run_rank_0(const rank *r, const char *coordinator)
{
    base_status st = BASE_OK;
    attach *a = NULL;

    rpc_init();
    BASE_TRY(st, out, attach_rank(r, coordinator, &a));
    const engine_io io = attach_io(a);
    BASE_TRY(st, out, engine_run(r->engine, &io, &stop_wanted));

out:
    if (base_status_scope(st) != BASE_SCOPE_WORLD) {
        attach_destroy(a);
        rpc_shutdown();
    }
    return st;
}

static void give_up(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_FAILURE);
}

/* The job cannot go on.  Neither MPI nor a stuck stream may hold us: mpirun ends the other ranks.  What the GPU still
 * runs is told to stop, which may hang too, so only for so long. */
static _Noreturn void leave(rank *r, base_status st)
{
    static atomic_flag leaving = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&leaving)) {
        (void)pause(); /* another thread does it */
    }
    BASE_ERROR("leaving: %s (%s)%s%s", base_status_text(st), base_last_error(),
               r->seat.who[0] == '\0' ? "" : ", ", r->seat.who);
    if (r->tensors != NULL) {
        const struct itimerval limit = {.it_value = {.tv_usec = ENGINE_ABORT_MS * 1000L}};
        const struct sigaction action = {.sa_handler = give_up};
        (void)sigaction(SIGALRM, &action, NULL);
        (void)setitimer(ITIMER_REAL, &limit, NULL);
        comm_abort(r->tensors);
    }
    _exit(EXIT_FAILURE);
}

/* ---- what the watchman asks ---- */

static int64_t rank_due_us(void *ctx)
{
    return engine_due_us(((rank *)ctx)->engine);
}

static base_status rank_look(void *ctx)
{
    return comm_look(((rank *)ctx)->tensors);
}

static void rank_leave(void *ctx)
{
    leave(ctx, BASE_PEER_LOST);
}

static base_status run_rank(rank *r, const char *coordinator)
{
    base_status st = BASE_OK;
    const watchman_post post = {rank_due_us, rank_look, rank_leave, r};
    if (r->tensors != r->ranks) {
        BASE_TRY(st, out, watchman_start(&post, &base_heap, &r->watchman));
    }
    st =
        r->world.rank == 0 ? run_rank_0(r, coordinator) : engine_run(r->engine, NULL, &stop_wanted);
out:
    return st;
}

int main(int argc, char **argv)
{
    worker_options options;
    base_options line;
    rank r = {.ranks = NULL};
    const boot_launch launch = {.slurm_ntasks = getenv("SLURM_NTASKS"),
                                .ompi_world_size = getenv("OMPI_COMM_WORLD_SIZE"),
                                .pmix_rank = getenv("PMIX_RANK")};
    char who[48] = "worker";

    cpu_library_start_again(getenv("OPENBLAS_CORETYPE"), argv);
    base_log_init(who, BASE_LOG_INFO);
    base_status st =
        worker_options_parse(argc, (const char *const *)argv, &base_heap, &line, &options);
    if (st != BASE_OK) {
        (void)fprintf(stderr, "ropewalk-worker: %s (see --help)\n", base_last_error());
        base_options_reset(&line);
        return EXIT_USAGE;
    }
    if (line.help) {
        worker_options_help(&options, stdout);
        base_options_reset(&line);
        return EXIT_SUCCESS;
    }
    st = boot_mpi_start(&launch, &r.world);
    if (st != BASE_OK) {
        BASE_ERROR("%s", base_last_error());
        base_options_reset(&line);
        return EXIT_FAILURE;
    }
    (void)snprintf(who, sizeof who, "worker rank %d", r.world.rank);
    base_log_init(who, options.log_level);
    watch_signals();
    BASE_INFO("OpenBLAS runs its %s code", cpu_library_core());

    st = make_rank(&r, &options);
    if (st == BASE_OK) {
        st = run_rank(&r, options.coordinator);
    }
    if (st != BASE_OK) {
        leave(&r, st);
    }
    BASE_INFO("leaving: %s", stop_wanted ? "told to stop" : "drained");
    (void)alarm(FAREWELL_SECONDS); /* MPI_Finalize waits for all: one may be gone by now */
    end_rank(&r);
    base_options_reset(&line);
    boot_mpi_end();
    return EXIT_SUCCESS;
}
