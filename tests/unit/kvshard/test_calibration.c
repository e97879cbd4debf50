#include "kvshard/calibration.h"

#include "base/hash.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <unistd.h>

#define SHAPE      ((kv_shape){2, 3, 64})
#define N_ENERGIES (2 * 3 * 64)
#define N_BYTES    (64 + 4 * N_ENERGIES + 16)
#define MAX_BYTES  4096

static const base_hash model_a = {{1, 2, 3}};

static kv_calibration *example(void)
{
    const kv_shape shape = SHAPE;
    kv_calibration *c = NULL;
    CHECK_STATUS(kv_calibration_create(&shape, model_a, 2048, &base_heap, &c), BASE_OK);
    for (int32_t i = 0; i < N_ENERGIES; i++) {
        c->energies[i] = 0.25f * (float)i;
    }
    return c;
}

static void example_file(uint8_t bytes_out[N_BYTES])
{
    kv_calibration *c = example();
    base_bytes bytes;
    base_bytes_init(&bytes, MAX_BYTES, &base_heap);
    CHECK_STATUS(kv_calibration_write(c, &bytes), BASE_OK);
    assert_int_equal(bytes.n_bytes, N_BYTES);
    memcpy(bytes_out, bytes.data, N_BYTES);
    base_bytes_reset(&bytes);
    kv_calibration_destroy(c);
}

/* Makes the checksum right again, so that what it covers is looked at. */
static void sign(uint8_t bytes[N_BYTES])
{
    base_hasher *hasher = NULL;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add(hasher, bytes, N_BYTES - 16);
    const base_hash sum = base_hasher_end(hasher);
    memcpy(bytes + N_BYTES - 16, sum.bytes, 16);
}

static base_status parse(const uint8_t *bytes, size_t n_bytes, kv_calibration **out)
{
    return kv_calibration_parse((base_view){(const char *)bytes, n_bytes}, "x.cal", &base_heap,
                                out);
}

static void what_is_written_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[N_BYTES];
    kv_calibration *want = example();
    kv_calibration *got = NULL;
    example_file(bytes);
    CHECK_STATUS(parse(bytes, N_BYTES, &got), BASE_OK);
    assert_true(base_hash_equal(got->model, model_a));
    assert_memory_equal(&got->shape, &want->shape, sizeof got->shape);
    assert_int_equal(got->n_tokens, 2048);
    assert_memory_equal(got->energies, want->energies, N_ENERGIES * sizeof *got->energies);
    assert_ptr_equal(kv_calibration_head(got, 1, 2), got->energies + 5 * 64);
    assert_memory_equal(bytes, "ROPECAL\n\2\0\0\0\2\0\0\0\3\0\0\0\100\0\0\0\0\10\0\0\0\0\0\0", 32);
    kv_calibration_destroy(got);
    kv_calibration_destroy(want);
}

static void every_damaged_byte_and_every_cut_is_noticed(void **state)
{
    (void)state;
    uint8_t bytes[N_BYTES];
    kv_calibration *got = NULL;
    example_file(bytes);
    for (size_t i = 0; i < N_BYTES; i++) {
        bytes[i] ^= 0x10;
        CHECK_STATUS(parse(bytes, N_BYTES, &got), BASE_BAD_FILE);
        CHECK_ERROR_NAMES("x.cal: offset ");
        bytes[i] ^= 0x10;
        CHECK_STATUS(parse(bytes, i, &got), BASE_BAD_FILE);
    }
    assert_null(got);
}

static void what_is_wrong_is_named_with_its_offset(void **state)
{
    (void)state;
    static const struct {
        int32_t at;
        uint8_t bytes[4];
        const char *error;
    } rows[] = {
        {0, {'x', 'x', 'x', 'x'}, "offset 0: not a calibration file"},
        {8, {1}, "offset 8: version 1, this program reads 2"},
        {12, {0}, "offset 12: 0 layers, 3 KV heads of 64 dims"},
        {12, {3}, "offset 1616: the file ends there, its shape says 2384"},
        {20, {65}, "offset 12: 2 layers, 3 KV heads of 65 dims"},
        {24, {0, 0, 0, 0}, "offset 24: made from no tokens"},
        {48, {'k', 'i', 'v', 'i'}, "offset 48: made for another policy than block-gtq"},
        {68, {0, 0, 0xc0, 0x7f}, "offset 68: an energy is nan"},
        {72, {0, 0, 0x80, 0x7f}, "offset 72: an energy is inf"},
        {76, {0, 0, 0x80, 0xbf}, "offset 76: an energy is -1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[N_BYTES];
        kv_calibration *got = NULL;
        example_file(bytes);
        memcpy(bytes + rows[i].at, rows[i].bytes, 4);
        sign(bytes);
        CHECK_STATUS(parse(bytes, N_BYTES, &got), BASE_BAD_FILE);
        CHECK_ERROR_NAMES(rows[i].error);
        assert_null(got);
    }
}

static void a_policy_finds_its_file_and_refuses_that_of_another_model(void **state)
{
    (void)state;
    char folder[] = "/tmp/calibration-XXXXXX";
    char path[128];
    char text[192];
    uint8_t bytes[N_BYTES];
    const base_hash model_b = {{9}};
    const kv_shape shape = SHAPE;
    const kv_shape other = {2, 3, 128};
    kv_calibration *c = NULL;

    CHECK_STATUS(kv_calibration_open("tq:k=3,v=3", "nowhere", model_a, &shape, &base_heap, &c),
                 BASE_OK);
    assert_null(c);
    CHECK_STATUS(kv_calibration_open("block-gtq", "nowhere", model_a, &shape, &base_heap, &c),
                 BASE_NOT_FOUND);
    CHECK_ERROR_NAMES("ropewalk calibrate --model nowhere --text FILE -o "
                      "nowhere/ropewalk/block-gtq.cal");

    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/a.cal", folder);
    (void)snprintf(text, sizeof text, "block-gtq:k=3,calib=%s,v=2", path);
    example_file(bytes);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, N_BYTES, file), N_BYTES);
    assert_int_equal(fclose(file), 0);
    CHECK_STATUS(kv_calibration_open(text, "nowhere", model_a, &shape, &base_heap, &c), BASE_OK);
    assert_true(c->energies[7] == 1.75f);
    kv_calibration_destroy(c);
    c = NULL;
    CHECK_STATUS(kv_calibration_open(text, "nowhere", model_b, &shape, &base_heap, &c),
                 BASE_BAD_FILE);
    CHECK_ERROR_NAMES("offset 32: made from model 01020300");
    CHECK_STATUS(kv_calibration_open(text, "nowhere", model_a, &other, &base_heap, &c),
                 BASE_BAD_FILE);
    CHECK_ERROR_NAMES("2 layers, 3 KV heads of 64; the model has 2, 3 of 128");
    assert_null(c);
    (void)unlink(path);
    (void)rmdir(folder);
}

static void parse_survives_every_failed_allocation(void **state)
{
    (void)state;
    uint8_t bytes[N_BYTES];
    example_file(bytes);
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        kv_calibration *c = NULL;
        const base_status st =
            kv_calibration_parse((base_view){(const char *)bytes, N_BYTES}, "x.cal", &mem, &c);
        if (st == BASE_OK) {
            assert_true(k > 0);
            kv_calibration_destroy(c);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(c);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_comes_back),
        cmocka_unit_test(every_damaged_byte_and_every_cut_is_noticed),
        cmocka_unit_test(what_is_wrong_is_named_with_its_offset),
        cmocka_unit_test(a_policy_finds_its_file_and_refuses_that_of_another_model),
        cmocka_unit_test(parse_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
