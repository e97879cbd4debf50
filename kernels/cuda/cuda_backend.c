/* The op table on a GPU: looks up where an op's pointers lie on the device, and launches.  Nothing here waits. */
#include "base/log.h"
#include "kernels/backend.h"
#include "kernels/compose.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_gemm.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/cuda_prefill.h"
#include "kernels/cuda/cuda_replay.h"
#include "kernels/cuda/cuda_share.h"
#include "kernels/device.h"

#define DECODE_TOKENS 8 /* a sequence with more queries is prefill */
#define WINDOW_ALIGN  1024

typedef struct cuda_state {
    cudaStream_t stream;
    cuda_memory memory;
    kern_far far;
    cuda_replay replay;
    cuda_gemm *gemm;
    void *decode_workspace; /* device memory, like the next */
    void *prefill_memory;
    int64_t prefill_bytes; /* of it */
    bool pages_are_new;    /* written since decode attention last ran */
} cuda_state;

/* ---- where an op's pointers lie ---- */

typedef struct finder {
    const cuda_memory *memory;
    const char *op;
    base_status st; /* of the first pointer that the context does not know */
} finder;

static finder find_for(const kern_ctx *ctx, const char *op)
{
    const cuda_state *state = ctx->state;
    const finder f = {.memory = &state->memory, .op = op};
    return f;
}

/* NULL stays NULL; n_elems 0: whatever p is, nobody reads it. */
static void *find(finder *f, const char *field, const void *p, int64_t n_elems)
{
    if (p == NULL || n_elems == 0) {
        return NULL;
    }
    const cuda_range *range = cuda_memory_find(f->memory, p);
    if (range == NULL) {
        if (f->st == BASE_OK) {
            f->st = BASE_FAIL(BASE_BAD_INPUT, "%s: %s is not memory of this context", f->op, field);
        }
        return NULL;
    }
    return range->device + ((uintptr_t)p - range->begin);
}

/* The formats of a layer as cuda_pages.h takes them; NULL, and an error noted, if they are not bound. */
static const kern_cuda_formats *find_pages(finder *f, const kern_head_format *formats,
                                           int32_t n_kv_heads)
{
    const cuda_range *range = cuda_memory_find(f->memory, formats);
    const size_t layer_bytes = (size_t)n_kv_heads * sizeof *formats;
    const size_t at = range == NULL ? 0 : (uintptr_t)formats - range->begin;
    if (range == NULL || range->n_layers == 0 || at % layer_bytes != 0 ||
        range->n_bytes != layer_bytes * (size_t)range->n_layers) {
        if (f->st == BASE_OK) {
            f->st =
                BASE_FAIL(BASE_BAD_INPUT, "%s: formats are not those of a bound layer of %d heads",
                          f->op, n_kv_heads);
        }
        return NULL;
    }
    return range->pages[at / layer_bytes];
}

/* a is a copy of the op's args. */
#define AT(field, n) a.field = find(&f, #field, a.field, (n))

/* ---- the ops ---- */

static base_status cuda_append(kern_ctx *ctx, const kern_append_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "append");
    kern_append_args a = *args;
    AT(q, a.n_tokens);
    AT(turns, a.n_tokens);
    AT(k, a.n_tokens);
    AT(v, a.n_tokens);
    AT(positions, a.n_tokens);
    AT(dest, a.n_tokens);
    AT(opens, a.n_opens);
    AT(formats, 1);
    return f.st != BASE_OK ? f.st : kern_cuda_append(state->stream, &a);
}

/* The window of prefill attention, made for the first model that needs it. */
static base_status prefill_workspace(cuda_state *state, const kern_attn_args *args,
                                     void **workspace_out)
{
    const base_alloc *memory = &state->far.memory;
    const int64_t n_bytes =
        WINDOW_ALIGN +
        cuda_prefill_workspace_bytes(args->n_kv_heads, args->head_dim, CUDA_PREFILL_BLOCKS);
    if (n_bytes > state->prefill_bytes) {
        memory->put(memory->ctx, state->prefill_memory);
        state->prefill_bytes = 0;
        state->prefill_memory = memory->get(memory->ctx, (size_t)n_bytes);
        if (state->prefill_memory == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "attn: a window of %lld bytes", (long long)n_bytes);
        }
        state->prefill_bytes = n_bytes;
    }
    const uintptr_t at = (uintptr_t)state->prefill_memory;
    *workspace_out =
        (char *)state->prefill_memory + (WINDOW_ALIGN - at % WINDOW_ALIGN) % WINDOW_ALIGN;
    return BASE_OK;
}

/* The sequences that the step begins with and that have few queries: those that decode, as the engine lays
 * steps out.  Their tokens are the first ones. */
static int32_t count_decoding(const kern_attn_args *args, kern_cuda_attn_work *work,
                              int32_t *n_tokens_out)
{
    int32_t n = 0;
    int32_t n_tokens = 0;
    work->max_seq_tokens = 1;
    while (n < args->n_seqs && args->seqs[n].n_tokens <= DECODE_TOKENS &&
           args->seqs[n].first_token == n_tokens) {
        const int32_t own = args->seqs[n].n_tokens;
        work->max_seq_tokens = own > work->max_seq_tokens ? own : work->max_seq_tokens;
        n_tokens += own;
        n++;
    }
    *n_tokens_out = n_tokens;
    return n;
}

/* The launch that follows reads pages: what was written before it is old for the next. */
static void begin_decode(cuda_state *state, kern_cuda_attn_work *work)
{
    work->workspace = state->decode_workspace;
    work->pages_are_old = !state->pages_are_new;
    state->pages_are_new = false;
}

/* The tokens from `first` on, if they are to. */
static base_status leave_basis(const cuda_state *state, const kern_attn_args *a, int32_t first)
{
    const kern_basis_args basis =
        kern_outputs_basis(a->o + (int64_t)first * a->n_heads * a->head_dim, a->formats,
                           a->n_tokens - first, a->n_heads, a->n_kv_heads, a->head_dim);
    return a->leaves_basis ? kern_cuda_basis(state->stream, &basis) : BASE_OK;
}

/* args: the op's; a: with device addresses. */
static base_status attend(cuda_state *state, const kern_attn_args *args, const kern_attn_args *a,
                          const kern_cuda_formats *formats)
{
    base_status st = BASE_OK;
    kern_cuda_attn_work decode = {.formats = formats};
    kern_attn_args few = *a;
    few.n_seqs = count_decoding(args, &decode, &few.n_tokens);
    if (few.n_tokens > 0) {
        begin_decode(state, &decode);
        BASE_TRY(st, out, kern_cuda_attn(state->stream, &decode, &few));
    }
    if (few.n_seqs < args->n_seqs) {
        cuda_prefill_work work = {.seqs = args->seqs + few.n_seqs,
                                  .n_seqs = args->n_seqs - few.n_seqs,
                                  .n_blocks = CUDA_PREFILL_BLOCKS};
        BASE_TRY(st, out, prefill_workspace(state, args, &work.workspace));
        BASE_TRY(st, out, cuda_prefill(state->stream, &work, a));
        BASE_TRY(st, out, leave_basis(state, a, few.n_tokens));
    }
out:
    return st;
}

/* The op's args with device addresses. */
static base_status find_attn(const kern_ctx *ctx, const kern_attn_args *args, kern_attn_args *a_out,
                             const kern_cuda_formats **formats_out)
{
    finder f = find_for(ctx, "attn");
    kern_attn_args a = *args;
    *formats_out = find_pages(&f, a.formats, a.n_kv_heads);
    AT(formats, 1);
    AT(q, a.n_tokens);
    AT(o, a.n_tokens);
    AT(lse, a.n_tokens);
    AT(seqs, a.n_seqs);
    AT(page_list, a.n_page_list);
    AT(opens, a.n_opens);
    AT(pages, a.n_pages_total);
    *a_out = a;
    return f.st;
}

static base_status cuda_attn(kern_ctx *ctx, const kern_attn_args *args)
{
    const kern_cuda_formats *formats = NULL;
    kern_attn_args a;
    const base_status st = find_attn(ctx, args, &a, &formats);
    return st != BASE_OK ? st : attend(ctx->state, args, &a, formats);
}

static base_status cuda_basis(kern_ctx *ctx, const kern_basis_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "basis");
    kern_basis_args a = *args;
    AT(x, a.n_tokens);
    AT(formats, 1);
    return f.st != BASE_OK ? f.st : kern_cuda_basis(state->stream, &a);
}

static base_status cuda_bias(kern_ctx *ctx, const kern_bias_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "bias");
    kern_bias_args a = *args;
    AT(x, a.rows);
    AT(bias, 1);
    return f.st != BASE_OK ? f.st : kern_cuda_bias(state->stream, &a);
}

static base_status cuda_deal(kern_ctx *ctx, const kern_deal_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "deal");
    kern_deal_args a = *args;
    AT(x, a.n_tokens);
    AT(y, a.n_tokens);
    return f.st != BASE_OK ? f.st : kern_cuda_deal(state->stream, &a);
}

static base_status cuda_embed(kern_ctx *ctx, const kern_embed_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "embed");
    kern_embed_args a = *args;
    AT(ids, a.n_tokens);
    AT(table, 1);
    AT(y, a.n_tokens);
    AT(recent, a.n_recent);
    return f.st != BASE_OK ? f.st : kern_cuda_embed(state->stream, &a);
}

static base_status cuda_gated(kern_ctx *ctx, const kern_gated_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "gated");
    kern_gated_args a = *args;
    AT(x, 1);
    AT(norm, 1);
    AT(h, 1);
    AT(gate, 1);
    AT(up, 1);
    AT(room, 1);
    AT(y, 1);
    cuda_linear linear;
    if (f.st != BASE_OK) {
        return f.st;
    }
    return cuda_linear_gated(&a, &linear) ? cuda_linear_run(state->stream, &linear)
                                          : kern_compose_gated(ctx, args);
}

static base_status cuda_gemm_op(kern_ctx *ctx, const kern_gemm_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "gemm");
    kern_gemm_args a = *args;
    AT(x, 1);
    AT(w, 1);
    AT(bias, 1);
    AT(y, 1);
    return f.st != BASE_OK ? f.st : kern_cuda_gemm(state->gemm, state->stream, &a);
}

static base_status cuda_merge(kern_ctx *ctx, const kern_merge_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "merge");
    kern_merge_args a = *args;
    AT(formats, 1);
    AT(partials, a.rows);
    AT(o, a.rows);
    AT(lse, a.rows);
    return f.st != BASE_OK ? f.st : kern_cuda_merge(state->stream, &a);
}

static base_status cuda_pack(kern_ctx *ctx, const kern_pack_args *args)
{
    cuda_state *state = ctx->state;
    finder f = find_for(ctx, "pack");
    kern_pack_args a = *args;
    const kern_cuda_formats *formats = find_pages(&f, a.formats, a.n_kv_heads);
    AT(packs, a.n_packs);
    AT(opens, a.n_opens);
    AT(pages, a.n_pages);
    if (f.st != BASE_OK || a.n_packs == 0) {
        return f.st;
    }
    state->pages_are_new = true;
    return kern_cuda_pack(state->stream, formats, &a);
}

static base_status cuda_project(kern_ctx *ctx, const kern_project_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "project");
    kern_project_args a = *args;
    AT(x, 1);
    AT(norm, 1);
    AT(h, 1);
    for (int32_t i = 0; i < a.n_parts; i++) {
        AT(parts[i].w, 1);
        AT(parts[i].bias, 1);
        AT(parts[i].y, 1);
    }
    cuda_linear linear;
    if (f.st != BASE_OK) {
        return f.st;
    }
    return cuda_linear_project(&a, &linear) ? cuda_linear_run(state->stream, &linear)
                                            : kern_compose_project(ctx, args);
}

static base_status cuda_rmsnorm(kern_ctx *ctx, const kern_rmsnorm_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "rmsnorm");
    kern_rmsnorm_args a = *args;
    AT(x, a.rows);
    AT(weight, 1);
    AT(y, a.rows);
    return f.st != BASE_OK ? f.st : kern_cuda_rmsnorm(state->stream, &a);
}

static base_status cuda_rope(kern_ctx *ctx, const kern_rope_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "rope");
    kern_rope_args a = *args;
    AT(x, a.n_tokens);
    AT(turns, a.n_tokens);
    return f.st != BASE_OK ? f.st : kern_cuda_rope(state->stream, &a);
}

static base_status cuda_sample(kern_ctx *ctx, const kern_sample_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "sample");
    kern_sample_args a = *args;
    AT(logits, a.n_rows);
    AT(rows, a.n_rows);
    AT(ids, a.n_rows);
    AT(seen, a.n_rows);
    AT(reports, a.n_rows);
    return f.st != BASE_OK ? f.st : kern_cuda_sample(state->stream, &a);
}

static base_status cuda_swiglu(kern_ctx *ctx, const kern_swiglu_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "swiglu");
    kern_swiglu_args a = *args;
    AT(gate, a.n_tokens);
    AT(up, a.n_tokens);
    AT(y, a.n_tokens);
    return f.st != BASE_OK ? f.st : kern_cuda_swiglu(state->stream, &a);
}

static base_status cuda_turns(kern_ctx *ctx, const kern_turns_args *args)
{
    const cuda_state *state = ctx->state;
    finder f = find_for(ctx, "turns");
    kern_turns_args a = *args;
    AT(positions, a.n_tokens);
    AT(inv_freq, 1);
    AT(turns, a.n_tokens);
    return f.st != BASE_OK ? f.st : kern_cuda_turns(state->stream, &a);
}

/* ---- recording ---- */

static base_status record_replay(kern_ctx *ctx, const kern_replay_key *key, bool *done_out)
{
    cuda_state *state = ctx->state;
    return cuda_replay_run(&state->replay, key, done_out);
}

static base_status record_begin(kern_ctx *ctx)
{
    cuda_state *state = ctx->state;
    return cuda_replay_begin(&state->replay);
}

static base_status record_end(kern_ctx *ctx, const kern_replay_key *key, base_status st)
{
    cuda_state *state = ctx->state;
    return cuda_replay_end(&state->replay, key, st);
}

static base_status watch_start(kern_ctx *ctx)
{
    cuda_state *state = ctx->state;
    return cuda_replay_start(&state->replay);
}

static base_status watch_stop(kern_ctx *ctx, double *us_out)
{
    cuda_state *state = ctx->state;
    return cuda_replay_stop(&state->replay, us_out);
}

static const kern_recorder recorder = {record_replay, record_begin, record_end, watch_start,
                                       watch_stop};

/* ---- the context ---- */

static void cuda_destroy(kern_ctx *ctx)
{
    const base_alloc mem = ctx->mem;
    cuda_state *state = ctx->state;
    if (state != NULL) {
        if (state->stream != NULL) {
            (void)cudaStreamSynchronize(state->stream);
        }
        cuda_replay_reset(&state->replay);
        cuda_gemm_destroy(state->gemm);
        if (ctx->far != NULL) {
            cuda_memory_reset(&state->memory);
        }
        if (state->stream != NULL) {
            (void)cudaStreamDestroy(state->stream);
        }
        mem.put(mem.ctx, state);
    }
    mem.put(mem.ctx, ctx);
}

static const kern_backend cuda_backend = {
    .name = "cuda",
    .append = cuda_append,
    .attn = cuda_attn,
    .basis = cuda_basis,
    .bias = cuda_bias,
    .deal = cuda_deal,
    .embed = cuda_embed,
    .gated = cuda_gated,
    .gemm = cuda_gemm_op,
    .merge = cuda_merge,
    .pack = cuda_pack,
    .project = cuda_project,
    .rmsnorm = cuda_rmsnorm,
    .rope = cuda_rope,
    .sample = cuda_sample,
    .swiglu = cuda_swiglu,
    .turns = cuda_turns,
    .destroy = cuda_destroy,
};

static base_status open_device(int32_t index, cuda_state *state)
{
    base_status st = BASE_OK;
    kern_gpu gpu;

    BASE_TRY(st, out, kern_gpu_describe(index, &gpu));
    if (gpu.capability != KERN_CUDA_CAPABILITY) {
        st = BASE_FAIL(BASE_BAD_INPUT,
                       "GPU %d is a %s of compute capability %d.%d; this build is for %d.%d", index,
                       gpu.name, gpu.capability / 10, gpu.capability % 10,
                       KERN_CUDA_CAPABILITY / 10, KERN_CUDA_CAPABILITY % 10);
        goto out;
    }
    BASE_TRY(st, out, cuda_to_status(cudaSetDevice(index), "choosing the GPU"));
    st = cuda_to_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking), "stream");
out:
    return st;
}

base_status kern_ctx_create_cuda(int32_t index, const base_alloc *mem, kern_ctx **ctx_out)
{
    base_status st = BASE_OK;
    kern_ctx *ctx = NULL;
    cuda_state *state = NULL;
    ctx = mem->get(mem->ctx, sizeof *ctx);
    if (ctx == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "kernel context");
        goto out;
    }
    ctx->backend = &cuda_backend;
    ctx->mem = *mem;
    state = mem->get(mem->ctx, sizeof *state);
    if (state == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "kernel context");
        goto out;
    }
    ctx->state = state;
    BASE_TRY(st, out, open_device(index, state));
    state->replay.stream = state->stream;
    cuda_memory_init(&state->memory, &state->replay, mem);
    cuda_memory_far(&state->memory, &state->far);
    ctx->far = &state->far;
    ctx->recorder = &recorder;
    BASE_TRY(st, out, cuda_gemm_create(mem, &state->gemm));
    const int64_t n_bytes = kern_cuda_attn_workspace_bytes();
    state->decode_workspace = state->far.memory.get(state->far.memory.ctx, (size_t)n_bytes);
    if (state->decode_workspace == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "attention's workspace of %lld bytes on GPU %d",
                       (long long)n_bytes, index);
        goto out;
    }
    *ctx_out = ctx;
    ctx = NULL;

out:
    kern_ctx_destroy(ctx);
    return st;
}

/* ---- what transports need ---- */

base_status cuda_share_stream(const kern_ctx *ctx, cudaStream_t *stream_out)
{
    if (ctx->backend != &cuda_backend) {
        return BASE_FAIL(BASE_BAD_INPUT, "an exchange between GPUs on a context of the %s",
                         ctx->backend->name);
    }
    const cuda_state *state = ctx->state;
    *stream_out = state->stream;
    return BASE_OK;
}

base_status cuda_share_find(const kern_ctx *ctx, const char *what, const void *p, size_t n_bytes,
                            void **device_out)
{
    const cuda_state *state = ctx->state;
    const cuda_range *range = cuda_memory_find(&state->memory, p);
    const size_t at = range == NULL ? 0 : (uintptr_t)p - range->begin;
    if (range == NULL || n_bytes > range->n_bytes - at) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: %zu bytes that are not memory of this context", what,
                         n_bytes);
    }
    *device_out = range->device + at;
    return BASE_OK;
}

base_status cuda_share_lend(kern_ctx *ctx, void *device, size_t n_bytes)
{
    cuda_state *state = ctx->state;
    return cuda_memory_lend(&state->memory, device, n_bytes);
}

void cuda_share_take_back(kern_ctx *ctx, void *device)
{
    cuda_state *state = ctx->state;
    cuda_memory_take_back(&state->memory, device);
}

bool cuda_share_decodes(const kern_attn_args *args)
{
    kern_cuda_attn_work work = {0};
    int32_t n_tokens = 0;
    return count_decoding(args, &work, &n_tokens) == args->n_seqs;
}

base_status cuda_share_attn(kern_ctx *ctx, const kern_attn_args *args, kern_attn_args *device_out,
                            kern_cuda_attn_work *work_out)
{
    base_status st = BASE_OK;
    int32_t n_tokens = 0;

    *work_out = (kern_cuda_attn_work){0};
    BASE_TRY(st, out, find_attn(ctx, args, device_out, &work_out->formats));
    (void)count_decoding(args, work_out, &n_tokens);
    begin_decode(ctx->state, work_out);
out:
    return st;
}
