#include "launch/bench_pages.h"

#include "base/random.h"
#include "kvshard/calibration.h"

#include <math.h>
#include <string.h>

#define SEED          1
#define CHUNK_BLOCKS  16  /* different ones */
#define ENERGY_SPREAD 1.5 /* deviation of the logarithm of a RoPE block's energy */

/* The format of one layer; a policy that needs a calibration gets one of log-normal energies, a block's the same for
 * queries and keys. */
static base_status make_format(const char *policy, int32_t n_kv_heads, int32_t head_dim,
                               const base_alloc *mem, kv_format **format_out)
{
    base_status st = BASE_OK;
    kv_policy parsed;
    kv_calibration *calibration = NULL;
    const kv_shape shape = {1, n_kv_heads, head_dim};
    const base_hash no_model = {{0}};

    BASE_TRY(st, out, kv_policy_parse(policy, &parsed));
    BASE_TRY(st, out, kv_calibration_create(&shape, no_model, 1, mem, &calibration));
    for (int32_t i = 0; i < n_kv_heads * head_dim; i++) {
        const int32_t block = i / head_dim * (head_dim / 2) + i % (head_dim / 2);
        const double z = base_random_normal(SEED, 999, (uint64_t)block);
        calibration->energies[i] = (float)exp(ENERGY_SPREAD * z);
    }
    st = kv_format_create_calibrated(&parsed, &shape, calibration, mem, format_out);
out:
    kv_calibration_destroy(calibration);
    return st;
}

static void *get(const base_alloc *memory, size_t n_bytes)
{
    return memory->get(memory->ctx, n_bytes);
}

static void put(const base_alloc *memory, void *p)
{
    memory->put(memory->ctx, p);
}

/* The tokens of CHUNK_BLOCKS blocks, all in mirrors. */
typedef struct chunk {
    float *x; /* [tokens][Hkv][D] */
    int64_t *positions;
    int32_t *dest;
} chunk;

static base_status chunk_open(kern_ctx *ctx, const kv_shape *shape, chunk *c)
{
    base_status st = BASE_OK;
    const base_alloc *mirror = kern_mirror(ctx);
    const size_t n_tokens = (size_t)CHUNK_BLOCKS * KERN_BLOCK_TOKENS;
    const size_t n = n_tokens * (size_t)shape->n_kv_heads * (size_t)shape->head_dim;

    c->x = get(mirror, n * sizeof *c->x);
    c->positions = get(mirror, n_tokens * sizeof *c->positions);
    c->dest = get(mirror, n_tokens * sizeof *c->dest);
    if (c->x == NULL || c->positions == NULL || c->dest == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%zu tokens", n_tokens);
    }
    for (size_t i = 0; i < n; i++) {
        c->x[i] = (float)base_random_normal(SEED, 1, i);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        c->positions[i] = (int64_t)i;
        c->dest[i] = (int32_t)(i / KERN_BLOCK_TOKENS);
    }
    BASE_TRY(st, out, kern_send(ctx, c->x, n * sizeof *c->x));
    BASE_TRY(st, out, kern_send(ctx, c->positions, n_tokens * sizeof *c->positions));
    st = kern_send(ctx, c->dest, n_tokens * sizeof *c->dest);
out:
    return st;
}

static void chunk_close(kern_ctx *ctx, chunk *c)
{
    put(kern_mirror(ctx), c->x);
    put(kern_mirror(ctx), c->positions);
    put(kern_mirror(ctx), c->dest);
}

base_status bench_rows_open(kern_ctx *ctx, const kv_format *format, int32_t n_blocks,
                            bench_rows *rows)
{
    base_status st = BASE_OK;
    const kv_shape *shape = &format->shape;
    const int64_t n_elems = kern_open_elems(shape->n_kv_heads, shape->head_dim);
    chunk c = {.x = NULL};

    *rows = (bench_rows){.n_blocks = n_blocks};
    rows->opens = get(kern_mirror(ctx), (size_t)n_blocks * sizeof *rows->opens);
    rows->values = get(kern_memory(ctx), (size_t)(n_blocks * n_elems) * sizeof *rows->values);
    if (rows->opens == NULL || rows->values == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rows of %d blocks", n_blocks);
        goto out;
    }
    for (int32_t i = 0; i < n_blocks; i++) {
        rows->opens[i] = (kern_open){.block = i, .rows = rows->values + i * n_elems};
    }
    BASE_TRY(st, out, kern_send(ctx, rows->opens, (size_t)n_blocks * sizeof *rows->opens));
    BASE_TRY(st, out, chunk_open(ctx, shape, &c));
    for (int32_t at = 0; at < n_blocks; at += CHUNK_BLOCKS) {
        const int32_t n = n_blocks - at < CHUNK_BLOCKS ? n_blocks - at : CHUNK_BLOCKS;
        const kern_append_args args = {.k = c.x,
                                       .v = c.x,
                                       .positions = c.positions,
                                       .dest = c.dest,
                                       .opens = rows->opens + at,
                                       .formats = format->heads,
                                       .n_tokens = n * KERN_BLOCK_TOKENS,
                                       .n_kv_heads = shape->n_kv_heads,
                                       .head_dim = shape->head_dim,
                                       .n_opens = n};
        BASE_TRY(st, out, kern_append(ctx, &args));
    }
    st = kern_wait(ctx);
out:
    chunk_close(ctx, &c);
    return st;
}

void bench_rows_close(kern_ctx *ctx, bench_rows *rows)
{
    put(kern_mirror(ctx), rows->opens);
    put(kern_memory(ctx), rows->values);
    *rows = (bench_rows){.n_blocks = 0};
}

base_status bench_pages_open(kern_ctx *ctx, const bench_options *o, const char *policy,
                             int32_t n_pages, int32_t max_rows, int64_t n_cold_bytes,
                             const base_alloc *mem, bench_pages *pages)
{
    base_status st = BASE_OK;

    *pages = (bench_pages){.n_pages = n_pages};
    BASE_TRY(st, out, make_format(policy, o->n_kv_heads, o->head_dim, mem, &pages->format));
    BASE_TRY(st, out, kern_bind_formats(ctx, pages->format->heads, 1, o->n_kv_heads));
    const int64_t pool_bytes = n_pages * pages->format->page_bytes;
    pages->n_pools = (int32_t)(n_cold_bytes / pool_bytes) + 1;
    BASE_TRY(
        st, out,
        bench_rows_open(ctx, pages->format, n_pages < max_rows ? n_pages : max_rows, &pages->rows));
    pages->bytes = get(kern_memory(ctx), (size_t)(pages->n_pools * pool_bytes));
    pages->packs = get(kern_mirror(ctx), (size_t)n_pages * sizeof *pages->packs);
    if (pages->bytes == NULL || pages->packs == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%lld bytes of pages of %s",
                       (long long)(pages->n_pools * pool_bytes), policy);
        goto out;
    }
    for (int32_t i = 0; i < n_pages; i++) {
        pages->packs[i] = (kern_pack){i % pages->rows.n_blocks, i};
    }
    BASE_TRY(st, out, kern_send(ctx, pages->packs, (size_t)n_pages * sizeof *pages->packs));
    for (int32_t i = 0; i < pages->n_pools; i++) {
        if (i > 0 && o->device == KERN_DEVICE_CPU) { /* the host's memory, and sooner than packed */
            memcpy(bench_pages_pool(pages, i), pages->bytes, (size_t)pool_bytes);
        } else {
            BASE_TRY(st, out, bench_pages_pack(ctx, pages, i));
        }
    }
    st = kern_wait(ctx);
out:
    return st;
}

void bench_pages_close(kern_ctx *ctx, bench_pages *pages)
{
    put(kern_mirror(ctx), pages->packs);
    put(kern_memory(ctx), pages->bytes);
    bench_rows_close(ctx, &pages->rows);
    if (pages->format != NULL) {
        kern_unbind(ctx, pages->format->heads);
    }
    kv_format_destroy(pages->format);
    *pages = (bench_pages){.n_pages = 0};
}

base_status bench_pages_pack(kern_ctx *ctx, const bench_pages *pages, int32_t pool)
{
    const kern_pack_args args = {.packs = pages->packs,
                                 .opens = pages->rows.opens,
                                 .formats = pages->format->heads,
                                 .pages = bench_pages_pool(pages, pool),
                                 .page_stride = pages->format->page_bytes,
                                 .n_packs = pages->n_pages,
                                 .n_opens = pages->rows.n_blocks,
                                 .n_pages = pages->n_pages,
                                 .n_kv_heads = pages->format->shape.n_kv_heads};
    return kern_pack_pages(ctx, &args);
}
