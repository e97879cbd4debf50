/* Shards and the real append and pack together: what lies in pages and rows depends on positions alone,
 * not on how tokens fell into steps. */
#include "kvshard/shard.h"

#include "base/random.h"
#include "kernels/kern.h"
#include "tests/support/test.h"

#include <stdlib.h>

#define N_LAYERS 2
#define N_HEADS  2
#define HEAD_DIM 64
#define N_TOKENS 700
#define N_BLOCKS 6 /* the last one stays open */
#define ROW      (N_HEADS * HEAD_DIM)

static const kv_shard_options options = {.n_pages = N_BLOCKS,
                                         .n_slots = 2,
                                         .max_step_tokens = N_TOKENS,
                                         .max_blocks_per_slot = N_BLOCKS};

/* K (side 0) or V of every position of a layer. */
static void fill(int32_t layer, uint64_t side, float *x)
{
    for (int32_t i = 0; i < N_TOKENS * ROW; i++) {
        x[i] = (float)base_random_normal(9, 2 * (uint64_t)layer + side, (uint64_t)i);
    }
}

/* Runs the sequence in steps of `chunk` tokens; the owned blocks are those with block % 3 != odd_out. */
static kv_shard *run(kern_ctx *ctx, const kv_format *format, int32_t chunk, int32_t odd_out,
                     const kv_step **last_step_out)
{
    static float k[N_LAYERS][N_TOKENS * ROW];
    static float v[N_LAYERS][N_TOKENS * ROW];
    kv_shard *shard = NULL;
    CHECK_STATUS(kv_shard_create(format, &options, ctx, &base_heap, &shard), BASE_OK);
    for (int32_t layer = 0; layer < N_LAYERS; layer++) {
        fill(layer, 0, k[layer]);
        fill(layer, 1, v[layer]);
    }
    for (int32_t b = 0; b < N_BLOCKS; b++) {
        if (b % 3 != odd_out) {
            CHECK_STATUS(kv_shard_add_page(shard, 1, b, b), BASE_OK);
        }
    }
    for (int32_t p = 0; p < N_TOKENS; p += chunk) {
        const int32_t n = p + chunk > N_TOKENS ? N_TOKENS - p : chunk;
        const kv_step_seq seq = {.slot = 1, .n_tokens = n, .position = p};
        const kv_step *step = NULL;
        CHECK_STATUS(kv_shard_begin_step(shard, &seq, 1, &step), BASE_OK);
        for (int32_t layer = 0; layer < N_LAYERS; layer++) {
            const kern_open *opens = kv_shard_layer_opens(shard, layer);
            const kern_append_args append = {.k = k[layer] + p * ROW,
                                             .v = v[layer] + p * ROW,
                                             .positions = step->positions,
                                             .dest = step->dest,
                                             .opens = opens,
                                             .formats = kv_format_layer(format, layer),
                                             .n_tokens = n,
                                             .n_kv_heads = N_HEADS,
                                             .head_dim = HEAD_DIM,
                                             .n_opens = step->n_opens};
            const kern_pack_args pack = {.packs = step->packs,
                                         .opens = opens,
                                         .formats = kv_format_layer(format, layer),
                                         .pages = step->pages,
                                         .page_stride = step->page_stride,
                                         .n_packs = step->n_packs,
                                         .n_opens = step->n_opens,
                                         .n_pages = step->n_pages_total,
                                         .n_kv_heads = N_HEADS};
            CHECK_STATUS(kern_append(ctx, &append), BASE_OK);
            CHECK_STATUS(kern_pack_pages(ctx, &pack), BASE_OK);
        }
        *last_step_out = step;
    }
    return shard;
}

static void compare(kv_shard *a, const kv_step *step_a, kv_shard *b, const kv_step *step_b)
{
    const size_t n_page_bytes = (size_t)options.n_pages * (size_t)step_a->page_stride;
    assert_memory_equal(step_a->pages, step_b->pages, n_page_bytes);
    for (int32_t layer = 0; layer < N_LAYERS; layer++) {
        const kern_open *open_a = &kv_shard_layer_opens(a, layer)[step_a->n_opens - 1];
        const kern_open *open_b = &kv_shard_layer_opens(b, layer)[step_b->n_opens - 1];
        assert_int_equal(open_a->block, N_BLOCKS - 1);
        assert_int_equal(open_b->block, N_BLOCKS - 1);
        for (int32_t side = 0; side < 2 * N_HEADS; side++) {
            const int32_t at = side * KERN_BLOCK_TOKENS * HEAD_DIM;
            assert_memory_equal(open_a->rows + at, open_b->rows + at,
                                (N_TOKENS % KERN_BLOCK_TOKENS) * HEAD_DIM * sizeof(uint16_t));
        }
    }
}

static void chunks_leave_no_trace(void **state)
{
    (void)state;
    static const int32_t chunks[] = {1, 7, 100, 127, 128, 129, 300, 512};
    static const char *const policies[] = {"tq:k=3,v=5", "bf16", "kivi:w=128"};
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(2, &base_heap, &ctx), BASE_OK);
    for (int32_t i = 0; i < 3; i++) {
        kv_policy policy;
        kv_format *format = NULL;
        const kv_shape shape = {N_LAYERS, N_HEADS, HEAD_DIM};
        CHECK_STATUS(kv_policy_parse(policies[i], &policy), BASE_OK);
        CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
        for (int32_t odd_out = 0; odd_out <= 3; odd_out++) {
            if (odd_out == (N_BLOCKS - 1) % 3) {
                continue; /* would leave the open block to another rank; 3 leaves none out */
            }
            const kv_step *whole_step = NULL;
            kv_shard *whole = run(ctx, format, N_TOKENS, odd_out, &whole_step);
            for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
                const kv_step *step = NULL;
                kv_shard *shard = run(ctx, format, chunks[c], odd_out, &step);
                compare(whole, whole_step, shard, step);
                kv_shard_destroy(shard);
            }
            kv_shard_destroy(whole);
        }
        kv_format_destroy(format);
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_leave_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
