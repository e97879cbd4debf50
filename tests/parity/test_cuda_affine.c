/* Decode attention over affine pages on the GPU against fp64 on the values that they decode to.  Skips, saying so,
 * where there is no GPU. */
#include "kernels/cuda/formats.h"
#include "tests/support/cuda_world.h"

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

/* Of a side: 16 bits are bf16 values; V's group is at most the head. */
static int32_t bits_of(int32_t bits, int32_t group, int32_t at_most)
{
    return bits == 16 ? bits : PAGE_AFFINE(bits, group < at_most ? group : at_most);
}

/* Two sequences, the first with 5 blocks and some rows. */
static cw_spec affine_spec(int32_t head_dim, int32_t n_rows, int32_t k, int32_t v, int32_t group)
{
    return (cw_spec){.head_dim = head_dim,
                     .n_kv_heads = 2,
                     .group = n_rows,
                     .n_segments = 1,
                     .k_bits = {bits_of(k, group, 128)},
                     .v_bits = {bits_of(v, group, head_dim)},
                     .n_seqs = 2,
                     .position = {700, 131},
                     .n_tokens = {1, 1}};
}

static void every_width_beside_every_other_agrees(void **state)
{
    static const int32_t widths[] = {2, 4, 8, 16};
    (void)state;
    for (int32_t i = 0; i < 16 * 3 * 4; i += parity_step(5)) {
        const int32_t k = widths[i % 4];
        const int32_t v = widths[i / 4 % 4];
        const int32_t group = 32 << i / 16 % 3;
        const cw_spec spec =
            affine_spec(i / 48 % 2 == 0 ? 128 : 64, i / 96 == 0 ? 4 : 7, k, v, group);
        cw_agrees(ctx, &spec);
    }
}

static void every_group_size_agrees(void **state)
{
    (void)state;
    for (int32_t n_rows = 1; n_rows <= 16; n_rows++) {
        const cw_spec spec = affine_spec(128, n_rows, n_rows % 2 == 0 ? 2 : 4, 2, 32);
        cw_agrees(ctx, &spec);
    }
}

/* Up to eight queries a sequence, some across the end of a block, which then is rows for one and page for another. */
static void several_queries_see_each_what_its_position_sees(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        cw_spec spec = affine_spec(128, i % 2 == 0 ? 2 : 5, 2, i < 2 ? 2 : 16, 32);
        static const int64_t position[] = {126, 0, 381, 128, 250, 511};
        static const int32_t n_tokens[] = {5, 8, 4, 1, 7, 2};
        spec.n_seqs = 6;
        memcpy(spec.position, position, sizeof position);
        memcpy(spec.n_tokens, n_tokens, sizeof n_tokens);
        cw_agrees(ctx, &spec);
    }
}

/* As the policy asks for them: windows of up to 8 blocks and a sink; queries on both sides of an end of a block. */
static void windows_and_sinks_are_seen_as_rows(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 12; i++) {
        cw_spec spec = affine_spec(i % 2 == 0 ? 128 : 64, 4, i % 3 == 0 ? 4 : 2, 2, 32 << i / 4);
        spec.position[0] = 1406;
        spec.n_tokens[0] = i % 4 < 2 ? 4 : 1;
        spec.window_blocks = i % 3 == 0 ? 1 : i % 3 == 1 ? 3 : 8;
        spec.sink_blocks = i / 2 % 2;
        cw_agrees(ctx, &spec);
    }
}

static void ragged_shards_agree(void **state)
{
    (void)state;
    for (int32_t rank = 0; rank < 6; rank++) {
        cw_spec spec = affine_spec(128, 4, 4, 4, 32);
        spec.position[0] = 1500;
        spec.n_ranks = 6;
        spec.rank = rank;
        cw_agrees(ctx, &spec);
    }
}

static void a_long_sequence_fills_the_gpu(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        cw_spec spec = affine_spec(128, i == 0 ? 8 : 4, 2, 2, i == 0 ? 32 : 128);
        spec.n_kv_heads = 1;
        spec.n_seqs = 1;
        spec.position[0] = 7000;
        cw_agrees(ctx, &spec);
    }
}

/* A query that is far longer than those beside it, or not finite, changes nothing for them. */
static void a_wild_query_reaches_only_its_own_row(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        const cw_spec spec = affine_spec(128, i == 0 ? 4 : 8, 2, 4, 32);
        cw_world *w = cw_create(ctx, &spec);
        float *want = cw_run(w);
        float wild[128];
        for (int32_t d = 0; d < 128; d++) {
            wild[d] = d == 3 && i == 1 ? INFINITY : w->q[128 + d] * 1e4f;
        }
        assert_int_equal(
            cudaMemcpy((void *)(w->args.q + 128), wild, sizeof wild, cudaMemcpyHostToDevice),
            cudaSuccess);
        float *got = cw_run(w);
        assert_memory_equal(got, want, 128 * sizeof *got);
        assert_memory_equal(got + 256, want + 256,
                            (size_t)(w->n_tokens * w->n_heads - 2) * 128 * sizeof *got);
        assert_int_equal(isnan(got[128]), i == 1);
        free(want);
        free(got);
        cw_destroy(w);
    }
}

static void layers_of_affine_and_other_heads_are_refused(void **state)
{
    (void)state;
    const int32_t affine = PAGE_AFFINE(2, 32);
    const int32_t codes = 4;
    page_fixture fx[2];
    kern_cuda_formats *f = NULL;
    page_fixture_init(&fx[0], 64, 1, &affine, &affine, false, 1);
    page_fixture_init(&fx[1], 64, 1, &codes, &codes, false, 1);
    const kern_head_format formats[2] = {fx[0].format, fx[1].format};
    CHECK_STATUS(kern_cuda_formats_create(formats, 2, 64, &base_heap, &f), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("affine");
    assert_null(f);
}

int main(void)
{
    if (cuda_memory_is_missing()) {
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_beside_every_other_agrees),
        cmocka_unit_test(every_group_size_agrees),
        cmocka_unit_test(several_queries_see_each_what_its_position_sees),
        cmocka_unit_test(windows_and_sinks_are_seen_as_rows),
        cmocka_unit_test(ragged_shards_agree),
        cmocka_unit_test(a_long_sequence_fills_the_gpu),
        cmocka_unit_test(a_wild_query_reaches_only_its_own_row),
        cmocka_unit_test(layers_of_affine_and_other_heads_are_refused),
    };
    return cmocka_run_group_tests(tests, make_ctx, end_ctx);
}
