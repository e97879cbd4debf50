#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/model/safetensors.h"

#include <stdio.h>

#define MAX_FILE_BYTES 8192

typedef struct file_bytes {
    uint8_t bytes[MAX_FILE_BYTES];
    size_t n_bytes;
} file_bytes;

/* A file of a header text and n_data_bytes of data; the header is padded so that data starts at a
 * multiple of 8, as the format's writers do. */
static file_bytes file_of(const char *header, size_t n_data_bytes)
{
    file_bytes f = {{0}, 0};
    const size_t n = strlen(header);
    const size_t n_padded = (n + 7) / 8 * 8;
    assert_true(8 + n_padded + n_data_bytes <= MAX_FILE_BYTES);
    f.bytes[0] = (uint8_t)n_padded;
    f.bytes[1] = (uint8_t)(n_padded >> 8);
    memcpy(f.bytes + 8, header, n);
    memset(f.bytes + 8 + n, ' ', n_padded - n);
    f.n_bytes = 8 + n_padded + n_data_bytes;
    return f;
}

static base_status parse(const file_bytes *f, safetensors_index **index_out)
{
    return safetensors_parse(f->bytes, f->n_bytes, "w.safetensors", &base_heap, index_out);
}

static void check_refused(const char *header, size_t n_data_bytes, const char *name)
{
    const file_bytes f = file_of(header, n_data_bytes);
    safetensors_index *index = NULL;
    CHECK_STATUS(parse(&f, &index), BASE_BAD_FILE);
    assert_null(index);
    CHECK_ERROR_NAMES("w.safetensors");
    CHECK_ERROR_NAMES(name);
}

#define TWO                                                                \
    "{\"__metadata__\":{\"format\":\"pt\"},"                               \
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]}," \
    "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"     \
    "\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[28,30]},"     \
    "\"e\":{\"dtype\":\"F16\",\"shape\":[0,9],\"data_offsets\":[28,28]}}"

static void entries_are_sorted_by_name_and_count_from_the_start_of_the_file(void **state)
{
    (void)state;
    const file_bytes f = file_of(TWO, 30);
    safetensors_index *index = NULL;
    CHECK_STATUS(parse(&f, &index), BASE_OK);
    const size_t data = f.n_bytes - 30;
    assert_int_equal(index->n_entries, 4);
    assert_string_equal(index->entries[0].name, "a");
    assert_string_equal(index->entries[3].name, "s");
    const safetensors_entry *b = safetensors_find(index, "b");
    assert_ptr_equal(b, &index->entries[1]);
    assert_int_equal(b->dtype, BASE_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->begin, data + 16);
    assert_int_equal(b->end, data + 28);
    assert_int_equal(safetensors_find(index, "s")->n_dims, 0);
    assert_int_equal(safetensors_find(index, "e")->end, data + 28);
    assert_null(safetensors_find(index, "__metadata__"));
    assert_null(safetensors_find(index, "ab"));
    safetensors_free(index);
}

static void a_file_without_tensors_has_an_empty_index(void **state)
{
    (void)state;
    const file_bytes f = file_of("{}", 0);
    safetensors_index *index = NULL;
    CHECK_STATUS(parse(&f, &index), BASE_OK);
    assert_int_equal(index->n_entries, 0);
    assert_null(safetensors_find(index, "a"));
    safetensors_free(index);
}

#define ONE(dtype, shape, offsets) \
    "{\"t.w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void damaged_directories_are_refused_with_the_tensor_named(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data_bytes;
        const char *name;
    } cases[] = {
        {ONE("\"I64\"", "[1]", "[0,8]"), 8, "t.w' has dtype 'I64'"},
        {ONE("7", "[1]", "[0,8]"), 8, "t.w' has dtype"},
        {ONE("\"F32\"", "[2]", "[0,4]"), 4, "take 8"},
        {ONE("\"F32\"", "[2]", "[0,8]"), 7, "7 data bytes"},
        {ONE("\"F32\"", "[2]", "[0,8]"), 9, "the tensors end at"},
        {ONE("\"F32\"", "[2]", "[4,12]"), 12, "t.w' starts at"},
        {ONE("\"F32\"", "[2]", "[8,0]"), 8, "t.w"},
        {ONE("\"F32\"", "[2]", "[-8,0]"), 8, "t.w"},
        {ONE("\"F32\"", "[2]", "[0,8,8]"), 8, "data_offsets"},
        {ONE("\"F32\"", "[2]", "{}"), 8, "data_offsets"},
        {ONE("\"F32\"", "[-2]", "[0,8]"), 8, "shape[0]"},
        {ONE("\"F32\"", "[2.0]", "[0,8]"), 8, "shape[0]"},
        {ONE("\"F32\"", "2", "[0,8]"), 8, "shape"},
        {ONE("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "at most 8"},
        {ONE("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "overflows"},
        {"{\"t.w\":7}", 0, "t.w"},
        {"[]", 0, "JSON object"},
        {"{\"t.w\":", 0, "line"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, "b' starts at"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, "no multiple"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
         "\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
         4, "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_refused(cases[i].header, cases[i].n_data_bytes, cases[i].name);
    }
}

static void every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    const file_bytes f = file_of(TWO, 30);
    for (size_t n = 0; n < f.n_bytes; n++) {
        safetensors_index *index = NULL;
        CHECK_STATUS(safetensors_parse(f.bytes, n, "w.safetensors", &base_heap, &index),
                     BASE_BAD_FILE);
        assert_null(index);
    }
}

static void a_header_length_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    file_bytes f = file_of("{}", 0);
    memset(f.bytes, 0xff, 8);
    safetensors_index *index = NULL;
    CHECK_STATUS(parse(&f, &index), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("104857600");
}

static void parse_survives_every_failed_allocation(void **state)
{
    (void)state;
    const file_bytes f = file_of(TWO, 30);
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        safetensors_index *index = NULL;
        const base_status st = safetensors_parse(f.bytes, f.n_bytes, "w", &mem, &index);
        if (st == BASE_OK) {
            assert_true(k > 0);
            safetensors_free(index);
            assert_int_equal(a.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(index);
        assert_int_equal(a.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_sorted_by_name_and_count_from_the_start_of_the_file),
        cmocka_unit_test(a_file_without_tensors_has_an_empty_index),
        cmocka_unit_test(damaged_directories_are_refused_with_the_tensor_named),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(a_header_length_beyond_the_limit_is_refused),
        cmocka_unit_test(parse_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
