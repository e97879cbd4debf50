/* base/status.h - the one error type of the project.
 *
 * A function that can fail returns base_status and says in its header comment
 * which codes it may return.  Results travel through *_out parameters, which
 * are written only on BASE_OK.  The function that first decides on an error
 * calls BASE_FAIL; everyone above just passes the code up.  Outcomes that are
 * normal under load (EXHAUSTED, CANCELLED) are returned bare, without text. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BASE_MUST_CHECK    __attribute__((warn_unused_result))
#define BASE_PRINTF(f, va) __attribute__((format(printf, f, va)))
#else
#define BASE_MUST_CHECK
#define BASE_PRINTF(f, va)
#endif

/* How far the damage reaches.  Recovery code switches on this, never on the
 * individual code: drop the request, restart the rank, or rebuild the world. */
typedef enum base_scope {
    BASE_SCOPE_NONE,
    BASE_SCOPE_REQUEST,
    BASE_SCOPE_RANK,
    BASE_SCOPE_WORLD,
} base_scope;

typedef enum base_status {
#define X(name, scope, text) BASE_##name,
#include "base/status.def"
#undef X
} base_status;

const char *base_status_name(base_status st); /* "BAD_INPUT"; never NULL */
const char *base_status_text(base_status st); /* "an argument breaks a stated limit" */
base_scope base_status_scope(base_status st);

/* Text of the latest BASE_FAIL on this thread, fit for a user; valid until the next one. */
const char *base_last_error(void);
/* Where that was, for logs: "pool.c:12". */
const char *base_last_error_place(void);

#define BASE_FAIL(code, ...) base_fail_at((code), __FILE__, __LINE__, __VA_ARGS__)
BASE_MUST_CHECK base_status base_fail_at(base_status code, const char *file, int line,
                                         const char *fmt, ...) BASE_PRINTF(4, 5);

/* Runs expr; on failure leaves the code in st and jumps to a visible label. */
#define BASE_TRY(st, label, expr)         \
    do {                                  \
        if (((st) = (expr)) != BASE_OK) { \
            goto label;                   \
        }                                 \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif /* BASE_STATUS_H */
