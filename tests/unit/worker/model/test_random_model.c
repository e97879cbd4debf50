#include "base/half.h"
#include "base/random.h"
#include "tests/support/model_alloc.h"
#include "tests/support/test.h"
#include "worker/model/model.h"
#include "worker/model/random_model.h"

#include <math.h>

static model *open_model(const char *name)
{
    model *m = NULL;
    CHECK_STATUS(model_open(name, &base_heap, &m), BASE_OK);
    return m;
}

static void ranks_that_open_the_same_name_hold_the_same_weights_and_hash(void **state)
{
    (void)state;
    model *a = open_model("random:tiny:7");
    model *b = open_model("random:tiny:7");
    model *c = open_model("random:tiny:8");
    const size_t n = (size_t)a->config.n_vocab * (size_t)a->config.width;
    assert_true(base_hash_equal(a->hash, b->hash));
    assert_false(base_hash_equal(a->hash, c->hash));
    assert_memory_equal(a->embedding.data, b->embedding.data, 2 * n);
    assert_memory_not_equal(a->embedding.data, c->embedding.data, 2 * n);
    assert_memory_not_equal(a->layers[0].q.data, a->layers[1].q.data, 2 * 128);
    assert_ptr_equal(a->head.data, a->embedding.data); /* tied */
    assert_string_equal(a->name, "random:tiny:7");
    assert_int_equal(a->tokenizer_json.n_bytes, 0);
    model_close(a);
    model_close(b);
    model_close(c);
}

static void an_element_is_a_function_of_seed_name_and_index_on_any_number_of_threads(void **state)
{
    (void)state;
    enum { ROWS = 1031, COLS = 4099 }; /* odd sizes, enough for several threads */
    model_config config = {.n_layers = 1,
                           .width = 8,
                           .n_heads = 1,
                           .n_kv_heads = 1,
                           .head_dim = 64,
                           .ffn_width = 8,
                           .n_vocab = 8};
    const model_slice all = {.rows = ROWS, .cols = COLS};
    const model_slice few = {.rows = 3, .cols = COLS};
    model_split split;
    random_weights *w = NULL;
    const void *large = NULL;
    const void *small = NULL;
    CHECK_STATUS(model_split_make(&config, 0, 1, &split), BASE_OK);
    CHECK_STATUS(random_weights_create(&config, &split, 5, &base_heap, &w), BASE_OK);
    CHECK_STATUS(random_weights_make(w, "a", &all, &large), BASE_OK);
    CHECK_STATUS(random_weights_make(w, "a", &few, &small), BASE_OK);
    assert_memory_equal(large, small, 2 * 3 * COLS);
    const uint16_t *x = large;
    double sum = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        const double v = (double)base_f32_from_bf16(x[i]);
        sum += v;
        squares += v * v;
    }
    /* Mean 0 and variance 1 / COLS: seams between threads and holes would show. */
    assert_true(fabs(sum / ROWS / COLS) < 1e-4);
    assert_true(fabs(squares / ROWS - 1.0) < 0.01);
    /* Rows, and columns, that begin and end at odd elements. */
    const model_slice rows = {.rows = ROWS, .cols = COLS, .row = {3, 7}};
    const model_slice cols = {.rows = ROWS, .cols = COLS, .row = {1, 900}, .col = {5, 3000}};
    CHECK_STATUS(random_weights_make(w, "a", &rows, &small), BASE_OK);
    assert_memory_equal(small, x + 3 * COLS, 2 * 4 * COLS);
    CHECK_STATUS(random_weights_make(w, "a", &cols, &small), BASE_OK);
    for (size_t r = 0; r < 899; r++) {
        assert_memory_equal((const uint16_t *)small + r * 2995, x + (r + 1) * COLS + 5, 2 * 2995);
    }
    CHECK_STATUS(random_weights_make(w, "b", &few, &small), BASE_OK);
    assert_memory_not_equal(large, small, 2 * 3 * COLS);
    random_weights_destroy(w);
}

static void names_that_are_no_shape_are_refused_and_the_shapes_listed(void **state)
{
    (void)state;
    static const char *const names[] = {"random:",        "random:huge",
                                        "random:tiny:",   "random:tiny:x",
                                        "random:tiny:-1", "random:tiny:99999999999999999999"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        model *m = NULL;
        CHECK_STATUS(model_open(names[i], &base_heap, &m), BASE_BAD_INPUT);
        assert_null(m);
        CHECK_ERROR_NAMES(i < 2 ? "llama-3.1-70b" : "seed");
    }
}

static void every_shape_is_a_model_that_config_accepts(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny", "qwen2.5-3b", "qwen3-8b", "llama-3.1-8b",
                                        "llama-3.1-70b"};
    static const int32_t layers[] = {2, 36, 36, 32, 80};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const base_view none = {NULL, 0};
        base_view json;
        uint64_t seed = 1;
        model_config c;
        CHECK_STATUS(random_model_parse(names[i], &json, &seed), BASE_OK);
        assert_int_equal(seed, 0);
        CHECK_STATUS(model_config_parse(json, none, none, &c), BASE_OK);
        assert_int_equal(c.n_layers, layers[i]);
        assert_int_equal(c.rope.kind, i >= 3 ? ROPE_LLAMA3 : ROPE_DEFAULT);
    }
}

static void a_model_that_this_host_cannot_hold_is_refused_before_it_is_made(void **state)
{
    (void)state;
    const model_config config = {.n_layers = 1024,
                                 .width = 65536,
                                 .n_heads = 1024,
                                 .n_kv_heads = 64,
                                 .head_dim = 128,
                                 .ffn_width = 1 << 20,
                                 .n_vocab = 1 << 20};
    model_split split;
    random_weights *w = NULL;
    CHECK_STATUS(model_split_make(&config, 0, 1, &split), BASE_OK);
    CHECK_STATUS(random_weights_create(&config, &split, 0, &base_heap, &w), BASE_NO_MEMORY);
    CHECK_ERROR_NAMES("GB");
    assert_null(w);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    check_model_allocations("random:tiny", 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_open_the_same_name_hold_the_same_weights_and_hash),
        cmocka_unit_test(an_element_is_a_function_of_seed_name_and_index_on_any_number_of_threads),
        cmocka_unit_test(names_that_are_no_shape_are_refused_and_the_shapes_listed),
        cmocka_unit_test(every_shape_is_a_model_that_config_accepts),
        cmocka_unit_test(a_model_that_this_host_cannot_hold_is_refused_before_it_is_made),
        cmocka_unit_test(open_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
