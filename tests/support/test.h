/* tests/support/test.h - what every test includes: cmocka, and checks that print a status.
 *
 * A test file holds static functions named as sentences and ends in
 *   int main(void) { const struct CMUnitTest tests[] = {...};
 *                    return cmocka_run_group_tests(tests, NULL, NULL); } */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

/* cmocka.h wants these four first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

#define TEST_SKIPPED 77

#define CHECK_STATUS(expr, want)                                                        \
    do {                                                                                \
        const base_status got_ = (expr);                                                \
        if (got_ != (want)) {                                                           \
            fail_msg("%s gave %s, want %s (%s)", #expr, base_status_name(got_),         \
                     base_status_name(want), got_ == BASE_OK ? "" : base_last_error()); \
        }                                                                               \
    } while (0)

/* The latest error names what a user needs to mend it. */
#define CHECK_ERROR_NAMES(text)                                                   \
    do {                                                                          \
        if (strstr(base_last_error(), (text)) == NULL) {                          \
            fail_msg("error '%s' does not name '%s'", base_last_error(), (text)); \
        }                                                                         \
    } while (0)

#endif /* TESTS_SUPPORT_TEST_H */
