#include "kernels/cpu/cpu_state.h"

#include <cblas.h>

static void cpu_destroy(kern_ctx *ctx);

const kern_backend kern_cpu_backend = {
    .name = "cpu",
#define X(op) .op = kern_cpu_##op,
#include "kernels/ops.def"
#undef X
    .destroy = cpu_destroy,
};

base_status kern_ctx_create_cpu(int32_t n_threads, const base_alloc *mem, kern_ctx **ctx_out)
{
    base_status st = BASE_OK;
    kern_ctx *ctx = NULL;
    cpu_state *state = NULL;
    const size_t line = 64;

    if (n_threads < 1 || n_threads > KERN_MAX_THREADS) {
        st = BASE_FAIL(BASE_BAD_INPUT, "n_threads %d, allowed 1..%d", n_threads, KERN_MAX_THREADS);
        goto out;
    }
    ctx = mem->get(mem->ctx, sizeof *ctx);
    if (ctx == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "kernel context");
        goto out;
    }
    ctx->backend = &kern_cpu_backend;
    ctx->mem = *mem;
    state = mem->get(mem->ctx, sizeof *state);
    if (state == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "kernel context of %zu bytes", sizeof *state);
        goto out;
    }
    ctx->state = state;
    state->isa = cpu_isa_of_machine();
    state->scratch_base = mem->get(mem->ctx, (size_t)n_threads * sizeof(cpu_scratch) + line);
    if (state->scratch_base == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "scratch of %d threads, %zu bytes each", n_threads,
                       sizeof(cpu_scratch));
        goto out;
    }
    const uintptr_t base = (uintptr_t)state->scratch_base;
    state->scratch = (cpu_scratch *)((base + line - 1) / line * line);
    BASE_TRY(st, out, cpu_pool_create(n_threads, mem, &state->pool));

    /* Tasks above sgemm are what runs in parallel; each calls it on its own thread. */
    openblas_set_num_threads(1);
    *ctx_out = ctx;
    ctx = NULL;

out:
    kern_ctx_destroy(ctx);
    return st;
}

static void cpu_destroy(kern_ctx *ctx)
{
    const base_alloc mem = ctx->mem;
    cpu_state *state = ctx->state;
    if (state != NULL) {
        cpu_pool_destroy(state->pool);
        mem.put(mem.ctx, state->scratch_base);
        mem.put(mem.ctx, state);
    }
    mem.put(mem.ctx, ctx);
}
