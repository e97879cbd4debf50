#include "worker/model/split.h"

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/worker/model/tiny_model.h"
#include "worker/model/model.h"
#include "worker/model/resident.h"

static model_config config_of(int32_t n_heads, int32_t n_kv_heads, int32_t ffn_width,
                              int32_t n_vocab)
{
    return (model_config){.n_heads = n_heads,
                          .n_kv_heads = n_kv_heads,
                          .head_dim = 64,
                          .ffn_width = ffn_width,
                          .n_vocab = n_vocab};
}

/* Spans follow each other from 0 to the end, none empty. */
static int32_t follow(model_span s, int32_t at)
{
    assert_int_equal(s.begin, at);
    assert_true(s.end > s.begin);
    return s.end;
}

static void check_shares(const model_config *c, int32_t n_ranks)
{
    const int32_t group = c->n_heads / c->n_kv_heads;
    int32_t heads = 0;
    int32_t ffn = 0;
    int32_t vocab = 0;
    for (int32_t r = 0; r < n_ranks; r++) {
        model_split s;
        CHECK_STATUS(model_split_make(c, r, n_ranks, &s), BASE_OK);
        assert_int_equal(s.head_begins[r], heads);
        assert_int_equal(s.head_begins[n_ranks], c->n_heads);
        heads = follow(s.heads, heads);
        ffn = follow(s.ffn, ffn);
        vocab = follow(s.vocab, vocab);
        assert_int_equal(s.kv_heads.begin, s.heads.begin / group);
        assert_int_equal(s.kv_heads.end, (s.heads.end - 1) / group + 1);
        /* Whole groups, or heads of one: what merge takes. */
        if (model_span_count(s.kv_heads) > 1) {
            assert_int_equal(model_span_count(s.heads), group * model_span_count(s.kv_heads));
        }
        assert_true(model_span_count(s.heads) % model_span_count(s.kv_heads) == 0);
        assert_int_equal(s.vocab.begin % s.vocab_unit, 0);
        assert_int_equal(s.vocab.end % s.vocab_unit, 0);
        assert_true(model_span_count(s.vocab) <= s.vocab_longest);
    }
    assert_int_equal(heads, c->n_heads);
    assert_int_equal(ffn, c->ffn_width);
    assert_int_equal(vocab, c->n_vocab);
}

static void shares_are_of_whole_heads_and_leave_nothing_out(void **state)
{
    (void)state;
    const model_config configs[] = {
        config_of(4, 2, 768, 4096),       config_of(16, 2, 11008, 151936),
        config_of(32, 8, 14336, 128256),  config_of(64, 8, 28672, 128256),
        config_of(12, 12, 100, 40 * 112), config_of(14, 1, 48, 1024)};
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        for (int32_t n = 1; n <= configs[i].n_heads; n++) {
            check_shares(&configs[i], n);
        }
    }
}

static void shares_are_even_where_they_can_be(void **state)
{
    (void)state;
    const model_config c = config_of(32, 8, 14336, 128256);
    for (int32_t n = 1; n <= 8; n *= 2) {
        for (int32_t r = 0; r < n; r++) {
            model_split s;
            CHECK_STATUS(model_split_make(&c, r, n, &s), BASE_OK);
            assert_int_equal(model_span_count(s.heads), 32 / n);
            assert_int_equal(model_span_count(s.ffn), 14336 / n);
            assert_int_equal(model_span_count(s.vocab), 128256 / n);
            assert_int_equal(s.vocab_longest, 128256 / n);
        }
    }
}

static void what_cannot_be_shared_out_is_refused_by_name(void **state)
{
    (void)state;
    model_split s;
    const model_config c = config_of(4, 2, 768, 4096);
    const model_config narrow = config_of(16, 2, 8, 4096);
    const model_config odd = config_of(16, 2, 768, 32001);
    CHECK_STATUS(model_split_make(&c, 0, 0, &s), BASE_BAD_INPUT);
    CHECK_STATUS(model_split_make(&c, 0, KERN_DEAL_MAX_RANKS + 1, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("256");
    CHECK_STATUS(model_split_make(&c, 0, 5, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("num_attention_heads is 4");
    CHECK_STATUS(model_split_make(&narrow, 0, 9, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("intermediate_size is 8");
    CHECK_STATUS(model_split_make(&odd, 0, 4, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("vocab_size is 32001");
    CHECK_STATUS(model_split_make(&odd, 0, 3, &s), BASE_OK);
}

/* Columns of o and down, rows of the MLP and of the tables; everything else is whole. */
static void check_rows(const model_tensor *part, const model_tensor *whole, int32_t cols,
                       model_span rows)
{
    const size_t row_bytes = (size_t)cols * base_dtype_bytes(whole->dtype);
    assert_int_equal(part->dtype, whole->dtype);
    assert_int_equal(part->n_elems, (int64_t)model_span_count(rows) * cols);
    assert_memory_equal(part->data, (const char *)whole->data + (size_t)rows.begin * row_bytes,
                        (size_t)model_span_count(rows) * row_bytes);
}

static void check_cols(const model_tensor *part, const model_tensor *whole, int32_t rows,
                       int32_t cols, model_span own)
{
    const size_t elem = base_dtype_bytes(whole->dtype);
    const size_t n_bytes = (size_t)model_span_count(own) * elem;
    assert_int_equal(part->n_elems, (int64_t)model_span_count(own) * rows);
    for (size_t r = 0; r < (size_t)rows; r++) {
        assert_memory_equal(
            (const char *)part->data + r * n_bytes,
            (const char *)whole->data + (r * (size_t)cols + (size_t)own.begin) * elem, n_bytes);
    }
}

/* Bytes of what every rank has: norms, q, k, v. */
static int64_t common_bytes(const model *m)
{
    int64_t n = m->final_norm.n_elems;
    for (int32_t i = 0; i < m->config.n_layers; i++) {
        const model_layer *l = &m->layers[i];
        n +=
            l->attn_norm.n_elems + l->q.n_elems + l->k.n_elems + l->v.n_elems + l->mlp_norm.n_elems;
    }
    return n * (int64_t)base_dtype_bytes(m->final_norm.dtype);
}

static void check_model(const char *name, int32_t n_ranks)
{
    model *whole = NULL;
    int64_t n_bytes = 0;
    CHECK_STATUS(model_open(name, &base_heap, &whole), BASE_OK);
    const model_config *c = &whole->config;
    for (int32_t r = 0; r < n_ranks; r++) {
        const model_options options = {.rank = r, .n_ranks = n_ranks};
        model *part = NULL;
        CHECK_STATUS(model_open_with(name, &options, &base_heap, &part), BASE_OK);
        const model_split *s = &part->split;
        const model_span columns = {s->heads.begin * c->head_dim, s->heads.end * c->head_dim};
        assert_true(base_hash_equal(part->hash, whole->hash));
        check_rows(&part->embedding, &whole->embedding, c->width, s->vocab);
        check_rows(&part->head, &whole->head, c->width, s->vocab);
        for (int32_t i = 0; i < c->n_layers; i++) {
            const model_layer *l = &part->layers[i];
            const model_layer *w = &whole->layers[i];
            check_rows(&l->q, &w->q, c->width, (model_span){0, c->n_heads * c->head_dim});
            check_rows(&l->gate, &w->gate, c->width, s->ffn);
            check_rows(&l->up, &w->up, c->width, s->ffn);
            check_cols(&l->o, &w->o, c->width, c->n_heads * c->head_dim, columns);
            check_cols(&l->down, &w->down, c->width, c->ffn_width, s->ffn);
        }
        n_bytes += resident_bytes(part) - common_bytes(part);
        model_close(part);
    }
    assert_int_equal(n_bytes, resident_bytes(whole) - common_bytes(whole));
    model_close(whole);
}

static void parts_are_slices_of_the_whole_and_no_bytes_more(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= 4; n++) {
        static const base_dtype dtypes[] = {BASE_F32, BASE_BF16};
        for (size_t i = 0; i < 2; i++) {
            const tiny_options options = {.dtype = dtypes[i], .seed = 3};
            const tiny_folder folder = tiny_create(&options);
            check_model(folder.path, n);
            tiny_remove(&folder);
        }
        check_model("random:tiny:5", n);
    }
}

/* What a choice between whole and split weights is made from. */
static void a_model_says_what_all_its_weights_take_before_they_are_loaded(void **state)
{
    (void)state;
    const tiny_options options = {.dtype = BASE_BF16, .seed = 3};
    const tiny_folder folder = tiny_create(&options);
    const char *const names[] = {folder.path, "random:tiny"};
    const base_view no_rope = {NULL, 0};
    for (size_t i = 0; i < 2; i++) {
        model *whole = NULL;
        model *part = NULL;
        CHECK_STATUS(model_open(names[i], &base_heap, &whole), BASE_OK);
        CHECK_STATUS(model_read(names[i], no_rope, &base_heap, &part), BASE_OK);
        assert_null(part->layers);
        assert_int_equal(part->mapped, i == 0);
        assert_int_equal(part->whole_bytes, whole->whole_bytes);
        assert_true(base_hash_equal(part->hash, whole->hash));
        const int64_t all = resident_bytes(whole);
        const int64_t vectors = i == 0 ? 0 : (2 * 2 + 1) * 128 * 2; /* norms of random:tiny */
        assert_int_equal(part->whole_bytes, all - vectors);
        CHECK_STATUS(model_load(part, 1, 2), BASE_OK);
        assert_true(resident_bytes(part) < all);
        assert_int_equal(part->whole_bytes, whole->whole_bytes);
        model_close(part);
        model_close(whole);
    }
    tiny_remove(&folder);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    const tiny_options options = {.dtype = BASE_BF16, .seed = 3};
    const tiny_folder folder = tiny_create(&options);
    const char *const names[] = {folder.path, "random:tiny"};
    const model_options part = {.rank = 1, .n_ranks = 3};
    const model_options too_many = {.n_ranks = 5};
    for (size_t i = 0; i < 2; i++) {
        base_status st = BASE_NO_MEMORY;
        for (int k = 0; st != BASE_OK; k++) {
            failing_alloc a = {.fail_at = k};
            const base_alloc mem = {failing_get, failing_put, &a};
            model *m = NULL;
            st = model_open_with(names[i], &part, &mem, &m);
            if (st != BASE_OK) {
                assert_int_equal(st, BASE_NO_MEMORY);
                assert_null(m);
            } else {
                assert_true(k > 10);
            }
            model_close(m);
            assert_int_equal(a.n_live, 0);
        }
        model *m = NULL;
        CHECK_STATUS(model_open_with(names[i], &too_many, &base_heap, &m), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("num_attention_heads");
        assert_null(m);
    }
    tiny_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_of_whole_heads_and_leave_nothing_out),
        cmocka_unit_test(shares_are_even_where_they_can_be),
        cmocka_unit_test(what_cannot_be_shared_out_is_refused_by_name),
        cmocka_unit_test(parts_are_slices_of_the_whole_and_no_bytes_more),
        cmocka_unit_test(a_model_says_what_all_its_weights_take_before_they_are_loaded),
        cmocka_unit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
