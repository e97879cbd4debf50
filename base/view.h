/* base/view.h - a borrowed run of bytes: text or a message.
 *
 * Not NUL-terminated; may hold any byte.  Lives as long as what it was made from. */
#ifndef BASE_VIEW_H
#define BASE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_view {
    const char *data; /* may be NULL when n_bytes is 0 */
    size_t n_bytes;
} base_view;

static inline base_view base_view_of(const char *text)
{
    const base_view v = {text, text == NULL ? 0 : strlen(text)};
    return v;
}

static inline bool base_view_equal(base_view a, base_view b)
{
    return a.n_bytes == b.n_bytes && (a.n_bytes == 0 || memcmp(a.data, b.data, a.n_bytes) == 0);
}

#ifdef __cplusplus
}
#endif
#endif /* BASE_VIEW_H */
