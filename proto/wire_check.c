#include "base/utf8.h"
#include "proto/wire.h"

#include <inttypes.h>
#include <math.h>

base_status wire_check_int(const char *field, uint64_t value, uint64_t low, uint64_t high)
{
    if (value < low || value > high) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' is %" PRIu64 ", allowed %" PRIu64 "..%" PRIu64,
                         field, value, low, high);
    }
    return BASE_OK;
}

base_status wire_check_i32(const char *field, uint32_t value)
{
    return wire_check_int(field, value, 0, INT32_MAX);
}

base_status wire_check_i64(const char *field, uint64_t value)
{
    return wire_check_int(field, value, 0, INT64_MAX);
}

base_status wire_check_i32s(const char *field, const uint32_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] > INT32_MAX) {
            return BASE_FAIL(BASE_BAD_INPUT, "field '%s[%zu]' is %" PRIu32 ", allowed 0..%d", field,
                             i, values[i], INT32_MAX);
        }
    }
    return BASE_OK;
}

base_status wire_check_i64s(const char *field, const uint64_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] > INT64_MAX) {
            return BASE_FAIL(BASE_BAD_INPUT, "field '%s[%zu]' is %" PRIu64 ", allowed 0..%" PRId64,
                             field, i, values[i], INT64_MAX);
        }
    }
    return BASE_OK;
}

base_status wire_check_count(const char *field, size_t n, size_t low, size_t high)
{
    if (n < low || n > high) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' has %zu entries, allowed %zu..%zu", field, n,
                         low, high);
    }
    return BASE_OK;
}

base_status wire_check_same(const char *field, size_t n, size_t want)
{
    if (n != want) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' has %zu entries, allowed %zu", field, n, want);
    }
    return BASE_OK;
}

base_status wire_check_real(const char *field, double value, wire_low kind, double low, double high)
{
    const bool in = kind == WIRE_ABOVE ? value > low : value >= low; /* false for NaN */
    if (!in || !(value <= high) || !isfinite(value)) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' is %.9g, allowed %c%g, %g]", field, value,
                         kind == WIRE_ABOVE ? '(' : '[', low, high);
    }
    return BASE_OK;
}

base_status wire_check_amount(const char *field, double value)
{
    if (!isfinite(value) || value < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' is %.9g, allowed finite and >= 0", field,
                         value);
    }
    return BASE_OK;
}

base_status wire_check_finite(const char *field, const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(values[i])) {
            return BASE_FAIL(BASE_BAD_INPUT, "field '%s[%zu]' is %g, allowed finite", field, i,
                             (double)values[i]);
        }
    }
    return BASE_OK;
}

base_status wire_check_text(const char *field, ProtobufCBinaryData text)
{
    const base_view v = {(const char *)text.data, text.len};
    size_t bad_at = 0;
    if (!base_utf8_valid(v, &bad_at)) {
        return BASE_FAIL(BASE_BAD_INPUT, "field '%s' is not valid UTF-8 at byte %zu", field,
                         bad_at);
    }
    return BASE_OK;
}
