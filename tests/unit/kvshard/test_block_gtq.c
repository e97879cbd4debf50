/* Block-GTQ: how blocks are grouped, what groups cost, and what pages of them lose. */
#include "kvshard/calibration.h"

#include "base/random.h"
#include "kernels/kern.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define T     KERN_BLOCK_TOKENS
#define MAX_D 128

static int make_ctx(void **state)
{
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    *state = ctx;
    return 0;
}

static int end_ctx(void **state)
{
    kern_ctx_destroy(*state);
    return 0;
}

/* One layer, one head; scores [head_dim / 2]: the energies of queries and of keys, NULL for policies that need none;
 * tilt: keys have so many times the energy of queries in odd blocks, and the inverse in even ones. */
static kv_format *make_tilted(const char *text, int32_t head_dim, const float *scores, float tilt)
{
    const kv_shape shape = {1, 1, head_dim};
    const base_hash model = {{0}};
    kv_policy policy;
    kv_calibration *c = NULL;
    kv_format *format = NULL;
    CHECK_STATUS(kv_policy_parse(text, &policy), BASE_OK);
    if (scores != NULL) {
        CHECK_STATUS(kv_calibration_create(&shape, model, 1, &base_heap, &c), BASE_OK);
        for (int32_t i = 0; i < head_dim; i++) {
            const bool up = (i >= head_dim / 2) == (i % (head_dim / 2) % 2 != 0);
            c->energies[i] = scores[i % (head_dim / 2)] * (up ? tilt : 1.0f / tilt);
        }
    }
    CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, c, &base_heap, &format), BASE_OK);
    kv_calibration_destroy(c);
    return format;
}

static kv_format *make(const char *text, int32_t head_dim, const float *scores)
{
    return make_tilted(text, head_dim, scores, 1.0f);
}

static void draw_scores(uint64_t seed, double sigma, int32_t n, float *scores)
{
    for (int32_t i = 0; i < n; i++) {
        scores[i] = (float)exp(sigma * base_random_normal(seed, 0, (uint64_t)i));
    }
}

static void check_groups(const kern_side *k, const float *scores, int32_t head_dim, int32_t mean)
{
    const int32_t n_blocks = head_dim / 2;
    int32_t width[MAX_D / 2] = {0};
    int32_t n_bits = 0;
    for (int32_t s = 0; s < k->n_segments; s++) {
        const kern_segment *g = &k->segments[s];
        assert_int_equal(g->n_dims % 16, 0);
        assert_in_range(g->bits, 1, 8);
        assert_true(s == 0 || g->bits > k->segments[s - 1].bits);
        n_bits += g->n_dims * g->bits;
        for (int32_t j = g->first_dim; j < g->first_dim + g->n_dims; j += 2) {
            const int32_t block = k->order[j];
            assert_in_range(block, 0, n_blocks - 1);
            assert_int_equal(k->order[j + 1], block + n_blocks);
            assert_int_equal(width[block], 0); /* once */
            width[block] = g->bits;
        }
    }
    assert_in_range(k->n_segments, 1, 2);
    assert_in_range(n_bits, 1, mean * head_dim - 16 * (k->n_segments - 1)); /* and norms */
    for (int32_t i = 0; i < n_blocks; i++) {
        for (int32_t j = 0; j < n_blocks; j++) {
            assert_true(scores[i] <= scores[j] || width[i] >= width[j]);
        }
    }
}

static void groups_are_multiples_of_16_dims_within_the_bytes_of_tq(void **state)
{
    (void)state;
    int32_t most_groups = 0;
    for (int32_t i = 0; i < 64; i++) {
        const int32_t head_dim = i % 2 == 0 ? 64 : 128;
        const int32_t mean = 1 + i / 2 % 8;
        float scores[MAX_D / 2];
        char text[64];
        draw_scores((uint64_t)i, 0.3 * (i / 8), head_dim / 2, scores);
        (void)snprintf(text, sizeof text, "block-gtq:k=%d,v=3", mean);
        kv_format *format = make(text, head_dim, scores);
        const kern_head_format *head = format->heads;
        check_groups(&head->k, scores, head_dim, mean);
        assert_null(head->v.order);
        assert_int_equal(head->v.n_segments, 1);
        assert_true(format->k_bits_per_element <= mean + 16.0 / head_dim);
        const int32_t n_groups = head->k.n_segments;
        assert_true(fabs(format->k_bits_per_element + format->v_bits_per_element -
                         8.0 * (double)format->page_bytes / (T * head_dim)) < 1e-12);
        most_groups = n_groups > most_groups ? n_groups : most_groups;
        kv_format_destroy(format);
    }
    assert_int_equal(most_groups, 2);
}

static void the_hash_follows_the_scores_and_not_their_scale(void **state)
{
    (void)state;
    float scores[3][MAX_D / 2];
    base_hash hashes[3];
    draw_scores(7, 1.0, MAX_D / 2, scores[0]);
    for (int32_t i = 0; i < MAX_D / 2; i++) {
        scores[1][i] = 4.0f * scores[0][i];
        scores[2][i * 37 % (MAX_D / 2)] = scores[0][i];
    }
    for (int32_t i = 0; i < 3; i++) {
        kv_format *format = make("block-gtq:k=3,v=3", MAX_D, scores[i]);
        hashes[i] = format->policy_hash;
        kv_format_destroy(format);
    }
    assert_true(base_hash_equal(hashes[0], hashes[1]));
    assert_false(base_hash_equal(hashes[0], hashes[2]));
}

static void a_policy_without_its_calibration_is_refused(void **state)
{
    (void)state;
    const kv_policy policy = {.kind = KV_POLICY_BLOCK_GTQ, .k_bits = 3, .v_bits = 3};
    const kv_shape shape = {1, 1, 128};
    const kv_shape other = {1, 2, 128};
    const base_hash model = {{0}};
    kv_calibration *c = NULL;
    kv_format *format = NULL;
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("policy block-gtq needs a calibration");
    CHECK_STATUS(kv_calibration_create(&other, model, 1, &base_heap, &c), BASE_OK);
    CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, c, &base_heap, &format),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("1 layers, 2 KV heads of 128; the cache has 1, 1 of 128");
    assert_null(format);
    kv_calibration_destroy(c);
}

/* Keys through append, pack, decode and the inverse basis. */
static void round_trip(kern_ctx *ctx, const kv_format *format, const float *x, float *back)
{
    static uint16_t rows[2 * T * MAX_D];
    const int32_t d = format->shape.head_dim;
    int64_t positions[T];
    int32_t dest[T] = {0};
    uint8_t *page = malloc((size_t)format->page_bytes);
    assert_non_null(page);
    for (int32_t t = 0; t < T; t++) {
        positions[t] = t;
    }
    const kern_open open = {.rows = rows};
    const kern_append_args append = {.k = x,
                                     .v = x,
                                     .positions = positions,
                                     .dest = dest,
                                     .opens = &open,
                                     .formats = format->heads,
                                     .n_tokens = T,
                                     .n_kv_heads = 1,
                                     .head_dim = d,
                                     .n_opens = 1};
    const kern_pack pack = {0};
    const kern_pack_args packs = {.packs = &pack,
                                  .opens = &open,
                                  .formats = format->heads,
                                  .pages = page,
                                  .page_stride = format->page_bytes,
                                  .n_packs = 1,
                                  .n_opens = 1,
                                  .n_pages = 1,
                                  .n_kv_heads = 1};
    const kern_basis_args basis = {.x = back,
                                   .formats = format->heads,
                                   .n_tokens = T,
                                   .n_heads = 1,
                                   .n_kv_heads = 1,
                                   .head_dim = d,
                                   .inverse = true};
    CHECK_STATUS(kern_append(ctx, &append), BASE_OK);
    CHECK_STATUS(kern_pack_pages(ctx, &packs), BASE_OK);
    kern_page_decode(format->heads, page, 0, back);
    CHECK_STATUS(kern_basis(ctx, &basis), BASE_OK);
    free(page);
}

/* Rows whose block i has energy scores[i] on average. */
static void draw_rows(uint64_t seed, const float *scores, int32_t head_dim, float *x)
{
    for (int32_t i = 0; i < T * head_dim; i++) {
        const float scale = sqrtf(scores[i % head_dim % (head_dim / 2)] / 2.0f);
        x[i] = scale * (float)base_random_normal(seed, 1, (uint64_t)i);
    }
}

/* Root mean square of q . (k - k') over all pairs; rows' energies as make_tilted has them. */
static double logit_error(kern_ctx *ctx, const char *text, const float *scores, float tilt,
                          double *bits_out)
{
    static float k[T * MAX_D], q[T * MAX_D], back[T * MAX_D];
    kv_format *format = make_tilted(text, MAX_D, strncmp(text, "tq", 2) == 0 ? NULL : scores, tilt);
    double sum = 0.0;
    for (uint64_t block = 0; block < 4; block++) {
        draw_rows(100 + block, scores, MAX_D, k);
        draw_rows(200 + block, scores, MAX_D, q);
        for (int32_t i = 0; i < T * MAX_D; i++) {
            const float up = sqrtf(i % MAX_D % (MAX_D / 2) % 2 != 0 ? tilt : 1.0f / tilt);
            k[i] *= up;
            q[i] /= up;
        }
        round_trip(ctx, format, k, back);
        for (int32_t a = 0; a < T; a++) {
            for (int32_t b = 0; b < T; b++) {
                double e = 0.0;
                for (int32_t d = 0; d < MAX_D; d++) {
                    e += (double)q[a * MAX_D + d] *
                         ((double)k[b * MAX_D + d] - (double)back[b * MAX_D + d]);
                }
                sum += e * e;
            }
        }
    }
    *bits_out = format->k_bits_per_element;
    kv_format_destroy(format);
    return sqrt(sum / (4.0 * T * T));
}

static void skewed_keys_keep_better_logits_than_tq_at_no_more_bytes(void **state)
{
    for (int32_t k = 2; k <= 4; k++) {
        float scores[MAX_D / 2];
        char texts[2][64];
        double bits[2];
        double errors[2];
        draw_scores(11, 1.5, MAX_D / 2, scores);
        (void)snprintf(texts[0], sizeof texts[0], "block-gtq:k=%d,v=3", k);
        (void)snprintf(texts[1], sizeof texts[1], "tq:k=%d,v=3", k);
        for (int32_t i = 0; i < 2; i++) {
            errors[i] = logit_error(*state, texts[i], scores, 1.0f, &bits[i]);
        }
        print_message("k=%d: %.3f bits, logit error %.3f of that of tq in %.3f\n", k, bits[0],
                      errors[0] / errors[1], bits[1]);
        assert_true(bits[0] <= bits[1]);
        assert_true(errors[0] < 0.75 * errors[1]);
    }
}

/* Keys 64 times as strong as queries in every other block, and the inverse in the rest: the same logits. */
static void stretching_undoes_what_keys_and_queries_owe_each_other(void **state)
{
    float scores[MAX_D / 2];
    double bits[2];
    draw_scores(12, 0.0, MAX_D / 2, scores);
    const double plain = logit_error(*state, "block-gtq:k=3,v=3", scores, 1.0f, &bits[0]);
    const double tilted = logit_error(*state, "block-gtq:k=3,v=3", scores, 64.0f, &bits[1]);
    assert_true(bits[0] == 3.125 && bits[1] == 3.125); /* one group */
    assert_true(fabs(tilted / plain - 1.0) < 1e-5);
    assert_true(logit_error(*state, "tq:k=3,v=3", scores, 64.0f, &bits[0]) > 8.0 * tilted);
}

/* Relative error of the narrowest group, whose blocks' energies rise `ratio`-fold with their index. */
static double group_error(kern_ctx *ctx, const kv_format *format, double ratio)
{
    static float x[T * MAX_D], back[T * MAX_D];
    const kern_segment *g = &format->heads->k.segments[0];
    const uint16_t *order = format->heads->k.order;
    const int32_t d = format->shape.head_dim;
    float energies[MAX_D / 2];
    double error = 0.0;
    double norm = 0.0;
    for (int32_t i = 0; i < d / 2; i++) {
        energies[i] = (float)pow(ratio, 2.0 * i / g->n_dims);
    }
    for (uint64_t block = 0; block < 8; block++) {
        draw_rows(300 + block, energies, d, x);
        round_trip(ctx, format, x, back);
        for (int32_t i = 0; i < T * g->n_dims; i++) {
            const int32_t at = i / g->n_dims * d + order[g->first_dim + i % g->n_dims];
            error += ((double)x[at] - (double)back[at]) * ((double)x[at] - (double)back[at]);
            norm += (double)x[at] * (double)x[at];
        }
    }
    return error / norm;
}

/* Groups of 48 and 96 dims: were 32 and 16 dims rotated apart, 16-fold energies would cost 35 % more. */
static void a_group_of_unequal_energies_loses_no_more_than_one_of_equal(void **state)
{
    for (int32_t head_dim = 64; head_dim <= 128; head_dim += 64) {
        float scores[MAX_D / 2];
        for (int32_t i = 0; i < head_dim / 2; i++) {
            scores[i] = i < head_dim * 3 / 8 ? 1.0f : 256.0f; /* 1 bit below, 8 above */
        }
        kv_format *format = make("block-gtq:k=3,v=3", head_dim, scores);
        assert_int_equal(format->heads->k.segments[0].n_dims, head_dim * 3 / 4);
        assert_int_equal(format->heads->k.segments[0].bits, 1);
        const double flat = group_error(*state, format, 1.0);
        const double steep = group_error(*state, format, 16.0);
        print_message("%d dims: %.4f of equal energies, %.4f of 16-fold\n", head_dim * 3 / 4, flat,
                      steep);
        assert_true(fabs(flat / 0.396 - 1.0) < 0.03);
        assert_true(steep < 1.05 * flat);
        kv_format_destroy(format);
    }
}

static void rope_leaves_the_energy_of_a_block_as_it_was(void **state)
{
    enum { D = 128 };
    static float before[T * D], x[T * D], turns[T * D];
    float scores[D / 2];
    float inv_freq[D / 2];
    int64_t positions[T];
    draw_scores(5, 1.0, D / 2, scores);
    draw_rows(6, scores, D, before);
    memcpy(x, before, sizeof x);
    for (int32_t i = 0; i < D / 2; i++) {
        inv_freq[i] = powf(1e6f, -2.0f * (float)i / D);
    }
    for (int32_t t = 0; t < T; t++) {
        positions[t] = 31 * t;
    }
    const kern_turns_args turn = {positions, inv_freq, turns, T, D};
    CHECK_STATUS(kern_turns(*state, &turn), BASE_OK);
    const kern_rope_args args = {
        .x = x, .turns = turns, .n_tokens = T, .n_heads = 1, .head_dim = D, .x_stride = D};
    CHECK_STATUS(kern_rope(*state, &args), BASE_OK);
    assert_memory_not_equal(x, before, sizeof x);
    for (int32_t i = 0; i < D / 2; i++) {
        double sums[2] = {0.0, 0.0};
        for (int32_t t = 0; t < T; t++) {
            const float *rows[2] = {before + t * D, x + t * D};
            for (int32_t s = 0; s < 2; s++) {
                sums[s] += (double)rows[s][i] * (double)rows[s][i] +
                           (double)rows[s][i + D / 2] * (double)rows[s][i + D / 2];
            }
        }
        assert_true(fabs(sums[1] / sums[0] - 1.0) < 1e-6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_multiples_of_16_dims_within_the_bytes_of_tq),
        cmocka_unit_test(the_hash_follows_the_scores_and_not_their_scale),
        cmocka_unit_test(a_policy_without_its_calibration_is_refused),
        cmocka_unit_test(skewed_keys_keep_better_logits_than_tq_at_no_more_bytes),
        cmocka_unit_test(stretching_undoes_what_keys_and_queries_owe_each_other),
        cmocka_unit_test(a_group_of_unequal_energies_loses_no_more_than_one_of_equal),
        cmocka_unit_test(rope_leaves_the_energy_of_a_block_as_it_was),
    };
    return cmocka_run_group_tests(tests, make_ctx, end_ctx);
}
