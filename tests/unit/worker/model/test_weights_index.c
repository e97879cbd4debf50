#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/model/weights_index.h"

static const char good[] =
    "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"b\":\"x-2.safetensors\","
    "\"a\":\"x-1.safetensors\",\"c\":\"x-1.safetensors\"}}";

static void tensors_and_files_come_sorted(void **state)
{
    (void)state;
    weights_index *index = NULL;
    CHECK_STATUS(weights_index_parse(base_view_of(good), "index", &base_heap, &index), BASE_OK);
    assert_int_equal(index->n_entries, 3);
    assert_int_equal(index->n_files, 2);
    assert_string_equal(index->files[0], "x-1.safetensors");
    assert_string_equal(index->files[1], "x-2.safetensors");
    assert_string_equal(index->entries[1].tensor, "b");
    assert_int_equal(index->entries[0].file, 0);
    assert_int_equal(index->entries[1].file, 1);
    assert_int_equal(index->entries[2].file, 0);
    weights_index_free(index);
}

static void files_outside_the_folder_and_damage_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *names;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "../x.safetensors"},
        {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", "/etc/x.safetensors"},
        {"{\"weight_map\":{\"a\":\"sub/x.safetensors\"}}", "sub/x"},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "'.safetensors'"},
        {"{\"weight_map\":{\"a\":\"x.bin\"}}", "x.bin"},
        {"{\"weight_map\":{\"a\":7}}", "'a'"},
        {"{\"weight_map\":{}}", "0 tensors"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{}", "weight_map"},
        {"[]", "weight_map"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"", "line"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}", "a"},
        {"", "line"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weights_index *index = NULL;
        CHECK_STATUS(
            weights_index_parse(base_view_of(cases[i].text), "the index", &base_heap, &index),
            BASE_BAD_FILE);
        CHECK_ERROR_NAMES("the index");
        CHECK_ERROR_NAMES(cases[i].names);
        assert_null(index);
    }
}

static void parse_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        weights_index *index = NULL;
        const base_status st = weights_index_parse(base_view_of(good), "index", &mem, &index);
        if (st == BASE_OK) {
            assert_true(k > 0);
            weights_index_free(index);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_int_equal(a.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_and_files_come_sorted),
        cmocka_unit_test(files_outside_the_folder_and_damage_are_refused),
        cmocka_unit_test(parse_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
