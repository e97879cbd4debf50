/* base/utf8.h - is this run of bytes UTF-8?
 *
 * As RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.  NUL is a character
 * like any other. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/view.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* If not, *bad_at_out is where the first broken character starts; one cut off by the end counts as
 * broken.  bad_at_out may be NULL. */
bool base_utf8_valid(base_view text, size_t *bad_at_out);

#ifdef __cplusplus
}
#endif
#endif /* BASE_UTF8_H */
