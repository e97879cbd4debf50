/* coordinator/text/nfc.h - Unicode normalization form C.
 *
 * Tables are utf8proc's; the order of combining marks is ours, because the library's takes
 * quadratic time on long runs of them.  Any thread. */
#ifndef COORDINATOR_TEXT_NFC_H
#define COORDINATOR_TEXT_NFC_H

#include "base/bytes.h"
#include "base/view.h"

/* text is valid UTF-8.  *nfc_out is text itself when nothing changes, else the new contents of
 * *buffer.  Errors: OUT_OF_RANGE (buffer's limit), NO_MEMORY. */
BASE_MUST_CHECK base_status text_nfc_apply(base_view text, base_bytes *buffer, base_view *nfc_out);

#endif /* COORDINATOR_TEXT_NFC_H */
