#include "worker/engine/scheduler.h"

#include "base/random.h"
#include "tests/support/test.h"

#define MAX 8

typedef struct row {
    const char *what;
    int32_t chunk;
    int32_t n_seqs;
    sched_seq seqs[MAX];
    int32_t n_picks;
    sched_pick picks[MAX];
} row;

static const row rows[] = {
    {"nothing runs", 512, 0, {{0, 0, false}}, 0, {{0, 0, false}}},
    {"a short prompt goes whole and makes a token", 512, 1, {{0, 5, true}}, 1, {{0, 5, true}}},
    {"a prompt of the chunk's size is one part", 512, 1, {{0, 512, true}}, 1, {{0, 512, true}}},
    {"one token more is two parts", 512, 1, {{0, 513, true}}, 1, {{0, 512, false}}},
    {"the second part", 512, 1, {{512, 513, true}}, 1, {{0, 1, true}}},
    {"decoding", 512, 1, {{513, 513, true}}, 1, {{0, 1, true}}},
    {"later in decoding", 512, 1, {{900, 513, true}}, 1, {{0, 1, true}}},
    {"without credit it waits", 512, 2, {{900, 513, false}, {7, 7, true}}, 1, {{1, 1, true}}},
    {"decoders first, then prompts",
     256,
     3,
     {{0, 1000, true}, {20, 10, true}, {0, 4, true}},
     2,
     {{1, 1, true}, {0, 256, false}}},
    {"the rest of the chunk goes to the next prompt, in whole blocks",
     512,
     2,
     {{896, 1000, true}, {0, 4000, true}},
     2,
     {{0, 104, true}, {1, 384, false}}},
    {"too little for a block: it waits, and a later short prompt fits",
     128,
     3,
     {{0, 100, true}, {0, 1000, true}, {0, 20, true}},
     2,
     {{0, 100, true}, {2, 20, true}}},
    {"the last part needs credit, the parts before do not",
     512,
     1,
     {{0, 600, false}},
     1,
     {{0, 512, false}}},
    {"the last part without credit", 512, 1, {{512, 600, false}}, 0, {{0, 0, false}}},
    {"without credit a prompt stops before its last block",
     512,
     1,
     {{0, 300, false}},
     1,
     {{0, 256, false}}},
    {"also when it ends with a block", 512, 1, {{0, 256, false}}, 1, {{0, 128, false}}},
};

static void every_row_of_the_table_holds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        sched_pick picks[MAX];
        const row *r = &rows[i];
        const int32_t n = scheduler_choose(r->seqs, r->n_seqs, r->chunk, picks);
        bool same = n == r->n_picks;
        for (int32_t k = 0; same && k < n; k++) {
            same = picks[k].seq == r->picks[k].seq && picks[k].n_tokens == r->picks[k].n_tokens &&
                   picks[k].samples == r->picks[k].samples;
        }
        if (!same) {
            fail_msg("%s: %d picks, first is %d with %d tokens", r->what, n, picks[0].seq,
                     picks[0].n_tokens);
        }
    }
}

static void random_runs_keep_the_rules_and_everybody_finishes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        sched_seq seqs[MAX];
        sched_pick picks[MAX];
        int64_t n_left[MAX];
        int32_t n_live = MAX;
        uint64_t n_draws = 0;
        const int32_t chunk = 128 * (1 + (int32_t)(base_random_u64(seed, 1, 0) % 5));
        for (int i = 0; i < MAX; i++) {
            seqs[i] =
                (sched_seq){0, 1 + (int64_t)(base_random_u64(seed, 2, (uint64_t)i) % 1500), true};
            n_left[i] = 1 + (int64_t)(base_random_u64(seed, 3, (uint64_t)i) % 40);
        }
        int step = 0;
        for (; n_live > 0 && step < 2000; step++) {
            for (int32_t i = 0; i < n_live; i++) {
                seqs[i].has_credit = base_random_u64(seed, 4, n_draws++) % 4 != 0;
            }
            const int32_t n = scheduler_choose(seqs, n_live, chunk, picks);
            int64_t n_prompt_tokens = 0;
            uint64_t chosen = 0;
            for (int32_t k = 0; k < n; k++) {
                sched_seq *s = &seqs[picks[k].seq];
                const int64_t end = s->position + picks[k].n_tokens;
                assert_false(chosen >> picks[k].seq & 1);
                chosen |= (uint64_t)1 << picks[k].seq;
                assert_true(picks[k].n_tokens > 0);
                assert_true(!picks[k].samples || s->has_credit);
                if (s->position < s->n_prompt) {
                    n_prompt_tokens += picks[k].n_tokens;
                    assert_true(end % 128 == 0 || end == s->n_prompt);
                    assert_true(end <= s->n_prompt);
                    assert_int_equal(picks[k].samples, end == s->n_prompt);
                } else {
                    assert_int_equal(picks[k].n_tokens, 1);
                    assert_true(picks[k].samples);
                }
                s->position = end;
                n_left[picks[k].seq] -= picks[k].samples;
            }
            assert_true(n_prompt_tokens <= chunk);
            for (int32_t i = n_live - 1; i >= 0; i--) {
                if (n_left[i] == 0) {
                    n_live--;
                    memmove(&seqs[i], &seqs[i + 1], (size_t)(n_live - i) * sizeof seqs[0]);
                    memmove(&n_left[i], &n_left[i + 1], (size_t)(n_live - i) * sizeof n_left[0]);
                }
            }
        }
        assert_int_equal(n_live, 0);
    }
}

static void the_oldest_prompt_moves_in_every_step(void **state)
{
    (void)state;
    sched_seq seqs[3] = {{0, 5000, true}, {0, 90, true}, {0, 130, true}};
    sched_pick picks[3];
    while (seqs[0].position < seqs[0].n_prompt) {
        const int64_t before = seqs[0].position;
        const int32_t n = scheduler_choose(seqs, 3, 128, picks);
        for (int32_t k = 0; k < n; k++) {
            seqs[picks[k].seq].position += picks[k].n_tokens;
        }
        assert_true(seqs[0].position >= before + 128 || seqs[0].position == seqs[0].n_prompt);
        seqs[1].position = seqs[2].position = 0; /* new ones keep coming */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table_holds),
        cmocka_unit_test(random_runs_keep_the_rules_and_everybody_finishes),
        cmocka_unit_test(the_oldest_prompt_moves_in_every_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
