#include "kvshard/format.h"

#include "kvshard/codebook.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <math.h>

static kv_format *make(const char *policy_text, int32_t n_layers, int32_t n_kv_heads,
                       int32_t head_dim)
{
    kv_policy policy;
    kv_format *format = NULL;
    const kv_shape shape = {n_layers, n_kv_heads, head_dim};
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
    return format;
}

static void sections_follow_each_other_without_gaps(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        int32_t head_dim;
        int32_t offsets[4]; /* K codes, K norms, V codes, V norms; -1: no such section */
        int32_t head_page_bytes;
        double k_bits_per_element;
        double v_bits_per_element;
    } rows[] = {
        {"tq:k=3,v=3", 128, {0, 6144, 6400, 12544}, 12800, 3.125, 3.125},
        {"tq:k=2,v=4", 128, {0, 4096, 4352, 12544}, 12800, 2.125, 4.125},
        {"tq:k=8,v=5", 128, {0, 16384, 16640, 26880}, 27136, 8.125, 5.125},
        {"tq:k=3,v=3", 64, {0, 3072, 3328, 6400}, 6656, 3.25, 3.25},
        {"tq:k=3,v=16", 128, {0, 6144, 6400, -1}, 39168, 3.125, 16.0},
        {"tq:k=16,v=3", 128, {0, -1, 32768, 38912}, 39168, 16.0, 3.125},
        {"bf16", 128, {0, -1, 32768, -1}, 65536, 16.0, 16.0},
        {"bf16", 64, {0, -1, 16384, -1}, 32768, 16.0, 16.0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_format *format = make(rows[i].policy, 3, 2, rows[i].head_dim);
        assert_int_equal(format->page_bytes, 6 * rows[i].head_page_bytes);
        assert_true(fabs(format->k_bits_per_element - rows[i].k_bits_per_element) < 1e-12);
        assert_true(fabs(format->v_bits_per_element - rows[i].v_bits_per_element) < 1e-12);
        for (int32_t h = 0; h < 6; h++) {
            const kern_head_format *head = &kv_format_layer(format, h / 2)[h % 2];
            const kern_side *sides[2] = {&head->k, &head->v};
            assert_int_equal(head->head_dim, rows[i].head_dim);
            assert_int_equal(head->head_page_bytes, rows[i].head_page_bytes);
            assert_int_equal(head->offset, h * rows[i].head_page_bytes);
            for (int32_t s = 0; s < 2; s++) {
                const kern_segment *seg = &sides[s]->segments[0];
                const bool plain = rows[i].offsets[2 * s + 1] < 0;
                assert_int_equal(sides[s]->n_segments, 1);
                assert_int_equal(seg->first_dim, 0);
                assert_int_equal(seg->n_dims, rows[i].head_dim);
                assert_int_equal(seg->codes_offset, rows[i].offsets[2 * s]);
                assert_int_equal(seg->bits == 16, plain);
                assert_int_equal(sides[s]->signs == NULL, plain);
                assert_int_equal(seg->centroids == NULL, plain);
                if (!plain) {
                    assert_int_equal(seg->norms_offset, rows[i].offsets[2 * s + 1]);
                }
            }
        }
        kv_format_destroy(format);
    }
}

/* Codes, scales, minima of K, then of V; V never shares among more channels than a head has. */
static void affine_sections_follow_each_other(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        int32_t head_dim;
        int32_t offsets[6];
        int32_t v_group;
        int32_t head_page_bytes;
        double k_bits_per_element;
        double v_bits_per_element;
        int32_t window_blocks;
        int32_t sink_blocks;
    } rows[] = {
        {"kivi", 128, {0, 4096, 5120, 6144, 10240, 11264}, 32, 12288, 3.0, 3.0, 1, 0},
        {"kivi:g=128,s=128", 128, {0, 4096, 4352, 4608, 8704, 8960}, 128, 9216, 2.25, 2.25, 1, 1},
        {"kivi:k=4,v=8,g=64,w=1024",
         128,
         {0, 8192, 8704, 9216, 25600, 26112},
         64,
         26624,
         4.5,
         8.5,
         8,
         0},
        {"kivi:g=128,w=0", 64, {0, 2048, 2176, 2304, 4352, 4608}, 64, 4864, 2.25, 2.5, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_format *format = make(rows[i].policy, 2, 2, rows[i].head_dim);
        const kern_head_format *head = &kv_format_layer(format, 1)[1];
        const kern_segment *k = &head->k.segments[0];
        const kern_segment *v = &head->v.segments[0];
        const int32_t offsets[6] = {k->codes_offset, k->scales_offset, k->minima_offset,
                                    v->codes_offset, v->scales_offset, v->minima_offset};
        assert_memory_equal(offsets, rows[i].offsets, sizeof offsets);
        assert_int_equal(k->kind, KERN_AFFINE_CHANNEL);
        assert_int_equal(v->kind, KERN_AFFINE_POSITION);
        assert_int_equal(k->group, format->policy.group);
        assert_int_equal(v->group, rows[i].v_group);
        assert_null(head->k.signs);
        assert_null(head->v.order);
        assert_int_equal(head->head_page_bytes, rows[i].head_page_bytes);
        assert_true(fabs(format->k_bits_per_element - rows[i].k_bits_per_element) < 1e-12);
        assert_true(fabs(format->v_bits_per_element - rows[i].v_bits_per_element) < 1e-12);
        assert_int_equal(format->window_blocks, rows[i].window_blocks);
        assert_int_equal(format->sink_blocks, rows[i].sink_blocks);
        kv_format_destroy(format);
    }
}

static void every_width_keeps_the_alignment_promises(void **state)
{
    (void)state;
    for (int32_t k = 2; k <= 8; k++) {
        for (int32_t v = 2; v <= 8; v++) {
            for (int32_t d = 64; d <= 128; d += 64) {
                const kv_policy policy = {.kind = KV_POLICY_TQ, .k_bits = k, .v_bits = v};
                const kv_shape shape = {1, 1, d};
                kv_format *format = NULL;
                CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
                const kern_head_format *head = format->heads;
                assert_int_equal(head->k.segments[0].norms_offset % 16, 0);
                assert_int_equal(head->v.segments[0].codes_offset % 16, 0);
                assert_int_equal(head->v.segments[0].norms_offset % 16, 0);
                assert_int_equal(head->head_page_bytes % 128, 0);
                assert_true(head->v.segments[0].norms_offset + 256 <= head->head_page_bytes);
                assert_true(fabs(format->k_bits_per_element + format->v_bits_per_element -
                                 8.0 * head->head_page_bytes / (128.0 * d)) < 1e-12);
                kv_format_destroy(format);
            }
        }
    }
}

static void codebooks_are_the_page_tables_over_the_root_of_the_dims(void **state)
{
    (void)state;
    for (int32_t bits = 2; bits <= 8; bits++) {
        const kv_policy policy = {.kind = KV_POLICY_TQ, .k_bits = bits, .v_bits = 16};
        const kv_shape shape = {1, 1, 128};
        kv_format *format = NULL;
        double c[256];
        CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
        const kern_segment *seg = &format->heads[0].k.segments[0];
        kv_codebook_page(bits, c);
        for (int32_t i = 0; i < 1 << bits; i++) {
            assert_true(seg->centroids[i] == (float)(c[i] / sqrt(128.0)));
            if (i > 0) {
                const double middle = 0.5 * (c[i - 1] / sqrt(128.0) + c[i] / sqrt(128.0));
                assert_true(seg->thresholds[i - 1] == (float)middle);
            }
        }
        kv_format_destroy(format);
    }
}

static void signs_depend_on_side_head_and_dim_but_not_on_the_layer(void **state)
{
    (void)state;
    enum { HEADS = 4, D = 128, ALL = HEADS * D };
    kv_format *format = make("tq:k=3,v=2", 3, HEADS, D);
    kv_format *wider = make("tq:k=5,v=5", 1, 2 * HEADS, D);
    float all[2][ALL];
    for (int32_t h = 0; h < HEADS; h++) {
        const kern_head_format *first = &kv_format_layer(format, 0)[h];
        const kern_head_format *last = &kv_format_layer(format, 2)[h];
        assert_memory_equal(first->k.signs, last->k.signs, D * sizeof(float));
        assert_memory_equal(first->v.signs, last->v.signs, D * sizeof(float));
        /* nor on the number of heads or the widths */
        assert_memory_equal(first->k.signs, wider->heads[h].k.signs, D * sizeof(float));
        assert_memory_equal(first->v.signs, wider->heads[h].v.signs, D * sizeof(float));
        memcpy(&all[0][h * D], first->k.signs, D * sizeof(float));
        memcpy(&all[1][h * D], first->v.signs, D * sizeof(float));
    }
    int32_t n_minus = 0;
    int32_t n_sides_differ = 0;
    for (int32_t i = 0; i < ALL; i++) {
        assert_true(all[0][i] == 1.0f || all[0][i] == -1.0f);
        assert_true(all[1][i] == 1.0f || all[1][i] == -1.0f);
        n_minus += all[0][i] < 0.0f;
        n_sides_differ += all[0][i] != all[1][i];
    }
    assert_in_range(n_minus, ALL / 2 - 68, ALL / 2 + 68); /* six sigma: 3 * sqrt(512) */
    assert_in_range(n_sides_differ, ALL / 2 - 68, ALL / 2 + 68);
    assert_memory_not_equal(&all[0][0], &all[0][D], D * sizeof(float));
    kv_format_destroy(wider);
    kv_format_destroy(format);
}

static void the_hash_changes_with_everything_that_pages_depend_on(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        kv_shape shape;
    } rows[] = {
        {"tq:k=3,v=3", {2, 2, 128}}, {"tq:k=3,v=4", {2, 2, 128}},   {"tq:k=4,v=3", {2, 2, 128}},
        {"tq:k=3,v=3", {2, 2, 64}},  {"tq:k=3,v=3", {4, 1, 128}},   {"tq:k=3,v=3", {1, 4, 128}},
        {"bf16", {2, 2, 128}},       {"tq:k=16,v=16", {2, 2, 128}}, {"tq:k=3,v=16", {2, 2, 128}},
        {"kivi", {2, 2, 128}},       {"kivi:k=4", {2, 2, 128}},     {"kivi:v=4", {2, 2, 128}},
        {"kivi:g=64", {2, 2, 128}},  {"kivi:w=0", {2, 2, 128}},     {"kivi:s=128", {2, 2, 128}},
    };
    enum { N = sizeof rows / sizeof rows[0] };
    base_hash hashes[N];
    for (int32_t i = 0; i < N; i++) {
        const kv_shape *s = &rows[i].shape;
        kv_format *format = make(rows[i].policy, s->n_layers, s->n_kv_heads, s->head_dim);
        kv_format *again = make(rows[i].policy, s->n_layers, s->n_kv_heads, s->head_dim);
        assert_true(base_hash_equal(format->policy_hash, again->policy_hash));
        hashes[i] = format->policy_hash;
        for (int32_t j = 0; j < i; j++) {
            assert_false(base_hash_equal(hashes[i], hashes[j]));
        }
        kv_format_destroy(again);
        kv_format_destroy(format);
    }
}

/* A change here means that pages of older builds can no longer be read: raise
 * KV_PAGE_FORMAT_VERSION. */
static void the_hash_is_the_same_in_every_build(void **state)
{
    (void)state;
    char text[BASE_HASH_TEXT_BYTES];
    kv_format *format = make("tq:k=3,v=5", 2, 2, 128);
    base_hash_text(format->policy_hash, text);
    assert_string_equal(text, "087363d8e907305dea241ec246bc4043");
    kv_format_destroy(format);
}

static void bytes_per_token_count_norms_of_all_heads(void **state)
{
    (void)state;
    kv_format *format = make("tq:k=3,v=3", 32, 8, 128);
    assert_true(kv_format_bytes_per_token(format) == 32 * 8 * 100.0);
    assert_int_equal(kv_format_bf16_bytes_per_token(format), 32 * 8 * 512);
    kv_format_destroy(format);
    format = make("bf16", 32, 8, 128);
    assert_true(kv_format_bytes_per_token(format) ==
                (double)kv_format_bf16_bytes_per_token(format));
    kv_format_destroy(format);
}

static void shapes_outside_the_limits_are_refused(void **state)
{
    (void)state;
    static const struct {
        kv_shape shape;
        const char *error;
    } rows[] = {
        {{0, 1, 128}, "n_layers is 0, allowed 1..1024"},   {{1025, 1, 128}, "n_layers is 1025"},
        {{1, 0, 128}, "n_kv_heads is 0, allowed 1..256"},  {{1, 257, 128}, "n_kv_heads is 257"},
        {{1, 1, 96}, "head_dim is 96, allowed 64 or 128"}, {{1, 1, 256}, "head_dim is 256"},
    };
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_format *format = NULL;
        CHECK_STATUS(kv_format_create(&policy, &rows[i].shape, &base_heap, &format),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
        assert_null(format);
    }
}

static void create_survives_failed_allocations(const char *policy_text)
{
    kv_policy policy;
    const kv_shape shape = {2, 2, 64};
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        kv_format *format = NULL;
        const base_status st = kv_format_create(&policy, &shape, &mem, &format);
        if (st == BASE_OK) {
            assert_true(k > 0);
            kv_format_destroy(format);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(format);
        assert_int_equal(f.n_live, 0);
    }
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    create_survives_failed_allocations("tq:k=3,v=4");
    create_survives_failed_allocations("kivi");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_follow_each_other_without_gaps),
        cmocka_unit_test(affine_sections_follow_each_other),
        cmocka_unit_test(every_width_keeps_the_alignment_promises),
        cmocka_unit_test(codebooks_are_the_page_tables_over_the_root_of_the_dims),
        cmocka_unit_test(signs_depend_on_side_head_and_dim_but_not_on_the_layer),
        cmocka_unit_test(the_hash_changes_with_everything_that_pages_depend_on),
        cmocka_unit_test(the_hash_is_the_same_in_every_build),
        cmocka_unit_test(bytes_per_token_count_norms_of_all_heads),
        cmocka_unit_test(shapes_outside_the_limits_are_refused),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
