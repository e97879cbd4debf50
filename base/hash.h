/* base/hash.h - the one content hash: SHA-256 cut to 128 bits.
 *
 * Cryptographic on purpose: a collision between block names would serve one
 * client another's cache.  Computed by OpenSSL's libcrypto. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BASE_HASH_BYTES      16
#define BASE_HASH_TEXT_BYTES 33 /* 32 hex digits and NUL */

typedef struct base_hash {
    uint8_t bytes[BASE_HASH_BYTES];
} base_hash;

typedef struct base_hasher base_hasher; /* a hash in progress */

/* Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status base_hasher_create(base_hasher **hasher_out);
void base_hasher_add(base_hasher *hasher, const void *bytes, size_t n_bytes);
/* Adds text and its length, so that "ab","c" and "a","bc" differ. */
void base_hasher_add_text(base_hasher *hasher, const char *text);
void base_hasher_add_u64(base_hasher *hasher, uint64_t value); /* little-endian */
/* Ends the hash and frees hasher. */
base_hash base_hasher_end(base_hasher *hasher);

void base_hash_text(base_hash hash, char text_out[BASE_HASH_TEXT_BYTES]);

static inline bool base_hash_equal(base_hash a, base_hash b)
{
    return memcmp(a.bytes, b.bytes, BASE_HASH_BYTES) == 0;
}

#endif /* BASE_HASH_H */
