#include "worker/eval/score.h"

#include <ctype.h>
#include <stdbool.h>
#include <strings.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static base_view trim(base_view v)
{
    while (v.n_bytes > 0 && is_space(v.data[0])) {
        v.data++;
        v.n_bytes--;
    }
    while (v.n_bytes > 0 && is_space(v.data[v.n_bytes - 1])) {
        v.n_bytes--;
    }
    return v;
}

static bool contains(base_view text, base_view part)
{
    if (part.n_bytes == 0) {
        return true;
    }
    for (size_t at = 0; at + part.n_bytes <= text.n_bytes; at++) {
        if (strncasecmp(text.data + at, part.data, part.n_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_punctuation(char c)
{
    return (unsigned char)c < 128 && ispunct((unsigned char)c);
}

/* The next byte of a word that counts, lower case; -1 at its end. */
static int next_byte(base_view word, size_t *at)
{
    while (*at < word.n_bytes && is_punctuation(word.data[*at])) {
        (*at)++;
    }
    if (*at == word.n_bytes) {
        return -1;
    }
    const unsigned char c = (unsigned char)word.data[(*at)++];
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool same_word(base_view a, base_view b)
{
    size_t i = 0;
    size_t j = 0;
    for (;;) {
        const int x = next_byte(a, &i);
        if (x != next_byte(b, &j)) {
            return false;
        }
        if (x < 0) {
            return true;
        }
    }
}

/* Cuts the next word that counts off *rest. */
static bool next_word(base_view *rest, base_view *word_out)
{
    for (;;) {
        *rest = trim(*rest);
        base_view word = {rest->data, 0};
        while (word.n_bytes < rest->n_bytes && !is_space(rest->data[word.n_bytes])) {
            word.n_bytes++;
        }
        if (word.n_bytes == 0) {
            return false;
        }
        rest->data += word.n_bytes;
        rest->n_bytes -= word.n_bytes;
        if (!same_word(word, base_view_of("a")) && !same_word(word, base_view_of("an")) &&
            !same_word(word, base_view_of("the")) && !same_word(word, base_view_of(""))) {
            *word_out = word;
            return true;
        }
    }
}

/* How often `word` stands in the text before `end` (NULL: anywhere). */
static int64_t count_word(base_view text, base_view word, const char *end)
{
    int64_t n = 0;
    base_view other;
    while (next_word(&text, &other) && other.data != end) {
        n += same_word(other, word);
    }
    return n;
}

static double f1(base_view reply, base_view answer)
{
    int64_t n_reply = 0;
    int64_t n_answer = 0;
    int64_t n_common = 0;
    base_view word;
    for (base_view rest = reply; next_word(&rest, &word); n_reply++) {
        n_common += count_word(reply, word, word.data) < count_word(answer, word, NULL);
    }
    for (base_view rest = answer; next_word(&rest, &word);) {
        n_answer++;
    }
    if (n_reply == 0 || n_answer == 0) {
        return n_reply == n_answer ? 1.0 : 0.0;
    }
    return 2.0 * (double)n_common / (double)(n_reply + n_answer);
}

base_status eval_scorer_parse(base_view text, eval_scorer *scorer_out)
{
#define X(name, spelled)                                \
    if (base_view_equal(text, base_view_of(spelled))) { \
        *scorer_out = EVAL_SCORER_##name;               \
        return BASE_OK;                                 \
    }
    EVAL_SCORERS
#undef X
    return BASE_NOT_FOUND;
}

double eval_score(eval_scorer scorer, base_view reply, const base_view *answers, int32_t n_answers)
{
    double best = 0.0;
    for (int32_t i = 0; i < n_answers; i++) {
        double score = 0.0;
        switch (scorer) {
        case EVAL_SCORER_EXACT: score = base_view_equal(trim(reply), trim(answers[i])); break;
        case EVAL_SCORER_CONTAINS: score = contains(reply, trim(answers[i])); break;
        case EVAL_SCORER_F1: score = f1(reply, answers[i]); break;
        }
        best = score > best ? score : best;
    }
    return best;
}
