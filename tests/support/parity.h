/* tests/support/parity.h - what tests of ops share: a context, random tensors, guarded outputs. */
#ifndef TESTS_SUPPORT_PARITY_H
#define TESTS_SUPPORT_PARITY_H

#include "tests/support/test.h"

#include "base/dtype.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/kern.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define PARITY_SEED  20260131u
#define PARITY_GUARD 64 /* floats before and after an output */

static inline kern_ctx *parity_ctx(int32_t n_threads)
{
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(n_threads, &base_heap, &ctx), BASE_OK);
    return ctx;
}

static inline void *parity_memory(int64_t n_elems, size_t elem_bytes)
{
    void *p = calloc((size_t)n_elems + 1, elem_bytes);
    assert_non_null(p);
    return p;
}

/* What of a size is left under ROPEWALK_TEST_SHRINK=N, for tools that make tests a thousand times slower: an N-th, but
 * at least 1 of what is more than 0.  For sizes that cost time and are no case of their own. */
static inline int32_t parity_shrunk(int32_t size)
{
    static int32_t n = 0;
    if (n == 0) {
        const char *text = getenv("ROPEWALK_TEST_SHRINK");
        n = text == NULL ? 1 : (int32_t)strtol(text, NULL, 10);
        assert_true(n >= 1);
    }
    return size > 0 && size < n ? 1 : size / n;
}

/* From one case to the next where a test crosses many sizes with each other: 1; shrunk, `step`, which has no divisor in
 * common with their numbers, so that every size is met. */
static inline int32_t parity_step(int32_t step)
{
    return parity_shrunk(2) == 1 ? step : 1;
}

/* n_elems standard normals of a stream, times scale.  Ended with free. */
static inline float *parity_normals(uint64_t stream, int64_t n_elems, double scale)
{
    float *x = parity_memory(n_elems, sizeof *x);
    for (int64_t i = 0; i < n_elems; i++) {
        x[i] = (float)(scale * base_random_normal(PARITY_SEED, stream, (uint64_t)i));
    }
    return x;
}

/* The same values as elements of dtype t.  Ended with free. */
static inline void *parity_elems(const float *x, int64_t n_elems, base_dtype t)
{
    void *p = parity_memory(n_elems, 4);
    for (int64_t i = 0; i < n_elems; i++) {
        switch (t) {
        case BASE_F32: ((float *)p)[i] = x[i]; break;
        case BASE_F16: ((uint16_t *)p)[i] = base_f16_from_f32(x[i]); break;
        case BASE_BF16: ((uint16_t *)p)[i] = base_bf16_from_f32(x[i]); break;
        }
    }
    return p;
}

static inline double parity_elem(const void *p, int64_t i, base_dtype t)
{
    switch (t) {
    case BASE_F32: return (double)((const float *)p)[i];
    case BASE_F16: return (double)base_f32_from_f16(((const uint16_t *)p)[i]);
    case BASE_BF16: return (double)base_f32_from_bf16(((const uint16_t *)p)[i]);
    }
    return 0.0;
}

/* An output of n_elems between guards, all of one odd value.  Ended with parity_guarded_free. */
static inline float *parity_guarded(int64_t n_elems)
{
    const int64_t n = n_elems + 2 * PARITY_GUARD;
    float *p = parity_memory(n, sizeof *p);
    for (int64_t i = 0; i < n; i++) {
        p[i] = -12345.0f;
    }
    return p + PARITY_GUARD;
}

static inline void parity_guarded_check(const float *p, int64_t n_elems)
{
    for (int64_t i = 0; i < PARITY_GUARD; i++) {
        assert_true(p[-1 - i] == -12345.0f);
        assert_true(p[n_elems + i] == -12345.0f);
    }
}

static inline void parity_guarded_untouched(const float *p, int64_t n_elems)
{
    parity_guarded_check(p, n_elems);
    for (int64_t i = 0; i < n_elems; i++) {
        assert_true(p[i] == -12345.0f);
    }
}

static inline void parity_guarded_free(float *p)
{
    free(p - PARITY_GUARD);
}

static inline void parity_near(double got, double want, double limit, const char *what, int64_t at)
{
    const bool same = got == want || (isnan(got) && isnan(want));
    if (!same && !(fabs(got - want) <= limit)) {
        fail_msg("%s[%lld] is %.9g, want %.9g within %.3g", what, (long long)at, got, want, limit);
    }
}

/* good (not const), changed in one way, is refused. */
#define PARITY_REFUSED(op, ctx, good, field, value)        \
    do {                                                   \
        __typeof__(good) broken_ = (good);                 \
        broken_.field = (value);                           \
        CHECK_STATUS(op((ctx), &broken_), BASE_BAD_INPUT); \
    } while (0)

#endif /* TESTS_SUPPORT_PARITY_H */
