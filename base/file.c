#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static base_status open_regular(const char *path, int *fd_out, size_t *n_bytes_out)
{
    struct stat s;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return BASE_FAIL(errno == ENOENT ? BASE_NOT_FOUND : BASE_IO, "%s: %s", path,
                         strerror(errno));
    }
    if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
        (void)close(fd);
        return BASE_FAIL(BASE_IO, "%s: not a regular file", path);
    }
    *fd_out = fd;
    *n_bytes_out = (size_t)s.st_size;
    return BASE_OK;
}

base_status base_map_open(const char *path, base_map *map_out)
{
    base_status st;
    int fd = -1;
    size_t n_bytes = 0;
    void *p = NULL;

    BASE_TRY(st, out, open_regular(path, &fd, &n_bytes));
    if (n_bytes > 0) {
        p = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            st = BASE_FAIL(BASE_IO, "%s: mmap of %zu bytes: %s", path, n_bytes, strerror(errno));
            goto out;
        }
    }
    map_out->bytes = p;
    map_out->n_bytes = n_bytes;
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}

void base_map_let_go(const base_map *map, size_t begin, size_t n_bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t first = begin / page * page; /* a mapping begins with a page */
    (void)madvise((void *)(uintptr_t)(map->bytes + first), begin + n_bytes - first, MADV_DONTNEED);
}

void base_map_close(base_map *map)
{
    if (map->bytes != NULL) {
        (void)munmap((void *)(uintptr_t)map->bytes, map->n_bytes);
    }
    map->bytes = NULL;
    map->n_bytes = 0;
}

base_status base_file_read(const char *path, size_t max_bytes, const base_alloc *mem,
                           char **bytes_out, size_t *n_bytes_out)
{
    base_status st;
    int fd = -1;
    size_t n_bytes = 0;
    size_t n_read = 0;
    char *bytes = NULL;

    BASE_TRY(st, out, open_regular(path, &fd, &n_bytes));
    if (n_bytes > max_bytes) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: %zu bytes, at most %zu are read", path, n_bytes,
                       max_bytes);
        goto out;
    }
    bytes = mem->get(mem->ctx, n_bytes + 1);
    if (bytes == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s: %zu bytes", path, n_bytes);
        goto out;
    }
    while (n_read < n_bytes) {
        const ssize_t n = read(fd, bytes + n_read, n_bytes - n_read);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            st = BASE_FAIL(BASE_IO, "%s: read: %s", path, n < 0 ? strerror(errno) : "file shrank");
            goto out;
        }
        n_read += (size_t)n;
    }
    *bytes_out = bytes;
    *n_bytes_out = n_bytes;
    bytes = NULL;
out:
    mem->put(mem->ctx, bytes);
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}
