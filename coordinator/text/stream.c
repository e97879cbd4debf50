#include "coordinator/text/stream.h"

#include "coordinator/text/stops.h"
#include "coordinator/text/utf8.h"

#include <stdint.h>

#define STREAM_MAX_BYTES ((size_t)INT32_MAX) /* held at once */

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

struct text_stream {
    base_alloc mem;
    const text_tokenizer *tokenizer;
    text_stop stops[TEXT_MAX_STOPS];
    size_t n_stops;
    bool include_stop;
    int stop;        /* the one that was found; -1 */
    base_bytes tail; /* bytes of tokens that are no whole character yet */
    base_bytes held; /* whole characters that are not given yet */
};

static base_status check_stop(base_view stop, size_t index)
{
    if (stop.n_bytes < 1 || stop.n_bytes > TEXT_MAX_STOP_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "stop[%zu] has %zu bytes, allowed 1..%d", index,
                         stop.n_bytes, TEXT_MAX_STOP_BYTES);
    }
    /* Else it could begin or end inside a character, which is never given in parts. */
    if (text_utf8_valid_prefix(stop) < stop.n_bytes) {
        return BASE_FAIL(BASE_BAD_INPUT, "stop[%zu] is not valid UTF-8", index);
    }
    return BASE_OK;
}

base_status text_stream_create(const text_tokenizer *tokenizer, const base_view *stops,
                               size_t n_stops, bool include_stop, const base_alloc *mem,
                               text_stream **stream_out)
{
    base_status st = BASE_OK;
    text_stream *s = NULL;

    if (n_stops > TEXT_MAX_STOPS) {
        return BASE_FAIL(BASE_BAD_INPUT, "%zu stop strings, allowed 0..%d", n_stops,
                         TEXT_MAX_STOPS);
    }
    s = mem->get(mem->ctx, sizeof *s);
    if (s == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "text stream");
        goto out;
    }
    s->mem = *mem;
    s->tokenizer = tokenizer;
    s->include_stop = include_stop;
    s->stop = -1;
    base_bytes_init(&s->tail, STREAM_MAX_BYTES, mem);
    base_bytes_init(&s->held, STREAM_MAX_BYTES, mem);
    for (size_t i = 0; i < n_stops; i++) {
        BASE_TRY(st, out, check_stop(stops[i], i));
        BASE_TRY(st, out, text_stop_init(&s->stops[i], stops[i], mem));
        s->n_stops = i + 1;
    }
    *stream_out = s;
    s = NULL; /* ownership moved */

out:
    text_stream_destroy(s);
    return st;
}

void text_stream_destroy(text_stream *s)
{
    if (s == NULL) {
        return;
    }
    const base_alloc mem = s->mem;
    for (size_t i = 0; i < s->n_stops; i++) {
        text_stop_reset(&s->stops[i], &mem);
    }
    base_bytes_reset(&s->tail);
    base_bytes_reset(&s->held);
    mem.put(mem.ctx, s);
}

/* Adds one character to held, and looks for stop strings in it. */
static base_status hold(text_stream *s, const char *bytes, size_t n_bytes)
{
    const base_status st = base_bytes_add(&s->held, bytes, n_bytes);
    if (st != BASE_OK) {
        return st;
    }
    for (size_t i = 0; i < n_bytes && s->stop < 0; i++) {
        s->stop = text_stops_step(s->stops, s->n_stops, bytes[i]);
    }
    return BASE_OK;
}

/* Moves the characters of tail to held, up to a stop; a cut one stays, or is replaced at_end. */
static base_status assemble(text_stream *s, bool at_end)
{
    base_status st = BASE_OK;
    size_t i = 0;
    while (i < s->tail.n_bytes && s->stop < 0 && st == BASE_OK) {
        const char *bytes = s->tail.data + i;
        const text_utf8_char c = text_utf8_next(bytes, s->tail.n_bytes - i);
        if (c.kind == TEXT_UTF8_CUT && !at_end) {
            break;
        }
        st = c.kind == TEXT_UTF8_VALID ? hold(s, bytes, c.n_bytes)
                                       : hold(s, replacement, sizeof replacement - 1);
        i += c.n_bytes;
    }
    base_bytes_drop_front(&s->tail, i);
    return st;
}

/* Gives what is decided. */
static base_status give(text_stream *s, bool at_end, base_bytes *text_out)
{
    size_t n_give = s->held.n_bytes;
    if (s->stop >= 0) {
        n_give -= s->include_stop ? 0 : s->stops[s->stop].text.n_bytes;
    } else if (!at_end) {
        n_give -= text_stops_open_bytes(s->stops, s->n_stops);
    }
    const base_status st = base_bytes_add(text_out, s->held.data, n_give);
    if (st == BASE_OK) {
        base_bytes_drop_front(&s->held, s->stop >= 0 ? s->held.n_bytes : n_give);
    }
    return st;
}

static base_status advance(text_stream *s, bool at_end, base_bytes *text_out)
{
    const base_status st = assemble(s, at_end);
    return st == BASE_OK ? give(s, at_end, text_out) : st;
}

base_status text_stream_add(text_stream *s, int32_t id, base_bytes *text_out, int *stop_out)
{
    base_status st = BASE_OK;
    if (s->stop < 0) {
        BASE_TRY(st, out, text_decode(s->tokenizer, &id, 1, true, &s->tail));
        BASE_TRY(st, out, advance(s, false, text_out));
    }
    *stop_out = s->stop;
out:
    return st;
}

base_status text_stream_finish(text_stream *s, base_bytes *text_out)
{
    return s->stop < 0 ? advance(s, true, text_out) : BASE_OK;
}
