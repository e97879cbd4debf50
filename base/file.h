/* base/file.h - whole files, read-only.
 *
 * Errors name the path and the reason.  Any thread. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stddef.h>
#include <stdint.h>

/* A mapping of a whole file.  {NULL, 0} is an empty file or none. */
typedef struct base_map {
    const uint8_t *bytes;
    size_t n_bytes;
} base_map;

/* Maps a regular file read-only.  Ended with base_map_close.
 * Errors: NOT_FOUND, IO. */
BASE_MUST_CHECK base_status base_map_open(const char *path, base_map *map_out);
/* Bytes that were read are not kept in this process's memory; they come back when they are read again. */
void base_map_let_go(const base_map *map, size_t begin, size_t n_bytes);
void base_map_close(base_map *map); /* NULL bytes allowed; resets *map */

/* Reads a file of at most max_bytes into memory of mem; one NUL follows the bytes.
 * The caller ends *bytes_out with mem->put.
 * Errors: NOT_FOUND, IO, BAD_FILE (longer than max_bytes), NO_MEMORY. */
BASE_MUST_CHECK base_status base_file_read(const char *path, size_t max_bytes,
                                           const base_alloc *mem, char **bytes_out,
                                           size_t *n_bytes_out);

#endif /* BASE_FILE_H */
