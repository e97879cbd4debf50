#include "worker/eval/needle.h"

#include "base/random.h"

#include <inttypes.h>
#include <stdio.h>

#define MAX_PROMPT_BYTES ((size_t)64 << 20)
#define MAX_FACT         96
#define SLACK            4 /* tokens by which the pieces may count less than the whole */

static const char *const adjectives[] = {
    "amber",  "bright", "copper", "crimson", "distant", "early",  "gentle",   "golden",
    "hollow", "hidden", "ivory",  "lonely",  "marble",  "narrow", "northern", "patient",
    "purple", "quiet",  "rusty",  "scarlet", "silver",  "stormy", "velvet",   "wooden"};
static const char *const nouns[] = {"anchor", "badger",  "bridge",  "candle",  "castle",  "compass",
                                    "eagle",  "falcon",  "feather", "garden",  "harbor",  "island",
                                    "kettle", "lantern", "meadow",  "mirror",  "orchard", "parrot",
                                    "ribbon", "river",   "saddle",  "thunder", "village", "window"};

enum {
    N_ADJECTIVES = sizeof adjectives / sizeof adjectives[0],
    N_NOUNS = sizeof nouns / sizeof nouns[0],
    N_NAMES = N_ADJECTIVES * N_NOUNS,
};

typedef struct key {
    int32_t name; /* adjective * N_NOUNS + noun */
    int32_t number;
    double depth;
    bool placed;
} key;

typedef struct maker {
    const eval_needle_options *o;
    eval_count_tokens count;
    void *ctx;
    uint64_t n_drawn;
    key keys[EVAL_NEEDLE_MAX_KEYS];
    base_view *sentences;
    int32_t n_sentences;
} maker;

static int32_t draw(maker *m, int32_t n)
{
    return (int32_t)(base_random_unit(m->o->seed, m->o->stream, m->n_drawn++) * n);
}

static void draw_keys(maker *m)
{
    static const int32_t low[] = {10000, 100000, 1000000};
    for (int32_t i = 0; i < m->o->n_keys; i++) {
        key *k = &m->keys[i];
        bool taken = true;
        while (taken) {
            k->name = draw(m, N_NAMES);
            taken = false;
            for (int32_t j = 0; j < i; j++) {
                taken = taken || m->keys[j].name == k->name;
            }
        }
        const int32_t least = low[draw(m, 3)];
        k->number = least + draw(m, 9 * least);
        k->depth = i == 0 ? m->o->depth : draw(m, 1000) / 1000.0;
    }
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_end(char c)
{
    return c == '.' || c == '!' || c == '?' || c == '"';
}

/* Ends at a mark that white space and a capital or a quotation mark follow, or at the last mark. */
static size_t sentence_end(base_view text)
{
    size_t last = 0;
    for (size_t i = 0; i < text.n_bytes; i++) {
        if (!is_end(text.data[i])) {
            continue;
        }
        last = i + 1;
        size_t next = i + 1;
        while (next < text.n_bytes && is_space(text.data[next])) {
            next++;
        }
        if (next > i + 1 && next < text.n_bytes &&
            ((text.data[next] >= 'A' && text.data[next] <= 'Z') || text.data[next] == '"')) {
            return i + 1;
        }
    }
    return last;
}

/* Fills sentences_out, if given; returns how many there are. */
static int32_t split(base_view text, base_view *sentences_out)
{
    int32_t n = 0;
    for (;;) {
        while (text.n_bytes > 0 && is_space(text.data[0])) {
            text.data++;
            text.n_bytes--;
        }
        const size_t end = sentence_end(text);
        if (end == 0 || n == INT32_MAX) {
            return n;
        }
        if (sentences_out != NULL) {
            sentences_out[n] = (base_view){text.data, end};
        }
        n++;
        text.data += end;
        text.n_bytes -= end;
    }
}

static void name_of(const key *k, char *name_out, size_t n_bytes)
{
    (void)snprintf(name_out, n_bytes, "%s %s", adjectives[k->name / N_NOUNS],
                   nouns[k->name % N_NOUNS]);
}

static base_view fact_of(const key *k, char text[MAX_FACT])
{
    char name[40];
    name_of(k, name, sizeof name);
    (void)snprintf(text, MAX_FACT, "The secret number for %s is %d.", name, k->number);
    return base_view_of(text);
}

/* Tokens of " text": pieces are joined by a space, where tokenizers cut. */
static base_status count_piece(const maker *m, base_view text, base_bytes *work, int64_t *n_io)
{
    int32_t n = 0;
    base_status st;
    base_bytes_drop_front(work, work->n_bytes);
    BASE_TRY(st, out, base_bytes_add(work, " ", 1));
    BASE_TRY(st, out, base_bytes_add(work, text.data, text.n_bytes));
    BASE_TRY(st, out, m->count(m->ctx, base_bytes_view(work), &n));
    *n_io += n;
out:
    return st;
}

static base_status add_piece(base_bytes *prompt, base_view text)
{
    base_status st = prompt->n_bytes == 0 ? BASE_OK : base_bytes_add(prompt, " ", 1);
    return st == BASE_OK ? base_bytes_add(prompt, text.data, text.n_bytes) : st;
}

/* The facts whose place is at or before `at` of n_total tokens; all that are left when at >= n_total. */
static base_status add_facts(maker *m, base_bytes *prompt, double at, double n_total)
{
    base_status st = BASE_OK;
    char text[MAX_FACT];
    for (int32_t i = 0; i < m->o->n_keys && st == BASE_OK; i++) {
        key *k = &m->keys[i];
        if (!k->placed && (at >= n_total || (k->depth < 1.0 && k->depth * n_total <= at))) {
            k->placed = true;
            st = add_piece(prompt, fact_of(k, text));
        }
    }
    return st;
}

/* Tokens that sentences may take. */
static base_status room_for(const maker *m, const char *question, base_bytes *work, int64_t *n_out)
{
    base_status st;
    char text[MAX_FACT];
    int64_t n = SLACK + 1; /* what the model puts in front */
    BASE_TRY(st, out, count_piece(m, base_view_of(question), work, &n));
    BASE_TRY(st, out, count_piece(m, base_view_of("1000000."), work, &n));
    for (int32_t i = 0; i < m->o->n_keys; i++) {
        BASE_TRY(st, out, count_piece(m, fact_of(&m->keys[i], text), work, &n));
    }
    *n_out = m->o->n_tokens - n;
out:
    return st;
}

static base_status write_prompt(maker *m, const char *question, base_bytes *work,
                                base_bytes *prompt)
{
    base_status st;
    int64_t room = 0;
    int64_t n_total = 0;
    const int32_t first = draw(m, m->n_sentences);
    int32_t n_used = 0;

    BASE_TRY(st, out, room_for(m, question, work, &room));
    for (;;) { /* how many sentences fit, and what they count */
        int64_t n = n_total;
        BASE_TRY(st, out,
                 count_piece(m, m->sentences[(first + n_used) % m->n_sentences], work, &n));
        if (n > room || n == n_total) {
            break;
        }
        n_total = n;
        n_used++;
    }
    if (n_used == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "a prompt of %d tokens has no room for a sentence",
                       m->o->n_tokens);
        goto out;
    }
    int64_t at = 0;
    for (int32_t i = 0; i < n_used; i++) {
        const base_view sentence = m->sentences[(first + i) % m->n_sentences];
        BASE_TRY(st, out, add_facts(m, prompt, (double)at, (double)n_total));
        BASE_TRY(st, out, add_piece(prompt, sentence));
        BASE_TRY(st, out, count_piece(m, sentence, work, &at));
    }
    BASE_TRY(st, out, add_facts(m, prompt, (double)n_total, (double)n_total));
    st = base_bytes_add(prompt, question, strlen(question));
out:
    return st;
}

base_status eval_needle_make(const eval_needle_options *o, eval_count_tokens count, void *ctx,
                             const base_alloc *mem, eval_needle *needle_out)
{
    base_status st = BASE_OK;
    maker m = {.o = o, .count = count, .ctx = ctx};
    eval_needle needle = {.number = ""};
    base_bytes work;
    char name[40];
    char question[128];

    base_bytes_init(&needle.prompt, MAX_PROMPT_BYTES, mem);
    base_bytes_init(&work, MAX_PROMPT_BYTES, mem);
    if (o->n_tokens < EVAL_NEEDLE_MIN_TOKEN || o->n_keys < 1 || o->n_keys > EVAL_NEEDLE_MAX_KEYS) {
        st = BASE_FAIL(BASE_BAD_INPUT, "needle: %d tokens, at least %d; %d keys, allowed 1..%d",
                       o->n_tokens, EVAL_NEEDLE_MIN_TOKEN, o->n_keys, EVAL_NEEDLE_MAX_KEYS);
        goto out;
    }
    m.n_sentences = split(o->haystack, NULL);
    if (m.n_sentences == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "the haystack has no sentence");
        goto out;
    }
    m.sentences = mem->get(mem->ctx, (size_t)m.n_sentences * sizeof *m.sentences);
    if (m.sentences == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d sentences", m.n_sentences);
        goto out;
    }
    (void)split(o->haystack, m.sentences);
    draw_keys(&m);
    name_of(&m.keys[0], name, sizeof name);
    (void)snprintf(question, sizeof question,
                   "\nQuestion: What is the secret number for %s?\nAnswer:", name);
    (void)snprintf(needle.number, sizeof needle.number, "%" PRId32, m.keys[0].number);
    BASE_TRY(st, out, write_prompt(&m, question, &work, &needle.prompt));
    *needle_out = needle;
    base_bytes_init(&needle.prompt, MAX_PROMPT_BYTES, mem); /* moved */
out:
    mem->put(mem->ctx, m.sentences);
    base_bytes_reset(&work);
    eval_needle_reset(&needle);
    return st;
}

void eval_needle_reset(eval_needle *needle)
{
    base_bytes_reset(&needle->prompt);
}

bool eval_needle_matches(const char *number, base_view reply)
{
    const size_t n = strlen(number);
    while (reply.n_bytes > 0 && is_space(reply.data[0])) {
        reply.data++;
        reply.n_bytes--;
    }
    return reply.n_bytes >= n && memcmp(reply.data, number, n) == 0 &&
           (reply.n_bytes == n || reply.data[n] < '0' || reply.data[n] > '9');
}
