/* Prefill attention on the GPU against fp64, within the tolerance of cuda_prefill.h.  Windows of scratch are mostly
 * too small for the context, so that results of several passes are merged. */
#include "kernels/cuda/cuda_prefill.h"
#include "kernels/cuda/fragment.h"
#include "tests/support/attn_world.h"
#include "tests/support/parity_cuda.h"

static const int32_t bf16_bits[4] = {16, 16, 16, 16};
static const int32_t mixed_bits[4] = {4, 2, 3, 3};

typedef struct prefill_case {
    int32_t rank, n_ranks;
    int32_t n_blocks; /* of scratch */
    int32_t window_blocks, sink_blocks;
} prefill_case;

static bool seen_as_rows(const prefill_case *c, int64_t own, int64_t block)
{
    return own == block || own - block <= c->window_blocks || block < c->sink_blocks;
}

/* The pool's pages in fragment order, on the device. */
static uint8_t *device_pages(parity_device *device, const attn_world *w)
{
    uint8_t *pages = parity_memory(w->n_pages * w->stride, 1);
    for (int64_t p = 0; p < w->n_pages; p++) {
        for (int32_t h = 0; h < w->n_kv_heads; h++) {
            const int64_t at = p * w->stride + w->formats[h].offset;
            assert_true(kern_fragment_fits(&w->formats[h]));
            kern_fragment_from_plain(&w->formats[h], w->pages + at, pages + at);
        }
    }
    uint8_t *copy = device_copy(device, pages, (size_t)(w->n_pages * w->stride));
    free(pages);
    return copy;
}

/* Every block the case's rank owns: full ones as pages, those a query sees so as opens. */
static void list_blocks(parity_device *device, const attn_world *w, const prefill_case *c,
                        world_call *call)
{
    const size_t row_bytes = (size_t)kern_open_elems(w->n_kv_heads, w->head_dim) * sizeof(uint16_t);
    world_call_init(call, w, c->rank, c->n_ranks, 0, 1);
    call->args.n_page_list = 0;
    call->args.n_opens = 0;
    for (int32_t i = 0; i < w->n_seqs; i++) {
        const world_seq *s = &w->seqs[i];
        kern_attn_seq *seq = &call->seqs[i];
        seq->first_page = call->args.n_page_list;
        seq->first_open = call->args.n_opens;
        seq->n_pages = 0;
        seq->n_opens = 0;
        for (int32_t b = 0; b < world_blocks(s); b++) {
            if (world_owner(i, b, c->n_ranks) != c->rank) {
                continue;
            }
            if (world_full(s, b)) {
                call->list[seq->first_page + seq->n_pages++] =
                    (kern_attn_page){b, s->first_page + b};
            }
            const int64_t first = s->position / KERN_BLOCK_TOKENS; /* block of the first query */
            if (b >= first || seen_as_rows(c, first, b)) {
                uint16_t *rows = device_copy(device, s->rows[b], row_bytes);
                call->opens[seq->first_open + seq->n_opens++] =
                    (kern_open){.block = b, .rows = rows};
            }
        }
        call->args.n_page_list += seq->n_pages;
        call->args.n_opens += seq->n_opens;
    }
}

/* o [T][H][D], then lse [T][H]; ended with free. */
static float *prefill(const attn_world *w, const prefill_case *c)
{
    const int64_t rows = (int64_t)w->n_tokens * w->n_kv_heads * w->group;
    parity_device device = {.n_held = 0};
    world_call *call = parity_memory(1, sizeof *call);
    float *o = parity_memory(rows * (w->head_dim + 1), sizeof *o);
    const int64_t n_bytes = cuda_prefill_workspace_bytes(w->n_kv_heads, w->head_dim, c->n_blocks);
    void *scratch = parity_memory(n_bytes, 1);
    list_blocks(&device, w, c, call);
    for (int64_t i = 0; i < rows * (w->head_dim + 1); i++) {
        o[i] = -12345.0f;
    }
    memset(scratch, 0x7e, (size_t)n_bytes); /* NaN in both widths */
    void *out = on_device(o, (size_t)(rows * (w->head_dim + 1)) * sizeof *o);
    kern_attn_args a = call->args;
    a.q = device_copy(&device, w->q, (size_t)(rows * w->head_dim) * sizeof *o);
    a.o = out;
    a.lse = a.o + rows * w->head_dim;
    a.seqs = NULL;
    a.window_blocks = c->window_blocks;
    a.sink_blocks = c->sink_blocks;
    a.page_list = device_copy(&device, call->list, sizeof call->list);
    a.opens = device_copy(&device, call->opens, sizeof call->opens);
    a.formats = device_formats(&device, w->formats, w->n_kv_heads);
    a.pages = device_pages(&device, w);
    const cuda_prefill_work work = {.seqs = call->seqs,
                                    .n_seqs = w->n_seqs,
                                    .n_blocks = c->n_blocks,
                                    .workspace = device_copy(&device, scratch, (size_t)n_bytes)};
    CHECK_STATUS(cuda_prefill(NULL, &work, &a), BASE_OK);
    float *got = from_device(out, rows * (w->head_dim + 1));
    device_free(&device);
    free(scratch);
    free(o);
    free(call);
    return got;
}

/* fp64 attention of one row, over the rank's blocks; values as the case says they are seen. */
static double reference(const attn_world *w, const prefill_case *c, int32_t seq, int32_t t,
                        int32_t head, double *o)
{
    const world_seq *s = &w->seqs[seq];
    const int64_t p = s->position + t;
    const int32_t k_side = head / w->group * 2;
    const float *q =
        w->q + ((int64_t)(s->first_token + t) * w->n_kv_heads * w->group + head) * w->head_dim;
    double *x = parity_memory(p + 1, sizeof *x);
    double top = -INFINITY;
    double sum = 0.0;
    for (int32_t pass = 0; pass < 2; pass++) { /* logits, then weights */
        for (int64_t j = 0; j <= p; j++) {
            const int64_t block = j / KERN_BLOCK_TOKENS;
            if (world_owner(seq, (int32_t)block, c->n_ranks) != c->rank) {
                continue;
            }
            /* world_value takes rows for the block that p lies in */
            const int64_t as = seen_as_rows(c, p / KERN_BLOCK_TOKENS, block) ? j : p;
            if (pass == 0) {
                for (int32_t d = 0; d < w->head_dim; d++) {
                    x[j] += (double)q[d] * world_value(w, s, as, j, k_side, d);
                }
                x[j] *= (double)w->scale;
                top = x[j] > top ? x[j] : top;
                continue;
            }
            const double weight = exp(x[j] - top);
            sum += weight;
            for (int32_t d = 0; d < w->head_dim; d++) {
                o[d] += weight * world_value(w, s, as, j, k_side + 1, d);
            }
        }
    }
    for (int32_t d = 0; d < w->head_dim && sum > 0.0; d++) {
        o[d] /= sum;
    }
    free(x);
    return sum > 0.0 ? top + log(sum) : -INFINITY;
}

/* Every step-th token and the last one. */
static void check(const attn_world *w, const prefill_case *c, int32_t step)
{
    const int32_t n_heads = w->n_kv_heads * w->group;
    float *o = prefill(w, c);
    const float *lse = o + (int64_t)w->n_tokens * n_heads * w->head_dim;
    for (int32_t i = 0; i < w->n_seqs; i++) {
        const world_seq *s = &w->seqs[i];
        const int32_t last = s->n_tokens - 1;
        for (int32_t t = 0; t <= last; t = t + step <= last || t == last ? t + step : last) {
            for (int32_t h = 0; h < n_heads; h++) {
                double want[KERN_MAX_HEAD_DIM] = {0};
                const int64_t at = (int64_t)(s->first_token + t) * n_heads + h;
                const double want_lse = reference(w, c, i, t, h, want);
                parity_near((double)lse[at], want_lse, 2e-3 + 1e-6 * fabs(want_lse), "lse", at);
                for (int32_t d = 0; d < w->head_dim; d++) {
                    parity_near((double)o[at * w->head_dim + d], want[d], 1e-3 * 4.0, "o",
                                at * w->head_dim + d);
                }
            }
        }
    }
    free(o);
}

static void every_bit_width_agrees_with_fp64(void **state)
{
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 2 * sizeof widths / sizeof widths[0]; i++) {
        const int32_t b = widths[i / 2];
        const int32_t bits[4] = {b, b, b, b};
        const int64_t position = 256 + 17;
        const int32_t n_tokens = 9;
        attn_world *w =
            attn_world_create(ctx, i % 2 == 0 ? 128 : 64, 2, 2, bits, 1, &position, &n_tokens);
        check(w, &(prefill_case){0, 1, 128, 0, 0}, 4);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void affine_pages_agree_with_fp64(void **state)
{
    static const int32_t widths[] = {2, 4, 8, 16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (int32_t i = 0; i < 2 * 3 * 4; i++) {
        const int32_t dim = i % 2 == 0 ? 128 : 64;
        const int32_t group = 32 << i / 2 % 3;
        const int32_t k = widths[i / 6];
        const int32_t v = widths[(i / 6 + i / 2) % 4];
        const int32_t bits[4] = {k == 16 ? k : PAGE_AFFINE(k, group), 0,
                                 v == 16 ? v : PAGE_AFFINE(v, group < dim ? group : dim), 0};
        const int64_t position = 256 + 17;
        const int32_t n_tokens = 120;
        attn_world *w = attn_world_create(ctx, dim, 2, 2, bits, 1, &position, &n_tokens);
        check(w, &(prefill_case){0, 1, 128, 0, 0}, 31);
        check(w, &(prefill_case){0, 1, 2, 1, 1}, 31);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void every_group_size_and_shard_agrees_with_fp64(void **state)
{
    static const int32_t groups[] = {1, 2, 4, 7, 8, 16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        const int64_t position = 200;
        const int32_t n_tokens = 70;
        attn_world *w =
            attn_world_create(ctx, 64, 2, groups[i], mixed_bits, 1, &position, &n_tokens);
        check(w, &(prefill_case){0, 2, 128, 0, 0}, 23);
        check(w, &(prefill_case){1, 2, 1, 0, 0}, 23);
        check(w, &(prefill_case){9, 9, 128, 0, 0}, 23); /* nobody owns blocks as rank 9 of 9 */
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

/* Chunks that start and end anywhere in a block, contexts of several passes. */
static void long_chunks_agree_with_fp64(void **state)
{
    static const int64_t positions[] = {0, 128, 198, 1023, 1024};
    static const int32_t n_tokens[] = {300, 128, 300, 2, 400};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        attn_world *w = attn_world_create(ctx, i % 2 == 0 ? 128 : 64, 1, 2, mixed_bits, 1,
                                          &positions[i], &n_tokens[i]);
        check(w, &(prefill_case){0, 1, 128, 0, 0}, 37);
        check(w, &(prefill_case){0, 1, 3, 0, 0}, 37);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void sequences_of_one_call_do_not_mix(void **state)
{
    static const int64_t positions[] = {0, 255, 1000, 127};
    static const int32_t n_tokens[] = {40, 10, 200, 9};
    kern_ctx *ctx = parity_ctx(1);
    attn_world *w = attn_world_create(ctx, 128, 2, 4, mixed_bits, 4, positions, n_tokens);
    (void)state;
    check(w, &(prefill_case){0, 1, 4, 0, 0}, 19);
    check(w, &(prefill_case){1, 3, 128, 0, 0}, 19);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void windows_and_sinks_are_seen_as_rows(void **state)
{
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 700;
    const int32_t n_tokens = 350;
    attn_world *w = attn_world_create(ctx, 128, 1, 2, mixed_bits, 1, &position, &n_tokens);
    (void)state;
    check(w, &(prefill_case){0, 1, 128, 2, 1}, 41);
    check(w, &(prefill_case){0, 1, 3, 1, 2}, 41);
    check(w, &(prefill_case){0, 2, 4, 3, 0}, 41);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

/* side 0: K, 1: V.  Position `bad` becomes NaN in the bf16 rows and in their page. */
static void poison(attn_world *w, kern_ctx *ctx, int32_t side, int32_t bad, bool page_too)
{
    world_seq *s = &w->seqs[0];
    const int32_t row = side * KERN_BLOCK_TOKENS + bad % KERN_BLOCK_TOKENS;
    s->rows[bad / KERN_BLOCK_TOKENS][row * w->head_dim + 5] = 0x7fc0u;
    if (page_too) {
        for (int32_t b = 0; b < WORLD_MAX_BLOCKS; b++) {
            free(s->values[b]);
            s->values[b] = NULL;
        }
        world_pack(w, s, ctx);
    }
}

static void nan_reaches_only_the_queries_that_see_it(void **state)
{
    static const int32_t bad[] = {130, 290};
    const int64_t position = 100;
    const int32_t n_tokens = 200; /* positions 100..299, blocks 0..2 */
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (int32_t i = 0; i < 8; i++) {
        attn_world *w = attn_world_create(ctx, 64, 1, 1, bf16_bits, 1, &position, &n_tokens);
        const int32_t at = bad[i / 2 % 2];
        const prefill_case c = {0, 1, i < 4 ? 128 : 1, 0, 0};
        poison(w, ctx, i % 2, at, at < 256);
        float *o = prefill(w, &c);
        for (int32_t t = 0; t < n_tokens; t++) {
            const bool sees = position + t >= at;
            assert_int_equal(isnan(o[t * 64 + 5]), sees);
            assert_int_equal(isnan(o[t * 64 + 6]), sees && i % 2 == 0);
        }
        free(o);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_width_agrees_with_fp64),
        cmocka_unit_test(affine_pages_agree_with_fp64),
        cmocka_unit_test(every_group_size_and_shard_agrees_with_fp64),
        cmocka_unit_test(long_chunks_agree_with_fp64),
        cmocka_unit_test(sequences_of_one_call_do_not_mix),
        cmocka_unit_test(windows_and_sinks_are_seen_as_rows),
        cmocka_unit_test(nan_reaches_only_the_queries_that_see_it),
    };
    return PARITY_CUDA_MAIN(tests);
}
