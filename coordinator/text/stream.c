#include "coordinator/text/stream.h"

#include "coordinator/text/shown.h"
#include "coordinator/text/stops.h"
#include "coordinator/text/utf8.h"

#include <stdint.h>

#define STREAM_MAX_BYTES ((size_t)INT32_MAX) /* held at once */

struct text_stream {
    base_alloc mem;
    text_shown shown;
    text_stop stops[TEXT_MAX_STOPS];
    size_t n_stops;
    bool include_stop;
    int stop;        /* the one that was found; -1 */
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
    text_shown_init(&s->shown, tokenizer, true, mem);
    s->include_stop = include_stop;
    s->stop = -1;
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
    text_shown_reset(&s->shown);
    base_bytes_reset(&s->held);
    mem.put(mem.ctx, s);
}

/* Looks for stop strings in held from n_seen on, and forgets what is behind one. */
static void look(text_stream *s, size_t n_seen)
{
    for (size_t i = n_seen; i < s->held.n_bytes && s->stop < 0; i++) {
        s->stop = text_stops_step(s->stops, s->n_stops, s->held.data[i]);
        if (s->stop >= 0) {
            s->held.n_bytes = i + 1;
        }
    }
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

base_status text_stream_add(text_stream *s, int32_t id, base_bytes *text_out, int *stop_out)
{
    base_status st = BASE_OK;
    const size_t n_seen = s->held.n_bytes;
    if (s->stop < 0) {
        BASE_TRY(st, out, text_shown_add(&s->shown, id, &s->held));
        look(s, n_seen);
        BASE_TRY(st, out, give(s, false, text_out));
    }
    *stop_out = s->stop;
out:
    return st;
}

base_status text_stream_finish(text_stream *s, base_bytes *text_out)
{
    base_status st = BASE_OK;
    const size_t n_seen = s->held.n_bytes;
    if (s->stop < 0) {
        BASE_TRY(st, out, text_shown_finish(&s->shown, &s->held));
        look(s, n_seen);
        BASE_TRY(st, out, give(s, true, text_out));
    }
out:
    return st;
}
