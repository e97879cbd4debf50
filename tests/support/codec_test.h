/* tests/support/codec_test.h - what every decoder must stand, and random contents for messages. */
#ifndef TESTS_SUPPORT_CODEC_TEST_H
#define TESTS_SUPPORT_CODEC_TEST_H

#include "tests/support/test.h"

#include "base/bytes.h"
#include "base/random.h"
#include "tests/support/failing_alloc.h"

/* One decoder, with its struct hidden.  encode is NULL for requests that only clients write. */
typedef struct codec_under_test {
    base_status (*decode)(base_view bytes, const base_alloc *mem, void **out);
    void (*end)(void *decoded, const base_alloc *mem);
    base_status (*encode)(const void *decoded, base_bytes *out);
    bool (*same)(const void *a, const void *b);
} codec_under_test;

/* Defines a codec_under_test of this name.  The expressions see bytes, mem and got; decoded and
 * mem; value and out; a and b. */
#define CODEC(name, type, decode_expr, end_stmt, encode_expr, same_expr)                  \
    static base_status name##_decode(base_view bytes, const base_alloc *mem, void **out)  \
    {                                                                                     \
        type *got = NULL;                                                                 \
        const base_status st = decode_expr;                                               \
        *out = st == BASE_OK ? got : *out;                                                \
        return got == NULL || st == BASE_OK ? st : BASE_IO; /* outputs only on success */ \
    }                                                                                     \
    static void name##_end(void *decoded, const base_alloc *mem)                          \
    {                                                                                     \
        (void)mem;                                                                        \
        end_stmt;                                                                         \
    }                                                                                     \
    static base_status name##_encode(const void *value, base_bytes *out)                  \
    {                                                                                     \
        return encode_expr;                                                               \
    }                                                                                     \
    static bool name##_same(const void *a, const void *b)                                 \
    {                                                                                     \
        return same_expr;                                                                 \
    }                                                                                     \
    static const codec_under_test name = {name##_decode, name##_end, name##_encode, name##_same}

/* Decodes from a heap copy of the exact size, so that the sanitizer sees reads past the end. */
static inline base_status codec_decode_copy(const codec_under_test *codec, base_view bytes,
                                            const base_alloc *mem, void **out)
{
    char *copy = malloc(bytes.n_bytes > 0 ? bytes.n_bytes : 1);
    assert_non_null(copy);
    if (bytes.n_bytes > 0) {
        memcpy(copy, bytes.data, bytes.n_bytes);
    }
    const base_status st = codec->decode((base_view){copy, bytes.n_bytes}, mem, out);
    memset(copy, 0xee, bytes.n_bytes); /* what was decoded must not point into the message */
    free(copy);
    return st;
}

static inline void codec_check_round_trip(const codec_under_test *codec, const void *want)
{
    base_bytes bytes;
    void *got = NULL;

    base_bytes_init(&bytes, SIZE_MAX / 2, &base_heap);
    CHECK_STATUS(codec->encode(want, &bytes), BASE_OK);
    CHECK_STATUS(codec_decode_copy(codec, base_bytes_view(&bytes), &base_heap, &got), BASE_OK);
    assert_true(codec->same(want, got));
    codec->end(got, &base_heap);
    base_bytes_reset(&bytes);
}

/* want, which breaks a limit, encodes; its decoder names the field and leaves its output alone. */
static inline void codec_check_refused(const codec_under_test *codec, const void *want,
                                       const char *text)
{
    base_bytes bytes;
    void *got = NULL;

    base_bytes_init(&bytes, SIZE_MAX / 2, &base_heap);
    CHECK_STATUS(codec->encode(want, &bytes), BASE_OK);
    CHECK_STATUS(codec_decode_copy(codec, base_bytes_view(&bytes), &base_heap, &got),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES(text);
    assert_null(got);
    base_bytes_reset(&bytes);
}

/* The same for a copy of value after a change to *x. */
#define REFUSED(codec, value, change, text)     \
    do {                                        \
        __typeof__(value) changed = value;      \
        __typeof__(value) *x = &changed;        \
        change;                                 \
        codec_check_refused(&(codec), x, text); \
    } while (0)

/* Cut anywhere, a message is refused or is a shorter message; nothing else. */
static inline void codec_check_cuts(const codec_under_test *codec, base_view bytes)
{
    for (size_t n = 0; n < bytes.n_bytes; n++) {
        void *got = NULL;
        const base_status st =
            codec_decode_copy(codec, (base_view){bytes.data, n}, &base_heap, &got);
        if (st == BASE_OK) {
            codec->end(got, &base_heap);
        } else {
            CHECK_STATUS(st, BASE_BAD_INPUT);
            assert_null(got);
        }
    }
}

/* A field of a later version changes nothing: one of each wire type. */
static inline void codec_check_unknown_fields(const codec_under_test *codec, base_view bytes)
{
    static const char unknown[] = "\xc0\x3e\x07" /* field 1000, varint */
                                  "\xc1\x3e"
                                  "12345678" /* 8 bytes */
                                  "\xc2\x3e\x03"
                                  "abc" /* a string */
                                  "\xc5\x3e"
                                  "1234"; /* 4 bytes */
    base_bytes longer;
    void *a = NULL;
    void *b = NULL;

    base_bytes_init(&longer, SIZE_MAX / 2, &base_heap);
    CHECK_STATUS(base_bytes_add(&longer, unknown, sizeof unknown - 1), BASE_OK);
    CHECK_STATUS(base_bytes_add(&longer, bytes.data, bytes.n_bytes), BASE_OK);
    CHECK_STATUS(base_bytes_add(&longer, unknown, sizeof unknown - 1), BASE_OK);
    CHECK_STATUS(codec_decode_copy(codec, bytes, &base_heap, &a), BASE_OK);
    CHECK_STATUS(codec_decode_copy(codec, base_bytes_view(&longer), &base_heap, &b), BASE_OK);
    assert_true(codec->same(a, b));
    codec->end(a, &base_heap);
    codec->end(b, &base_heap);
    base_bytes_reset(&longer);
}

static inline void codec_check_decode_without_memory(const codec_under_test *codec, base_view bytes)
{
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        void *got = NULL;

        const base_status st = codec_decode_copy(codec, bytes, &mem, &got);
        if (st == BASE_OK) {
            assert_true(k > 0);
            assert_int_equal(f.n_live, 1); /* the promise of one allocation */
            codec->end(got, &mem);
            assert_int_equal(f.n_live, 0);
            return;
        }
        CHECK_STATUS(st, BASE_NO_MEMORY);
        assert_null(got);
        assert_int_equal(f.n_live, 0);
    }
}

/* Encoding is all or nothing, without memory and without room. */
static inline void codec_check_encode_fails_whole(const codec_under_test *codec, const void *value)
{
    base_bytes bytes;
    size_t n_bytes = 0;

    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k + 1}; /* the first is the "x" */
        const base_alloc mem = {failing_get, failing_put, &f};
        base_bytes_init(&bytes, SIZE_MAX / 2, &mem);
        CHECK_STATUS(base_bytes_add(&bytes, "x", 1), BASE_OK);
        const base_status st = codec->encode(value, &bytes);
        n_bytes = bytes.n_bytes;
        if (st != BASE_OK) {
            CHECK_STATUS(st, BASE_NO_MEMORY);
            assert_int_equal(n_bytes, 1);
            assert_int_equal(bytes.data[1], 0);
        }
        assert_int_equal(f.n_live, 1); /* the buffer */
        base_bytes_reset(&bytes);
        assert_int_equal(f.n_live, 0);
        if (st == BASE_OK) {
            break;
        }
    }
    base_bytes_init(&bytes, n_bytes - 1, &base_heap);
    CHECK_STATUS(base_bytes_add(&bytes, "x", 1), BASE_OK);
    CHECK_STATUS(codec->encode(value, &bytes), BASE_OUT_OF_RANGE);
    assert_int_equal(bytes.n_bytes, 1);
    base_bytes_reset(&bytes);
}

/* ---- random contents ---- */

typedef struct codec_random {
    uint64_t seed;
    uint64_t n_drawn;
} codec_random;

static inline uint64_t draw(codec_random *r, uint64_t below)
{
    return base_random_u64(r->seed, 0, r->n_drawn++) % below;
}

static inline int32_t draw_i32(codec_random *r)
{
    const uint64_t bits = draw(r, (uint64_t)INT32_MAX + 1);
    return (int32_t)(bits >> draw(r, 31)); /* every length of varint */
}

static inline int64_t draw_i64(codec_random *r)
{
    const uint64_t bits = draw(r, UINT64_MAX) >> 1;
    return (int64_t)(bits >> draw(r, 63));
}

static inline float draw_unit(codec_random *r)
{
    return (float)base_random_unit(r->seed, 1, r->n_drawn++);
}

static inline size_t draw_i32s(codec_random *r, int32_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = draw_i32(r);
    }
    return n;
}

static inline void draw_logprobs(codec_random *r, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = -20.0f * draw_unit(r);
    }
}

/* UTF-8 of at most n_max bytes (>= 4) in out, of characters of each length, NUL among them. */
static inline base_view draw_text(codec_random *r, char *out, size_t n_max)
{
    static const base_view pieces[] = {
        {"a", 1},        {"\0", 1},           {"\n", 1},
        {"\xc3\xa9", 2}, {"\xe6\xbc\xa2", 3}, {"\xf0\x9f\x98\x80", 4}};
    const size_t n_want = draw(r, n_max - 3);
    size_t n = 0;
    while (n < n_want) {
        const base_view piece = pieces[draw(r, sizeof pieces / sizeof *pieces)];
        memcpy(out + n, piece.data, piece.n_bytes);
        n += piece.n_bytes;
    }
    return (base_view){out, n};
}

#endif /* TESTS_SUPPORT_CODEC_TEST_H */
