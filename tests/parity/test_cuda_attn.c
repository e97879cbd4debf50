/* Decode attention on the GPU against fp64 on the values that pages decode to.  Skips, saying so, where there is no
 * GPU. */
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/formats.h"
#include "kvshard/codebook.h"
#include "tests/support/cuda_world.h"
#include "tests/support/parity_cuda.h"

static kern_ctx *ctx;

static int make_ctx(void **state)
{
    (void)state;
    ctx = parity_ctx(2);
    return 0;
}

static int end_ctx(void **state)
{
    (void)state;
    kern_ctx_destroy(ctx);
    return 0;
}

/* One segment of the same width on both sides; two sequences, the first with 5 blocks and some rows. */
static cw_spec plain_spec(int32_t head_dim, int32_t group, int32_t bits)
{
    return (cw_spec){.head_dim = head_dim,
                     .n_kv_heads = 2,
                     .group = group,
                     .n_segments = 1,
                     .k_bits = {bits},
                     .v_bits = {bits},
                     .n_seqs = 2,
                     .position = {700, 131},
                     .n_tokens = {1, 1}};
}

static void every_group_size_agrees(void **state)
{
    (void)state;
    for (int32_t group = 1; group <= 16; group++) {
        const cw_spec spec = plain_spec(128, group, 3);
        cw_agrees(ctx, &spec);
    }
}

static void every_width_agrees(void **state)
{
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
    (void)state;
    for (int32_t i = 0; i < 9 * 4; i++) {
        const cw_spec spec =
            plain_spec(i % 2 == 0 ? 64 : 128, i / 2 % 2 == 0 ? 4 : 7, widths[i / 4]);
        cw_agrees(ctx, &spec);
    }
}

/* Keys and values of different widths, several to a head, heads unlike each other. */
static void mixed_segments_agree(void **state)
{
    static const struct {
        int32_t n;
        int32_t k[KERN_MAX_SEGMENTS];
        int32_t v[KERN_MAX_SEGMENTS];
    } mixes[] = {
        {1, {4}, {2}},
        {2, {4, 2}, {3, 3}},
        {4, {2, 3, 4, 3}, {3, 2, 2, 4}},
        {4, {2, 8, 4, 16}, {16, 3, 1, 5}},
        {8, {2, 3, 4, 2, 3, 4, 2, 3}, {4, 4, 3, 3, 2, 2, 4, 3}},
        {8, {1, 2, 3, 4, 5, 6, 7, 8}, {8, 7, 6, 5, 4, 3, 2, 16}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof mixes / sizeof mixes[0] * 4; i++) {
        const size_t m = i / 4;
        cw_spec spec = plain_spec(i % 2 == 0 ? 64 : 128, i / 2 % 2 == 0 ? 3 : 8, 0);
        spec.n_segments = spec.head_dim == 64 && mixes[m].n == 8 ? 4 : mixes[m].n;
        spec.n_kv_heads = 3;
        memcpy(spec.k_bits, mixes[m].k, sizeof spec.k_bits);
        memcpy(spec.v_bits, mixes[m].v, sizeof spec.v_bits);
        cw_agrees(ctx, &spec);
    }
}

/* Up to eight queries a sequence, some across the end of a block, which then is rows for one and page for another. */
static void several_queries_see_each_what_its_position_sees(void **state)
{
    static const int32_t widths[] = {3, 16, 8};
    (void)state;
    for (int32_t i = 0; i < 3; i++) {
        cw_spec spec = plain_spec(128, 2, widths[i]);
        static const int64_t position[] = {126, 0, 381, 128, 250, 511};
        static const int32_t n_tokens[] = {5, 8, 4, 1, 7, 2};
        spec.n_seqs = 6;
        memcpy(spec.position, position, sizeof position);
        memcpy(spec.n_tokens, n_tokens, sizeof n_tokens);
        cw_agrees(ctx, &spec);
        spec.group = 5;
        cw_agrees(ctx, &spec);
    }
}

static void windows_and_sinks_are_seen_as_rows(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        cw_spec spec = plain_spec(128, 4, i % 2 == 0 ? 3 : 16);
        spec.position[0] = 638;
        spec.n_tokens[0] = 4;
        spec.window_blocks = i < 2 ? 1 : 3;
        spec.sink_blocks = i < 2 ? 1 : 2;
        cw_agrees(ctx, &spec);
    }
}

static void ragged_shards_agree_and_an_empty_one_is_empty(void **state)
{
    (void)state;
    for (int32_t rank = 0; rank < 6; rank++) {
        cw_spec spec = plain_spec(128, 4, 3);
        spec.position[0] = 1500;
        spec.n_ranks = 6;
        spec.rank = rank;
        cw_agrees(ctx, &spec);
    }
    cw_spec spec = plain_spec(64, 2, 2);
    spec.n_ranks = 100;
    spec.rank = 99;
    cw_world *w = cw_create(ctx, &spec);
    assert_int_equal(w->args.n_page_list + w->args.n_opens, 0);
    float *out = cw_run(w);
    for (int32_t i = 0; i < 8 * 64; i++) {
        assert_true(out[i] == 0.0f);
    }
    for (int32_t i = 8 * 64; i < 8 * 65; i++) {
        assert_true(isinf(out[i]) && out[i] < 0.0f);
    }
    free(out);
    cw_destroy(w);
}

/* Fewer pages than CTAs, then more heads than CTAs: both ways of dividing the work. */
static void any_number_of_heads_fills_the_gpu(void **state)
{
    (void)state;
    cw_spec spec = plain_spec(128, 8, 3);
    spec.n_kv_heads = 1;
    spec.n_seqs = 1;
    spec.position[0] = 7000;
    cw_agrees(ctx, &spec);

    spec.n_kv_heads = 8;
    spec.group = 2;
    spec.n_seqs = 45;
    for (int32_t i = 0; i < spec.n_seqs; i++) {
        spec.position[i] = i * 17;
        spec.n_tokens[i] = i % 9 == 4 ? 0 : 1;
    }
    cw_agrees(ctx, &spec);
}

/* Heads of V that are rotated, in another order, both, neither; results of one CTA and of several. */
static void results_leave_the_basis(void **state)
{
    (void)state;
    for (int32_t dim = 64; dim <= 128; dim += 64) {
        cw_spec spec = plain_spec(dim, 3, 3);
        spec.n_kv_heads = 4;
        spec.n_seqs = 40;
        for (int32_t i = 0; i < spec.n_seqs; i++) {
            spec.position[i] = i == 0 ? 7000 : i * 7;
            spec.n_tokens[i] = 1 + i % 2;
        }
        cw_world *w = cw_create(ctx, &spec);
        parity_device device = {.n_held = 0};
        kern_head_format formats[4];
        uint16_t order[128];
        for (int32_t d = 0; d < dim; d++) {
            order[d] = (uint16_t)(d * 37 % dim); /* 37 is prime to 64 and 128 */
        }
        for (int32_t h = 0; h < 4; h++) {
            formats[h] = w->formats[h];
            formats[h].v.signs = h % 2 == 0 ? w->fx[h].signs[1] : NULL;
            formats[h].v.order = h < 2 ? order : NULL;
        }
        const kern_head_format *lent = device_formats(&device, formats, 4);
        const int64_t n = (int64_t)w->n_tokens * w->n_heads * dim;
        const int64_t n_lse = (int64_t)w->n_tokens * w->n_heads;
        float *out = cw_run(w);
        float *got = cw_run_out_of(w, lent);
        const kern_basis_args basis = {.x = on_device(out, (size_t)n * sizeof *out),
                                       .formats = lent,
                                       .n_tokens = w->n_tokens,
                                       .n_heads = w->n_heads,
                                       .n_kv_heads = 4,
                                       .head_dim = dim,
                                       .v_side = true,
                                       .inverse = true};
        CHECK_STATUS(kern_cuda_basis(NULL, &basis), BASE_OK);
        float *want = from_device(basis.x, n);
        assert_memory_equal(got, want, (size_t)n * sizeof *got);
        assert_memory_equal(got + n, out + n, (size_t)n_lse * sizeof *got);
        device_free(&device);
        free(want);
        free(got);
        free(out);
        cw_destroy(w);
    }
}

/* The last row is NaN: the queries before it do not notice. */
static void nan_reaches_only_the_query_that_sees_it(void **state)
{
    (void)state;
    cw_spec spec = plain_spec(128, 4, 3);
    spec.n_seqs = 1;
    spec.n_tokens[0] = 4;
    cw_world *w = cw_create(ctx, &spec);
    float *want = cw_run(w);
    const int64_t last = w->spec.position[0] + 3;
    cw_block *b = &w->blocks[0][last / KERN_BLOCK_TOKENS];
    for (int64_t side = 0; side < 2; side++) {
        b->rows[(side * KERN_BLOCK_TOKENS + last % KERN_BLOCK_TOKENS) * 128 + 5] = 0x7fc0u;
    }
    assert_int_equal(
        cudaMemcpy(b->lent, b->rows, (size_t)kern_open_elems(2, 128) * 2, cudaMemcpyHostToDevice),
        cudaSuccess);
    float *got = cw_run(w);
    const size_t before = (size_t)3 * 8 * 128;
    assert_memory_equal(got, want, before * sizeof *got);
    assert_true(isnan(got[before + 5]));
    assert_true(isfinite(got[before + 4 * 128 + 5])); /* the other KV head */
    free(want);
    free(got);
    cw_destroy(w);
}

/* The policies' codebooks: up to 4 bits, levels are int8. */
static void page_codebooks_of_up_to_4_bits_have_int8_levels(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        page_fixture fx;
        double book[256];
        page_fixture_init(&fx, 128, 1, &bits, &bits, false, 1);
        kv_codebook_page(bits, book);
        for (int32_t i = 0; i < 1 << bits; i++) {
            fx.books[0].centroids[i] = (float)(book[i] / sqrt(128.0));
            fx.books[1].centroids[i] = (float)(book[i] / sqrt(128.0));
        }
        kern_cuda_formats *f = NULL;
        CHECK_STATUS(kern_cuda_formats_create(&fx.format, 1, 128, &base_heap, &f), BASE_OK);
        assert_int_equal(f->family, CUDA_CODED);
        assert_int_equal(f->n_halves, bits <= 4 ? 0 : 2 << bits);
        kern_cuda_formats_destroy(f);
    }
}

static void segments_of_8_dims_are_refused(void **state)
{
    (void)state;
    const int32_t bits[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    page_fixture fx;
    kern_cuda_formats *f = NULL;
    page_fixture_init(&fx, 64, 8, bits, bits, false, 1);
    CHECK_STATUS(kern_cuda_formats_create(&fx.format, 1, 64, &base_heap, &f), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("16 dims");
    assert_null(f);
}

int main(void)
{
    if (cuda_memory_is_missing()) {
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_group_size_agrees),
        cmocka_unit_test(every_width_agrees),
        cmocka_unit_test(mixed_segments_agree),
        cmocka_unit_test(several_queries_see_each_what_its_position_sees),
        cmocka_unit_test(windows_and_sinks_are_seen_as_rows),
        cmocka_unit_test(ragged_shards_agree_and_an_empty_one_is_empty),
        cmocka_unit_test(any_number_of_heads_fills_the_gpu),
        cmocka_unit_test(results_leave_the_basis),
        cmocka_unit_test(nan_reaches_only_the_query_that_sees_it),
        cmocka_unit_test(page_codebooks_of_up_to_4_bits_have_int8_levels),
        cmocka_unit_test(segments_of_8_dims_are_refused),
    };
    return cmocka_run_group_tests(tests, make_ctx, end_ctx);
}
