#include "coordinator/text/pretokenize.h"

#include "coordinator/text/pattern.h"
#include "coordinator/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* A sane pattern backtracks over each byte a few times; beyond that the text is hostile. */
#define STEPS_PER_BYTE  16
#define STEPS_AT_LEAST  1000000
#define JIT_STACK_BYTES ((size_t)16 << 20) /* address space; pages are used as needed */

struct text_pretokenizer {
    base_alloc mem;
    pcre2_general_context *general; /* routes PCRE2's memory through mem */
    pcre2_code *codes[TEXT_MAX_PATTERNS];
    size_t n_codes;
};

struct text_cutter {
    base_alloc mem;
    const text_pretokenizer *pretokenizer;
    pcre2_general_context *general;
    pcre2_match_context *match;
    pcre2_match_data *data;
    pcre2_jit_stack *jit_stack; /* NULL until the machine stack was too small */
    text_piece_fn piece_fn;
    void *ctx;
};

static void *pcre_get(PCRE2_SIZE bytes, void *ctx)
{
    const base_alloc *mem = ctx;
    return mem->get(mem->ctx, bytes);
}

static void pcre_put(void *p, void *ctx)
{
    const base_alloc *mem = ctx;
    mem->put(mem->ctx, p);
}

static base_status compile(text_pretokenizer *p, text_pretokenizer_pattern pattern)
{
    base_status st = BASE_OK;
    int error = 0;
    PCRE2_SIZE offset = 0;
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_NO_AUTO_CAPTURE | PCRE2_NEVER_BACKSLASH_C;
    base_bytes syntax;
    pcre2_compile_context *context = NULL;

    base_bytes_init(&syntax, (size_t)16 * TEXT_MAX_PATTERN_BYTES, &p->mem);
    if (pattern.text.n_bytes < 1 || pattern.text.n_bytes > TEXT_MAX_PATTERN_BYTES) {
        st = BASE_FAIL(BASE_BAD_FILE, "tokenizer.json: pattern of %zu bytes, allowed 1..%d",
                       pattern.text.n_bytes, TEXT_MAX_PATTERN_BYTES);
        goto out;
    }
    if (pattern.is_literal) {
        flags = PCRE2_UTF | PCRE2_LITERAL;
        BASE_TRY(st, out, base_bytes_add(&syntax, pattern.text.data, pattern.text.n_bytes));
    } else {
        BASE_TRY(st, out, text_pattern_translate(pattern.text, &syntax));
    }
    context = pcre2_compile_context_create(p->general);
    if (context == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "tokenizer pattern");
        goto out;
    }
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)syntax.data, syntax.n_bytes, flags, &error, &offset, context);
    if (code == NULL) {
        PCRE2_UCHAR why[128] = "";
        (void)pcre2_get_error_message(error, why, sizeof why);
        st = error == PCRE2_ERROR_HEAP_FAILED
                 ? BASE_FAIL(BASE_NO_MEMORY, "tokenizer pattern")
                 : BASE_FAIL(BASE_BAD_FILE, "tokenizer.json: pattern '%.*s': %s at offset %zu",
                             (int)(syntax.n_bytes < 200 ? syntax.n_bytes : 200), syntax.data,
                             (const char *)why, offset);
        goto out;
    }
    /* Without JIT the interpreter runs, slower and with the same result. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    p->codes[p->n_codes++] = code;

out:
    pcre2_compile_context_free(context);
    base_bytes_reset(&syntax);
    return st;
}

base_status text_pretokenizer_create(const text_pretokenizer_pattern *patterns, size_t n_patterns,
                                     const base_alloc *mem, text_pretokenizer **pretokenizer_out)
{
    base_status st = BASE_OK;
    text_pretokenizer *p = NULL;

    if (n_patterns > TEXT_MAX_PATTERNS) {
        return BASE_FAIL(BASE_BAD_FILE, "tokenizer.json: %zu patterns in pre_tokenizer, allowed %d",
                         n_patterns, TEXT_MAX_PATTERNS);
    }
    p = mem->get(mem->ctx, sizeof *p);
    if (p == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "pretokenizer");
        goto out;
    }
    p->mem = *mem;
    p->general = pcre2_general_context_create(pcre_get, pcre_put, &p->mem);
    if (p->general == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "pretokenizer");
        goto out;
    }
    for (size_t i = 0; i < n_patterns; i++) {
        BASE_TRY(st, out, compile(p, patterns[i]));
    }
    *pretokenizer_out = p;
    p = NULL; /* ownership moved */

out:
    text_pretokenizer_destroy(p);
    return st;
}

void text_pretokenizer_destroy(text_pretokenizer *p)
{
    if (p == NULL) {
        return;
    }
    const base_alloc mem = p->mem;
    for (size_t i = 0; i < p->n_codes; i++) {
        pcre2_code_free(p->codes[i]);
    }
    pcre2_general_context_free(p->general);
    mem.put(mem.ctx, p);
}

base_status text_cutter_create(const text_pretokenizer *pretokenizer, const base_alloc *mem,
                               text_cutter **cutter_out)
{
    base_status st = BASE_OK;
    text_cutter *c = mem->get(mem->ctx, sizeof *c);
    if (c == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "text cutter");
        goto out;
    }
    c->mem = *mem;
    c->pretokenizer = pretokenizer;
    c->general = pcre2_general_context_create(pcre_get, pcre_put, &c->mem);
    if (c->general != NULL) {
        c->match = pcre2_match_context_create(c->general);
        c->data = pcre2_match_data_create(1, c->general);
    }
    if (c->match == NULL || c->data == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "text cutter");
        goto out;
    }
    *cutter_out = c;
    c = NULL; /* ownership moved */

out:
    text_cutter_destroy(c);
    return st;
}

void text_cutter_destroy(text_cutter *c)
{
    if (c == NULL) {
        return;
    }
    const base_alloc mem = c->mem;
    pcre2_jit_stack_free(c->jit_stack);
    pcre2_match_data_free(c->data);
    pcre2_match_context_free(c->match);
    pcre2_general_context_free(c->general);
    mem.put(mem.ctx, c);
}

/* The next match at or after from: its range, or begin == end == n_bytes if there is none. */
static base_status find_match(text_cutter *c, const pcre2_code *code, base_view text, size_t from,
                              size_t *begin_out, size_t *end_out)
{
    const PCRE2_SPTR subject = (PCRE2_SPTR)text.data;
    int rc = pcre2_match(code, subject, text.n_bytes, from, PCRE2_NO_UTF_CHECK, c->data, c->match);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && c->jit_stack == NULL) {
        c->jit_stack = pcre2_jit_stack_create((size_t)32 << 10, JIT_STACK_BYTES, c->general);
        if (c->jit_stack == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "stack for a pattern match");
        }
        pcre2_jit_stack_assign(c->match, NULL, c->jit_stack);
        rc = pcre2_match(code, subject, text.n_bytes, from, PCRE2_NO_UTF_CHECK, c->data, c->match);
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        *begin_out = text.n_bytes;
        *end_out = text.n_bytes;
        return BASE_OK;
    }
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return BASE_FAIL(BASE_NO_MEMORY, "pattern match on %zu bytes", text.n_bytes);
    }
    if (rc < 0) {
        PCRE2_UCHAR why[128] = "";
        (void)pcre2_get_error_message(rc, why, sizeof why);
        return BASE_FAIL(BASE_OUT_OF_RANGE, "cutting %zu bytes of text at offset %zu: %s",
                         text.n_bytes, from, (const char *)why);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(c->data);
    *begin_out = range[0];
    *end_out = range[1];
    return BASE_OK;
}

static base_status cut(text_cutter *c, size_t level, base_view text);

static base_status give(text_cutter *c, size_t level, base_view text, size_t begin, size_t end)
{
    const base_view piece = {text.data + begin, end - begin};
    if (begin == end) {
        return BASE_OK;
    }
    return level == c->pretokenizer->n_codes ? c->piece_fn(c->ctx, piece) : cut(c, level, piece);
}

/* Recursion is as deep as there are patterns. */
static base_status cut(text_cutter *c, size_t level, base_view text)
{
    base_status st = BASE_OK;
    size_t done = 0;
    size_t from = 0;
    while (st == BASE_OK && done < text.n_bytes) {
        size_t begin = text.n_bytes;
        size_t end = text.n_bytes;
        if (from < text.n_bytes) {
            st = find_match(c, c->pretokenizer->codes[level], text, from, &begin, &end);
        }
        if (st == BASE_OK) {
            st = give(c, level + 1, text, done, begin);
        }
        if (st == BASE_OK) {
            st = give(c, level + 1, text, begin, end);
        }
        done = end;
        from = end;
        if (begin == end && end < text.n_bytes) { /* an empty match cuts, and must not repeat */
            from += text_utf8_next(text.data + end, text.n_bytes - end).n_bytes;
        }
    }
    return st;
}

base_status text_cutter_run(text_cutter *c, base_view text, text_piece_fn piece_fn, void *ctx)
{
    const size_t n_steps = text.n_bytes < (UINT32_MAX - STEPS_AT_LEAST) / STEPS_PER_BYTE
                               ? STEPS_AT_LEAST + STEPS_PER_BYTE * text.n_bytes
                               : UINT32_MAX;
    (void)pcre2_set_match_limit(c->match, (uint32_t)n_steps);
    c->piece_fn = piece_fn;
    c->ctx = ctx;
    return give(c, 0, text, 0, text.n_bytes);
}
