#include "coordinator/text/stops.h"

/* Knuth, Morris and Pratt: the longest prefix of text that ends with byte, when the bytes before
 * it ended with text[0..n_match). */
static size_t step(base_view text, const size_t *borders, size_t n_match, char byte)
{
    while (n_match > 0 && text.data[n_match] != byte) {
        n_match = borders[n_match - 1];
    }
    return text.data[n_match] == byte ? n_match + 1 : 0;
}

base_status text_stop_init(text_stop *stop, base_view text, const base_alloc *mem)
{
    text_stop s = {.text = text};
    s.bytes = mem->get(mem->ctx, text.n_bytes);
    s.borders = mem->get(mem->ctx, text.n_bytes * sizeof *s.borders);
    if (s.bytes == NULL || s.borders == NULL) {
        text_stop_reset(&s, mem);
        return BASE_FAIL(BASE_NO_MEMORY, "stop string of %zu bytes", text.n_bytes);
    }
    memcpy(s.bytes, text.data, text.n_bytes);
    s.text.data = s.bytes;
    for (size_t i = 1; i < text.n_bytes; i++) {
        s.borders[i] = step(s.text, s.borders, s.borders[i - 1], s.bytes[i]);
    }
    *stop = s;
    return BASE_OK;
}

void text_stop_reset(text_stop *stop, const base_alloc *mem)
{
    mem->put(mem->ctx, stop->bytes);
    mem->put(mem->ctx, stop->borders);
    *stop = (text_stop){0};
}

int text_stops_step(text_stop *stops, size_t n_stops, char byte)
{
    int complete = -1;
    for (size_t i = 0; i < n_stops; i++) {
        text_stop *s = &stops[i];
        s->n_match = step(s->text, s->borders, s->n_match, byte);
        if (s->n_match == s->text.n_bytes &&
            (complete < 0 || s->text.n_bytes > stops[complete].text.n_bytes)) {
            complete = (int)i;
        }
    }
    return complete;
}

size_t text_stops_open_bytes(const text_stop *stops, size_t n_stops)
{
    size_t n_open = 0;
    for (size_t i = 0; i < n_stops; i++) {
        n_open = stops[i].n_match > n_open ? stops[i].n_match : n_open;
    }
    return n_open;
}
