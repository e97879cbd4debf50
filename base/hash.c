#include "base/hash.h"

#include <openssl/evp.h>
#include <stdio.h>

/* base_hasher is OpenSSL's digest context under our name. */
static EVP_MD_CTX *context(base_hasher *hasher)
{
    return (EVP_MD_CTX *)hasher;
}

base_status base_hasher_create(base_hasher **hasher_out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return BASE_FAIL(BASE_NO_MEMORY, "SHA-256 context");
    }
    *hasher_out = (base_hasher *)ctx;
    return BASE_OK;
}

void base_hasher_add(base_hasher *hasher, const void *bytes, size_t n_bytes)
{
    (void)EVP_DigestUpdate(context(hasher), bytes, n_bytes);
}

void base_hasher_add_u64(base_hasher *hasher, uint64_t value)
{
    uint8_t le[8];
    for (int i = 0; i < 8; i++) {
        le[i] = (uint8_t)(value >> (8 * i));
    }
    base_hasher_add(hasher, le, sizeof le);
}

void base_hasher_add_text(base_hasher *hasher, const char *text)
{
    base_hasher_add_u64(hasher, strlen(text));
    base_hasher_add(hasher, text, strlen(text));
}

base_hash base_hasher_end(base_hasher *hasher)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    base_hash hash;
    (void)EVP_DigestFinal_ex(context(hasher), digest, NULL);
    EVP_MD_CTX_free(context(hasher));
    memcpy(hash.bytes, digest, sizeof hash.bytes);
    return hash;
}

void base_hash_text(base_hash hash, char text_out[BASE_HASH_TEXT_BYTES])
{
    for (size_t i = 0; i < BASE_HASH_BYTES; i++) {
        (void)snprintf(text_out + 2 * i, 3, "%02x", hash.bytes[i]);
    }
}
