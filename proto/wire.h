/* proto/wire.h - what the codecs share: protobuf-c over base_alloc, checks that name the field,
 * and results that are one allocation.
 *
 * For the codecs only; protobuf-c is seen by nobody else.
 * Threads: any; nothing is shared. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What unpacking one message may take in all.  A field of two bytes takes up to a hundred while it
 * is parsed, so a message of legal length could otherwise take gigabytes. */
#define WIRE_MAX_UNPACKED_BYTES ((size_t)256 << 20)

/* ---- results ----
 * A codec lays its struct and all that it points to into one allocation of mem, by a build function
 * that runs twice: first over a block without data, which only counts. */

typedef struct wire_block {
    char *data; /* NULL while counting */
    size_t n_bytes;
} wire_block;

/* Room for n_bytes, aligned for any field, zeroed; NULL while counting or if n_bytes is 0. */
void *wire_take(wire_block *block, size_t n_bytes);
/* A copy of n_bytes; NULL while counting or if n_bytes is 0. */
void *wire_copy(wire_block *block, const void *from, size_t n_bytes);
base_view wire_copy_view(wire_block *block, ProtobufCBinaryData from);

typedef struct wire_codec {
    const ProtobufCMessageDescriptor *type;
    size_t result_bytes;
    /* Everything that may be wrong with a message that parsed.  Errors: BAD_INPUT, NO_MEMORY. */
    base_status (*check)(const ProtobufCMessage *message);
    /* Cannot fail.  result is NULL while counting, else result_bytes at the start of the block. */
    void (*build)(wire_block *block, const ProtobufCMessage *message, void *result);
} wire_codec;

/* On BASE_OK *result_out is one allocation of mem.
 * Errors: BAD_INPUT (malformed, too big in memory, or refused by check), NO_MEMORY. */
BASE_MUST_CHECK base_status wire_decode(const wire_codec *codec, base_view bytes,
                                        const base_alloc *mem, void **result_out);

/* Appends message, all or nothing.  Errors: OUT_OF_RANGE, NO_MEMORY. */
BASE_MUST_CHECK base_status wire_encode(const ProtobufCMessage *message, base_bytes *out);

/* What encoders hand to protobuf-c, which does not write through these pointers. */
static inline ProtobufCBinaryData wire_bytes(base_view v)
{
    const ProtobufCBinaryData b = {v.n_bytes, (uint8_t *)(uintptr_t)v.data};
    return b;
}

static inline uint32_t *wire_u32s(const int32_t *values)
{
    return (uint32_t *)(uintptr_t)values;
}

static inline uint64_t *wire_u64s(const int64_t *values)
{
    return (uint64_t *)(uintptr_t)values;
}

static inline float *wire_f32s(const float *values)
{
    return (float *)(uintptr_t)values;
}

/* ---- checks ----
 * Errors: BAD_INPUT with field, value and limit.  Integers and counts are in [low, high]. */

BASE_MUST_CHECK base_status wire_check_int(const char *field, uint64_t value, uint64_t low,
                                           uint64_t high);
/* 0..INT32_MAX and 0..INT64_MAX: what the plain structs can hold. */
BASE_MUST_CHECK base_status wire_check_i32(const char *field, uint32_t value);
BASE_MUST_CHECK base_status wire_check_i64(const char *field, uint64_t value);
BASE_MUST_CHECK base_status wire_check_i32s(const char *field, const uint32_t *values, size_t n);
BASE_MUST_CHECK base_status wire_check_i64s(const char *field, const uint64_t *values, size_t n);
BASE_MUST_CHECK base_status wire_check_count(const char *field, size_t n, size_t low, size_t high);
/* An array that belongs to another one: exactly `want` entries. */
BASE_MUST_CHECK base_status wire_check_same(const char *field, size_t n, size_t want);

typedef enum wire_low { WIRE_FROM, WIRE_ABOVE } wire_low; /* [low or (low */
/* Finite, and in [low, high] or (low, high]. */
BASE_MUST_CHECK base_status wire_check_real(const char *field, double value, wire_low kind,
                                            double low, double high);
/* Finite and not negative. */
BASE_MUST_CHECK base_status wire_check_amount(const char *field, double value);
BASE_MUST_CHECK base_status wire_check_finite(const char *field, const float *values, size_t n);
/* UTF-8. */
BASE_MUST_CHECK base_status wire_check_text(const char *field, ProtobufCBinaryData text);

#endif /* PROTO_WIRE_H */
