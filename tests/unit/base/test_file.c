#include "base/file.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <unistd.h>

static char path[] = "/tmp/ropewalk-test-file-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    const int fd = mkstemp(path);
    return fd >= 0 && write(fd, "ropewalk", 8) == 8 && close(fd) == 0 ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void maps_and_reads_the_same_bytes(void **state)
{
    base_map map = {NULL, 0};
    char *bytes = NULL;
    size_t n_bytes = 0;
    (void)state;
    CHECK_STATUS(base_map_open(path, &map), BASE_OK);
    assert_int_equal(map.n_bytes, 8);
    assert_memory_equal(map.bytes, "ropewalk", 8);
    base_map_close(&map);
    assert_null(map.bytes);
    CHECK_STATUS(base_file_read(path, 8, &base_heap, &bytes, &n_bytes), BASE_OK);
    assert_int_equal(n_bytes, 8);
    assert_string_equal(bytes, "ropewalk");
    base_heap.put(base_heap.ctx, bytes);
}

static void errors_name_the_path(void **state)
{
    base_map map = {NULL, 0};
    char *bytes = NULL;
    size_t n_bytes = 0;
    (void)state;
    CHECK_STATUS(base_map_open("/nonexistent/model", &map), BASE_NOT_FOUND);
    CHECK_ERROR_NAMES("/nonexistent/model");
    CHECK_STATUS(base_map_open("/tmp", &map), BASE_IO);
    CHECK_STATUS(base_file_read(path, 7, &base_heap, &bytes, &n_bytes), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("at most 7");
    assert_null(bytes);
}

static void read_survives_a_failed_allocation(void **state)
{
    failing_alloc f = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &f};
    char *bytes = NULL;
    size_t n_bytes = 0;
    (void)state;
    CHECK_STATUS(base_file_read(path, 8, &mem, &bytes, &n_bytes), BASE_NO_MEMORY);
    assert_int_equal(f.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_and_reads_the_same_bytes),
        cmocka_unit_test(errors_name_the_path),
        cmocka_unit_test(read_survives_a_failed_allocation),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
