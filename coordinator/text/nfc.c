#include "coordinator/text/nfc.h"

#include "base/checked.h"
#include "coordinator/text/utf8.h"

#include <stdbool.h>
#include <utf8proc.h>

#define MAX_EXPANSION 4 /* code points that one may decompose into canonically */
#define N_CLASSES     256

/* True for code points that are starters, stay as they are and join no character before them, so
 * that text may be cut in front of them.  Not complete: it lists the blocks that texts are made
 * of, the others take the slow path. */
static bool is_inert(uint32_t code)
{
    static const uint32_t blocks[][2] = {
        {0x000, 0x2ff},   {0x388, 0x482},     {0x5d0, 0x5ea},   {0x620, 0x64a},   {0x904, 0x939},
        {0xe01, 0xe33},   {0x1e00, 0x1eff},   {0x2010, 0x205e}, {0x2190, 0x2328}, {0x2500, 0x27bf},
        {0x3001, 0x3020}, {0x3041, 0x3096},   {0x30a1, 0x30fa}, {0x4e00, 0x9fff}, {0xac00, 0xd7a3},
        {0xff01, 0xff5e}, {0x1f300, 0x1faff},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (code <= blocks[i][1]) {
            return code >= blocks[i][0];
        }
    }
    return false;
}

/* Where the first code point that may change begins; n_bytes if there is none.  *cut_out is the
 * last place at or before it where the text may be cut. */
static size_t find_suspect(base_view text, size_t from, size_t *cut_out)
{
    size_t cut = from;
    size_t i = from;
    while (i < text.n_bytes) {
        const base_view rest = {text.data + i, text.n_bytes - i};
        const size_t n_ascii = text_utf8_ascii_prefix(rest);
        if (n_ascii > 0) {
            i += n_ascii;
            cut = i - 1;
            continue;
        }
        const text_utf8_char c = text_utf8_next(rest.data, rest.n_bytes);
        if (!is_inert(c.code)) {
            break;
        }
        cut = i;
        i += c.n_bytes;
    }
    *cut_out = i < text.n_bytes ? cut : text.n_bytes;
    return i;
}

/* Where the next inert code point begins. */
static size_t find_inert(base_view text, size_t from)
{
    size_t i = from;
    while (i < text.n_bytes) {
        const text_utf8_char c = text_utf8_next(text.data + i, text.n_bytes - i);
        if (is_inert(c.code)) {
            break;
        }
        i += c.n_bytes;
    }
    return i;
}

static unsigned combining_class(utf8proc_int32_t code)
{
    return (unsigned)utf8proc_get_property(code)->combining_class & 0xffu;
}

/* Stable counting sort of codes[0..n), none of them a starter. */
static void sort_marks(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *spare)
{
    size_t begin[N_CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        begin[combining_class(codes[i]) + 1]++;
    }
    for (size_t c = 0; c < N_CLASSES; c++) {
        begin[c + 1] += begin[c];
    }
    for (size_t i = 0; i < n; i++) {
        spare[begin[combining_class(codes[i])]++] = codes[i];
    }
    memcpy(codes, spare, n * sizeof *codes);
}

static void order_marks(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *spare)
{
    size_t i = 0;
    while (i < n) {
        if (combining_class(codes[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        bool ordered = true;
        while (end < n && combining_class(codes[end]) != 0) {
            ordered = ordered && combining_class(codes[end - 1]) <= combining_class(codes[end]);
            end++;
        }
        if (!ordered) {
            sort_marks(codes + i, end - i, spare);
        }
        i = end;
    }
}

static base_status add_composed(base_view span, base_bytes *buffer)
{
    base_status st = BASE_OK;
    const base_alloc mem = buffer->mem;
    utf8proc_int32_t *codes = NULL;
    size_t n_slots = 0;
    size_t n_bytes = 0;

    /* An ASCII byte gives 1, a character of two bytes and more gives at most MAX_EXPANSION. */
    if (!base_checked_mul(span.n_bytes, (size_t)MAX_EXPANSION / 2, &n_slots) ||
        !base_checked_mul(n_slots, 2 * sizeof *codes, &n_bytes)) {
        st = BASE_FAIL(BASE_OUT_OF_RANGE, "normalizing %zu bytes", span.n_bytes);
        goto out;
    }
    codes = mem.get(mem.ctx, n_bytes); /* the second half is for sorting */
    if (codes == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "normalizing %zu bytes", span.n_bytes);
        goto out;
    }
    size_t n = 0;
    for (size_t i = 0; i < span.n_bytes;) {
        const text_utf8_char c = text_utf8_next(span.data + i, span.n_bytes - i);
        int last_boundary = 0;
        n += (size_t)utf8proc_decompose_char((utf8proc_int32_t)c.code, codes + n, MAX_EXPANSION,
                                             UTF8PROC_DECOMPOSE, &last_boundary);
        i += c.n_bytes;
    }
    order_marks(codes, n, codes + n_slots);
    n = (size_t)utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)n,
                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (size_t i = 0; i < n; i++) {
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t n_char = utf8proc_encode_char(codes[i], bytes);
        BASE_TRY(st, out, base_bytes_add(buffer, bytes, (size_t)n_char));
    }

out:
    mem.put(mem.ctx, codes);
    return st;
}

base_status text_nfc_apply(base_view text, base_bytes *buffer, base_view *nfc_out)
{
    size_t done = 0;
    size_t cut;
    if (find_suspect(text, 0, &cut) == text.n_bytes) {
        *nfc_out = text;
        return BASE_OK;
    }
    base_bytes_drop_front(buffer, buffer->n_bytes);
    while (done < text.n_bytes) {
        const size_t suspect = find_suspect(text, done, &cut);
        base_status st = base_bytes_add(buffer, text.data + done, cut - done);
        if (st == BASE_OK && suspect < text.n_bytes) {
            done = find_inert(text, suspect);
            const base_view span = {text.data + cut, done - cut};
            st = add_composed(span, buffer);
        } else {
            done = text.n_bytes;
        }
        if (st != BASE_OK) {
            return st;
        }
    }
    *nfc_out = base_bytes_view(buffer);
    return BASE_OK;
}
