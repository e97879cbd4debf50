/* coordinator/text/stream.h - the text of one stream of tokens, as it may be shown.
 *
 * Ids go in one by one; what comes out is whole UTF-8 characters only, and never a part of what
 * may become a stop string: such bytes wait until it is decided.  When a stop string is
 * complete the stream ends; the text before it has come out, the stop string itself only when
 * include_stop.  The whole of it is what Hugging Face's decode of all ids gives, special tokens
 * left out, up to the stop string:
 *   byte-level: bytes that can never become valid UTF-8 come out as U+FFFD, one for each maximal
 *     invalid run as Unicode recommends;
 *   SentencePiece-style: the space in front of the whole text is left out; a run of byte tokens
 *     comes out when another token follows or the stream ends (a line feed is such a token in
 *     Llama 2), as U+FFFD for each byte if the run is not valid UTF-8 as a whole.
 *
 * Threads.  One at a time. */
#ifndef COORDINATOR_TEXT_STREAM_H
#define COORDINATOR_TEXT_STREAM_H

#include "coordinator/text/tokenizer.h"

#define TEXT_MAX_STOPS      16
#define TEXT_MAX_STOP_BYTES 1024

typedef struct text_stream text_stream;

/* tokenizer is borrowed and must outlive the stream; stops are copied (each 1..TEXT_MAX_STOP_BYTES
 * bytes of valid UTF-8, at most TEXT_MAX_STOPS).  Special tokens give no text.
 * Errors: BAD_INPUT (stop limits, naming which), NO_MEMORY. */
BASE_MUST_CHECK base_status text_stream_create(const text_tokenizer *tokenizer,
                                               const base_view *stops, size_t n_stops,
                                               bool include_stop, const base_alloc *mem,
                                               text_stream **stream_out);
void text_stream_destroy(text_stream *stream); /* NULL is allowed */

/* Takes one id; appends to *text_out what may be shown now.  *stop_out is the index of the stop
 * string that ended the stream, or -1: the one that is complete first, of several the longest.
 * After a stop, further calls give nothing.
 * Errors: as text_decode; after OUT_OF_RANGE and NO_MEMORY the stream is only to be destroyed. */
BASE_MUST_CHECK base_status text_stream_add(text_stream *stream, int32_t id, base_bytes *text_out,
                                            int *stop_out);
/* The ids end here: gives what was held back, up to a stop string that is complete only now. */
BASE_MUST_CHECK base_status text_stream_finish(text_stream *stream, base_bytes *text_out);

#endif /* COORDINATOR_TEXT_STREAM_H */
