/* coordinator/text/stops.h - finds the first of several stop strings in bytes that come one by
 * one.
 *
 * Threads.  One at a time.
 * Time.     O(stop strings) for a byte, on average over a text. */
#ifndef COORDINATOR_TEXT_STOPS_H
#define COORDINATOR_TEXT_STOPS_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

typedef struct text_stop {
    base_view text;  /* points into bytes */
    char *bytes;     /* a copy */
    size_t n_match;  /* how much of text the bytes so far end with */
    size_t *borders; /* [text.n_bytes]: of text[0..i], the longest proper prefix that is a suffix */
} text_stop;

/* Copies text, which is not empty.  Ended with text_stop_reset; so may be a zeroed one.
 * Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_stop_init(text_stop *stop, base_view text, const base_alloc *mem);
void text_stop_reset(text_stop *stop, const base_alloc *mem);

/* Takes the next byte.  Gives -1, or the index of the stop string that is now complete: of
 * several, the longest.  Not to be called again after one was complete. */
int text_stops_step(text_stop *stops, size_t n_stops, char byte);

/* How many of the latest bytes may be the beginning of a stop string. */
size_t text_stops_open_bytes(const text_stop *stops, size_t n_stops);

#endif /* COORDINATOR_TEXT_STOPS_H */
