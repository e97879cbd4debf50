#include "kernels/op_attn.h"

#include "tests/support/attn_world.h"

static const int32_t bf16_bits[4] = {16, 16, 16, 16};
static const int32_t mixed_bits[4] = {4, 2, 3, 3};

/* Every shard of n_ranks against fp64, then their merge against fp64 over everything. */
static void check_world(kern_ctx *ctx, const attn_world *w, int32_t n_ranks, int32_t n_parts,
                        int32_t step)
{
    const int64_t rows = (int64_t)w->n_tokens * w->n_kv_heads * w->group;
    const int64_t stride = rows * (w->head_dim + 1);
    float *partials = parity_memory(stride * n_ranks, sizeof *partials);
    float *o = parity_guarded(rows * w->head_dim);
    float *lse = parity_guarded(rows);

    for (int32_t r = 0; r < n_ranks; r++) {
        float *part = partials + r * stride;
        attn_world_run(w, ctx, r, n_ranks, n_parts, part, part + rows * w->head_dim);
        attn_world_check(w, r, n_ranks, step, part, part + rows * w->head_dim);
    }
    const kern_merge_args merge = {.partials = partials,
                                   .rank_stride = stride,
                                   .o = o,
                                   .lse = lse,
                                   .n_ranks = n_ranks,
                                   .rows = (int32_t)rows,
                                   .head_dim = w->head_dim};
    CHECK_STATUS(kern_merge(ctx, &merge), BASE_OK);
    attn_world_check(w, 0, 1, step, o, lse);
    parity_guarded_check(o, rows * w->head_dim);
    parity_guarded_check(lse, rows);
    free(partials);
    parity_guarded_free(o);
    parity_guarded_free(lse);
}

/* Equal keys give equal weights: the output is the mean of V, here of 0, 1 and 2. */
static void equal_keys_give_the_mean_of_the_values(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 2;
    const int32_t n_tokens = 1;
    attn_world *w = attn_world_create(ctx, 64, 1, 1, bf16_bits, 1, &position, &n_tokens);
    float o[64];
    float lse = 0.0f;
    for (int32_t i = 0; i < 3 * 64; i++) {
        w->seqs[0].rows[0][i] = base_bf16_from_f32(0.0f);
        w->seqs[0].rows[0][KERN_BLOCK_TOKENS * 64 + i] = base_bf16_from_f32((float)(i / 64));
    }
    attn_world_run(w, ctx, 0, 1, 1, o, &lse);
    for (int32_t d = 0; d < 64; d++) {
        assert_true(fabsf(o[d] - 1.0f) <= 1e-7f);
    }
    assert_true(fabs((double)lse - log(3.0)) <= 1e-7);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void one_position_gives_its_value(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 0;
    const int32_t n_tokens = 1;
    attn_world *w = attn_world_create(ctx, 128, 2, 4, bf16_bits, 1, &position, &n_tokens);
    float *o = parity_memory((int64_t)8 * 128, sizeof *o);
    float lse[8];
    attn_world_run(w, ctx, 0, 1, 1, o, lse);
    for (int32_t i = 0; i < 8 * 128; i++) {
        const int64_t v = (int64_t)(i / 128 / 4 * 2 + 1) * KERN_BLOCK_TOKENS * 128 + i % 128;
        assert_true(o[i] == base_f32_from_bf16(w->seqs[0].rows[0][v]));
    }
    attn_world_check(w, 0, 1, 1, o, lse);
    free(o);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void an_empty_shard_gives_zero_and_minus_infinity(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    const int64_t position = 300;
    const int32_t n_tokens = 2;
    attn_world *w = attn_world_create(ctx, 64, 2, 2, mixed_bits, 1, &position, &n_tokens);
    float o[2 * 4 * 64];
    float lse[2 * 4];
    attn_world_run(w, ctx, 9, 9, 1, o, lse); /* nobody owns blocks as rank 9 of 9 */
    for (int32_t i = 0; i < 2 * 4 * 64; i++) {
        assert_true(o[i] == 0.0f);
    }
    for (int32_t i = 0; i < 2 * 4; i++) {
        assert_true(lse[i] == -INFINITY);
    }
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void every_bit_width_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        const int32_t bits[4] = {widths[i], widths[i], widths[i], widths[i]};
        const int64_t position = 256 + 17;
        const int32_t n_tokens = 3;
        attn_world *w =
            attn_world_create(ctx, i % 2 == 0 ? 128 : 64, 1, 2, bits, 1, &position, &n_tokens);
        check_world(ctx, w, 1, 1, 1);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void every_group_size_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int32_t groups[] = {1, 2, 4, 7, 8, 16};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        const int64_t position = 200;
        const int32_t n_tokens = 5;
        attn_world *w =
            attn_world_create(ctx, 64, 2, groups[i], mixed_bits, 1, &position, &n_tokens);
        check_world(ctx, w, 2, 1, 2);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

/* Affine pages of every width and group, both head dims. */
static void affine_pages_agree_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    static const int32_t widths[] = {2, 4, 8};
    static const int32_t sizes[] = {32, 64, 128};
    for (int32_t i = 0; i < 9; i++) {
        const int32_t dim = i % 2 == 0 ? 128 : 64;
        const int32_t k = PAGE_AFFINE(widths[i % 3], sizes[i / 3]);
        const int32_t v = PAGE_AFFINE(widths[i % 3], sizes[i / 3] > dim / 2 ? 32 : sizes[i / 3]);
        const int32_t bits[4] = {k, k, v, v};
        const int64_t position = 256 + 17;
        const int32_t n_tokens = i < 3 ? 40 : 3; /* many query rows, few */
        attn_world *w = attn_world_create(ctx, dim, 1, 2, bits, 1, &position, &n_tokens);
        check_world(ctx, w, 1, 1, i < 3 ? 13 : 1);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void affine_pages_agree_with_fp64_for_every_group_of_heads(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int32_t groups[] = {1, 2, 4, 7, 8};
    const int32_t bits[4] = {PAGE_AFFINE(2, 32), PAGE_AFFINE(4, 128), PAGE_AFFINE(2, 32),
                             PAGE_AFFINE(4, 32)};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        const int64_t position = 3000;
        const int32_t n_tokens = 1;
        attn_world *w = attn_world_create(ctx, i % 2 == 0 ? 128 : 64, 2, groups[i], bits, 1,
                                          &position, &n_tokens);
        check_world(ctx, w, 2, 1, 1);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

/* Blocks of the window and sinks are seen as rows; a chunk over several blocks sees each block both ways. */
static void windows_and_sinks_agree_with_fp64(void **state)
{
    (void)state;
    static const struct {
        int32_t window_blocks;
        int32_t sink_blocks;
    } rows[] = {{1, 0}, {2, 0}, {0, 1}, {1, 1}, {2, 1}, {9, 1}};
    const int32_t bits[4] = {PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 32),
                             PAGE_AFFINE(2, 32)};
    kern_ctx *ctx = parity_ctx(2);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int64_t positions[] = {128 + 70, 900, 0};
        const int32_t n_tokens[] = {300, 1, 140};
        attn_world *w = attn_world_create(ctx, 64, 1, 2, bits, 3, positions, n_tokens);
        w->window_blocks = rows[i].window_blocks;
        w->sink_blocks = rows[i].sink_blocks;
        check_world(ctx, w, 3, 1, 23);
        check_world(ctx, w, 1, 4, 23); /* the same queries in four calls */
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

/* Many pages, so that they are split, behind a sink and before a window. */
static void a_long_decode_with_a_window_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int64_t positions[] = {5119, 5120, 5121};
    const int32_t bits[4] = {PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 64),
                             PAGE_AFFINE(2, 64)};
    for (int32_t i = 0; i < 3; i++) {
        const int32_t n_tokens = 1;
        attn_world *w = attn_world_create(ctx, 128, 1, 4, bits, 1, &positions[i], &n_tokens);
        w->window_blocks = i;
        w->sink_blocks = 1;
        check_world(ctx, w, 1 + i, 1, 1);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

/* A chunk that fills two blocks and begins a third: its pages are seen by later rows only. */
static void a_chunk_over_several_blocks_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    const int64_t position = 128 + 70;
    const int32_t n_tokens = 300;
    attn_world *w = attn_world_create(ctx, 128, 1, 2, mixed_bits, 1, &position, &n_tokens);
    check_world(ctx, w, 3, 1, 9);
    check_world(ctx, w, 1, 4, 9); /* the same queries in four calls */
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void sequences_of_one_call_do_not_mix(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    const int64_t positions[] = {0, 255, 1000, 127};
    const int32_t n_tokens[] = {40, 1, 2, 3};
    attn_world *w = attn_world_create(ctx, 64, 2, 4, mixed_bits, 4, positions, n_tokens);
    check_world(ctx, w, 4, 1, 3);
    check_world(ctx, w, 2, 2, 3);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

/* Long enough for splits; block borders on both sides of the query. */
static void a_long_decode_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int64_t positions[] = {5119, 5120, 5121};
    for (size_t i = 0; i < 3; i++) {
        const int32_t n_tokens = 1;
        attn_world *w = attn_world_create(ctx, 128, 1, 2, mixed_bits, 1, &positions[i], &n_tokens);
        check_world(ctx, w, i == 0 ? 1 : 2, 1, 1);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    const int64_t positions[] = {4000, 100};
    const int32_t n_tokens[] = {2, 200};
    kern_ctx *ctx = parity_ctx(1);
    attn_world *w = attn_world_create(ctx, 64, 2, 2, mixed_bits, 2, positions, n_tokens);
    const int64_t rows = (int64_t)w->n_tokens * 4;
    float *first = parity_memory(rows * 65, sizeof *first);
    float *other = parity_memory(rows * 65, sizeof *other);
    attn_world_run(w, ctx, 0, 1, 1, first, first + rows * 64);
    kern_ctx_destroy(ctx);
    ctx = parity_ctx(3);
    attn_world_run(w, ctx, 0, 1, 1, other, other + rows * 64);
    assert_memory_equal(first, other, (size_t)rows * 65 * sizeof *first);
    free(first);
    free(other);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void results_leave_the_basis(void **state)
{
    (void)state;
    const int64_t positions[] = {4000, 100};
    const int32_t n_tokens[] = {1, 40};
    kern_ctx *ctx = parity_ctx(2);
    attn_world *w = attn_world_create(ctx, 64, 2, 2, mixed_bits, 2, positions, n_tokens);
    const int64_t rows = (int64_t)w->n_tokens * 4;
    float *o = parity_memory(rows * 65, sizeof *o);
    float *want = parity_memory(rows * 65, sizeof *want);
    w->formats[1].v.signs = w->fx[1].signs[1];
    attn_world_run(w, ctx, 0, 1, 1, want, want + rows * 64);
    const kern_basis_args basis = {.x = want,
                                   .formats = w->formats,
                                   .n_tokens = w->n_tokens,
                                   .n_heads = 4,
                                   .n_kv_heads = 2,
                                   .head_dim = 64,
                                   .v_side = true,
                                   .inverse = true};
    CHECK_STATUS(kern_basis(ctx, &basis), BASE_OK);
    world_call *c = parity_memory(1, sizeof *c);
    world_call_init(c, w, 0, 1, 0, 1);
    c->args.o = o;
    c->args.lse = o + rows * 64;
    c->args.leaves_basis = true;
    CHECK_STATUS(kern_attn(ctx, &c->args), BASE_OK);
    assert_memory_equal(o, want, (size_t)rows * 65 * sizeof *o);
    free(c);
    free(o);
    free(want);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

/* side 0: K, 1: V.  Position `bad` becomes NaN in the bf16 rows and in their page. */
static void poison(attn_world *w, kern_ctx *ctx, int32_t side, int32_t bad, bool page_too)
{
    world_seq *s = &w->seqs[0];
    uint16_t *row = s->rows[bad / KERN_BLOCK_TOKENS] +
                    ((int64_t)side * KERN_BLOCK_TOKENS + bad % KERN_BLOCK_TOKENS) * w->head_dim;
    row[5] = 0x7fc0u;
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
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 100;
    const int32_t n_tokens = 200; /* positions 100..299, blocks 0..2 */
    static const int32_t bad[] = {130, 290};
    for (int32_t i = 0; i < 4; i++) {
        attn_world *w = attn_world_create(ctx, 64, 1, 1, bf16_bits, 1, &position, &n_tokens);
        float *o = parity_memory((int64_t)n_tokens * 65, sizeof *o);
        poison(w, ctx, i % 2, bad[i / 2], bad[i / 2] < 256);
        attn_world_run(w, ctx, 0, 1, 1, o, o + (int64_t)n_tokens * 64);
        for (int32_t t = 0; t < n_tokens; t++) {
            const bool sees = position + t >= bad[i / 2];
            assert_int_equal(isnan(o[t * 64 + 5]), sees);
            assert_int_equal(isnan(o[t * 64 + 6]), sees && i % 2 == 0);
        }
        free(o);
        attn_world_destroy(w);
    }
    kern_ctx_destroy(ctx);
}

static void bytes_count_what_is_visible(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 300;
    const int32_t n_tokens = 1;
    const int32_t block = 2 * 128 * 64 * 4; /* of two heads, K and V, as rows or as bf16 pages */
    attn_world *w = attn_world_create(ctx, 64, 2, 1, bf16_bits, 1, &position, &n_tokens);
    world_call *c = parity_memory(1, sizeof *c);
    world_call_init(c, w, 0, 1, 0, 1);
    assert_int_equal(kern_attn_bytes(&c->args), 2 * block + 45 * 2 * 64 * 4);
    attn_world_destroy(w);

    const int32_t bits[4] = {PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 32), PAGE_AFFINE(2, 32),
                             PAGE_AFFINE(2, 32)};
    const int32_t page = 2 * (128 * 64 * 2 * 2 / 8 + 4 * 4 * 64 * 2); /* codes, four sections */
    w = attn_world_create(ctx, 64, 2, 1, bits, 1, &position, &n_tokens);
    w->window_blocks = 1;
    world_call_init(c, w, 0, 1, 0, 1);
    assert_int_equal(kern_attn_bytes(&c->args), page + block + 45 * 2 * 64 * 4);
    c->args.sink_blocks = 1; /* block 0 is no longer read as a page, and not there as rows */
    assert_int_equal(kern_attn_bytes(&c->args), block + 45 * 2 * 64 * 4);
    free(c);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t positions[] = {300, 20};
    const int32_t n_tokens[] = {2, 1};
    attn_world *w = attn_world_create(ctx, 64, 2, 2, mixed_bits, 2, positions, n_tokens);
    world_call *c = parity_memory(1, sizeof *c);
    kern_head_format bad[2] = {w->formats[0], w->formats[1]};
    float *o = parity_guarded(3 * 4 * 64);
    float *lse = parity_guarded(3 * 4);
    world_call_init(c, w, 0, 1, 0, 1);
    c->args.o = o;
    c->args.lse = lse;
    kern_attn_args good = c->args;

    PARITY_REFUSED(kern_attn, ctx, good, head_dim, 96);
    PARITY_REFUSED(kern_attn, ctx, good, head_dim, 128); /* not what the formats say */
    PARITY_REFUSED(kern_attn, ctx, good, n_heads, 5);
    PARITY_REFUSED(kern_attn, ctx, good, n_heads, 0);
    PARITY_REFUSED(kern_attn, ctx, good, n_heads, 2 * 17);
    PARITY_REFUSED(kern_attn, ctx, good, n_kv_heads, 0);
    PARITY_REFUSED(kern_attn, ctx, good, n_tokens, 2);
    PARITY_REFUSED(kern_attn, ctx, good, n_tokens, 4);
    PARITY_REFUSED(kern_attn, ctx, good, n_tokens, -1);
    PARITY_REFUSED(kern_attn, ctx, good, n_seqs, 1);
    PARITY_REFUSED(kern_attn, ctx, good, n_page_list, good.n_page_list - 1);
    PARITY_REFUSED(kern_attn, ctx, good, n_opens, good.n_opens - 1);
    PARITY_REFUSED(kern_attn, ctx, good, n_pages_total, 1);
    PARITY_REFUSED(kern_attn, ctx, good, page_stride, good.page_stride - 1);
    PARITY_REFUSED(kern_attn, ctx, good, window_blocks, -1);
    PARITY_REFUSED(kern_attn, ctx, good, window_blocks, KERN_MAX_ROW_BLOCKS + 1);
    PARITY_REFUSED(kern_attn, ctx, good, sink_blocks, -1);
    PARITY_REFUSED(kern_attn, ctx, good, sink_blocks, KERN_MAX_ROW_BLOCKS + 1);

    c->seqs[1].first_token = 1; /* a token twice, another never */
    CHECK_STATUS(kern_attn(ctx, &good), BASE_BAD_INPUT);
    c->seqs[1].first_token = 2;
    c->list[1].block = 0; /* not ascending */
    CHECK_STATUS(kern_attn(ctx, &good), BASE_BAD_INPUT);
    c->list[1].block = 1;
    c->seqs[0].position = -1;
    CHECK_STATUS(kern_attn(ctx, &good), BASE_BAD_INPUT);
    c->seqs[0].position = 300;

    PARITY_REFUSED(kern_attn, ctx, good, formats, NULL);
    bad[1].k.segments[1].n_dims = 24;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].v.segments[0].bits = 9;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].v.segments[1].norms_offset = bad[1].head_page_bytes - 128;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].k.segments[1].codes_offset += 8;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].k.segments[0].centroids = NULL;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].k.segments[0].kind = KERN_PLAIN; /* and not 16 bits */
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1].k.segments[0].kind = KERN_AFFINE_CHANNEL; /* 4 bits, no group */
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1].k.segments[0].group = 32;
    bad[1].k.segments[0].minima_offset = bad[1].head_page_bytes;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1] = w->formats[1];
    bad[1].v.segments[0].kind = KERN_AFFINE_POSITION; /* 3 bits */
    bad[1].v.segments[0].group = 32;
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    bad[1].v.segments[0].bits = 2;
    bad[1].v.segments[0].group = 64; /* of 32 dims */
    PARITY_REFUSED(kern_attn, ctx, good, formats, bad);
    parity_guarded_untouched(o, 3 * 4 * 64);
    parity_guarded_untouched(lse, 3 * 4);
    CHECK_STATUS(kern_attn(ctx, &good), BASE_OK);

    free(c);
    parity_guarded_free(o);
    parity_guarded_free(lse);
    attn_world_destroy(w);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_keys_give_the_mean_of_the_values),
        cmocka_unit_test(one_position_gives_its_value),
        cmocka_unit_test(an_empty_shard_gives_zero_and_minus_infinity),
        cmocka_unit_test(every_bit_width_agrees_with_fp64),
        cmocka_unit_test(every_group_size_agrees_with_fp64),
        cmocka_unit_test(affine_pages_agree_with_fp64),
        cmocka_unit_test(affine_pages_agree_with_fp64_for_every_group_of_heads),
        cmocka_unit_test(windows_and_sinks_agree_with_fp64),
        cmocka_unit_test(a_long_decode_with_a_window_agrees_with_fp64),
        cmocka_unit_test(a_chunk_over_several_blocks_agrees_with_fp64),
        cmocka_unit_test(sequences_of_one_call_do_not_mix),
        cmocka_unit_test(a_long_decode_agrees_with_fp64),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(results_leave_the_basis),
        cmocka_unit_test(nan_reaches_only_the_queries_that_see_it),
        cmocka_unit_test(bytes_count_what_is_visible),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
