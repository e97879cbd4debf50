#include "worker/engine/ledger.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static const ledger_limits small = {
    .n_ranks = 3, .n_slots = 4, .n_pages = 5, .n_vocab = 100, .max_context = 1500};

static int32_t prompt_ids[2000];

/* n_prompt tokens, n_new more at most, from start_rank on. */
static group_admit ask(size_t n_prompt, int32_t n_new, int32_t start_rank)
{
    return (group_admit){.prompt = prompt_ids,
                         .n_prompt = n_prompt,
                         .start_rank = start_rank,
                         .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                         .max_new_tokens = n_new,
                         .credit = 10};
}

static ledger *make(const ledger_limits *limits)
{
    ledger *l = NULL;
    CHECK_STATUS(ledger_create(limits, &base_heap, &l), BASE_OK);
    return l;
}

static ledger_seq *admit(ledger *l, uint64_t seq, group_admit a)
{
    ledger_seq *s = NULL;
    CHECK_STATUS(ledger_admit(l, seq, &a, &s), BASE_OK);
    return s;
}

static void check_free(const ledger *l, int64_t a, int64_t b, int64_t c)
{
    assert_int_equal(ledger_free_pages(l)[0], a);
    assert_int_equal(ledger_free_pages(l)[1], b);
    assert_int_equal(ledger_free_pages(l)[2], c);
}

static void all_blocks_of_prompt_and_output_are_taken_at_once(void **state)
{
    (void)state;
    ledger *l = make(&small);
    ledger_seq *s = admit(l, 9, ask(100, 28, 1)); /* 128 tokens: one block */
    assert_int_equal(s->n_blocks, 1);
    assert_int_equal(s->slot, 0);
    check_free(l, 5, 4, 5);
    ledger_seq *t = admit(l, 10, ask(100, 29, 1)); /* 129: two */
    assert_int_equal(t->n_blocks, 2);
    assert_int_equal(t->slot, 1);
    check_free(l, 5, 3, 4);
    assert_int_equal(ledger_owner(l, t, 0), 1);
    assert_int_equal(ledger_owner(l, t, 1), 2);
    assert_int_not_equal(s->pages[0], t->pages[0]); /* both in rank 1's pool */
    ledger_end(l, s);
    check_free(l, 5, 4, 4);
    ledger_end(l, t);
    check_free(l, 5, 5, 5);
    ledger_destroy(l);
}

static void the_proposed_rank_is_kept_while_it_has_room(void **state)
{
    (void)state;
    ledger *l = make(&small);
    assert_int_equal(admit(l, 1, ask(4 * 128, 128, 2))->run.start_rank, 2); /* 5: 2, 0, 1, 2, 0 */
    check_free(l, 3, 4, 3);
    assert_int_equal(admit(l, 2, ask(3 * 128, 128, 0))->run.start_rank, 0); /* 4: 0, 1, 2, 0 */
    check_free(l, 1, 3, 2);
    /* 4 blocks at rank 0 would need two of its pages; at rank 1 they fit. */
    assert_int_equal(admit(l, 3, ask(3 * 128, 128, 0))->run.start_rank, 1);
    check_free(l, 0, 1, 1);
    ledger_destroy(l);
}

static void a_proposal_outside_the_ranks_is_corrected(void **state)
{
    (void)state;
    ledger *l = make(&small);
    (void)admit(l, 1, ask(1, 1, 0));
    assert_int_equal(admit(l, 2, ask(1, 1, 3))->run.start_rank, 1); /* the emptiest, lowest first */
    assert_int_equal(admit(l, 3, ask(1, 1, 1000))->run.start_rank, 2);
    ledger_destroy(l);
}

static void what_never_fits_is_told_apart_from_what_does_not_fit_now(void **state)
{
    (void)state;
    ledger *l = make(&small);
    ledger_seq *s = NULL;
    group_admit a = ask(1400, 101, 0);
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("max_context is 1500");
    a = ask(1400, 100, 0);
    (void)admit(l, 2, a); /* 12 of 15 blocks */
    CHECK_STATUS(ledger_admit(l, 3, &a, &s), BASE_EXHAUSTED);
    a = ask(200, 56, 0);
    (void)admit(l, 4, a);
    (void)admit(l, 5, ask(1, 1, 0));
    check_free(l, 0, 0, 0);
    a = ask(1, 1, 0);
    CHECK_STATUS(ledger_admit(l, 6, &a, &s), BASE_EXHAUSTED); /* a slot, but no block */
    assert_null(s);
    ledger_destroy(l);

    const ledger_limits few = {
        .n_ranks = 1, .n_slots = 2, .n_pages = 3, .n_vocab = 100, .max_context = 1500};
    l = make(&few);
    a = ask(384, 1, 0);
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("the pools hold 3");
    (void)admit(l, 1, ask(1, 1, 0));
    (void)admit(l, 2, ask(1, 1, 0));
    a = ask(1, 1, 0);
    CHECK_STATUS(ledger_admit(l, 3, &a, &s), BASE_EXHAUSTED); /* a block, but no slot */
    ledger_destroy(l);
}

static void bad_requests_are_named_and_change_nothing(void **state)
{
    (void)state;
    ledger *l = make(&small);
    ledger_seq *s = NULL;
    static int32_t wrong[3] = {5, 100, 7};
    group_admit a = ask(3, 1, 0);
    a.prompt = wrong;
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("prompt token 1 is 100");
    wrong[1] = -1;
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    a = ask(0, 1, 0);
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    a = ask(5, 3, 0);
    a.n_sent = 3; /* all were sent already */
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("max_new_tokens 3");
    a = ask(5, 30, 0);
    a.n_sent = 5; /* no prompt is left */
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    (void)admit(l, 1, ask(1, 1, 0));
    a = ask(1, 1, 0);
    CHECK_STATUS(ledger_admit(l, 1, &a, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("sequence 1 runs already");
    assert_int_equal(ledger_n_running(l), 1);
    check_free(l, 4, 5, 5);
    ledger_destroy(l);
}

static void a_replay_counts_the_original_prompt(void **state)
{
    (void)state;
    ledger *l = make(&small);
    group_admit a = ask(1450, 150, 0); /* 1350 + 150: exactly the context */
    a.n_sent = 100;
    const ledger_seq *s = admit(l, 1, a);
    assert_int_equal(s->n_left, 50);
    assert_int_equal(s->n_prompt, 1450);
    assert_int_equal(s->n_blocks, 12);
    ledger_destroy(l);
}

static void used_blocks_follow_the_position(void **state)
{
    (void)state;
    static const struct {
        int64_t position;
        int32_t want[3];
    } rows[] = {{0, {0, 0, 0}},   {1, {0, 0, 1}},   {128, {0, 0, 1}},
                {129, {1, 0, 1}}, {512, {1, 1, 2}}, {513, {2, 1, 2}}};
    ledger *l = make(&small);
    ledger_seq *s = admit(l, 1, ask(600, 100, 2));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int32_t counts[3];
        s->position = rows[i].position;
        ledger_used_blocks(l, s, counts);
        assert_memory_equal(counts, rows[i].want, sizeof counts);
    }
    ledger_destroy(l);
}

static void running_is_in_order_of_arrival(void **state)
{
    (void)state;
    ledger *l = make(&small);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        (void)admit(l, seq, ask(1, 1, 0));
    }
    ledger_end(l, ledger_find(l, 2));
    ledger_seq *s = admit(l, 7, ask(1, 1, 0));
    assert_int_equal(s->slot, 1); /* the freed one */
    static const uint64_t want[] = {1, 3, 4, 7};
    assert_int_equal(ledger_n_running(l), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ledger_running(l)[i]->seq, want[i]);
    }
    assert_null(ledger_find(l, 2));
    ledger_destroy(l);
}

/* No page is held twice, none is lost, and what was reserved covers every position. */
static void check_books(const ledger *l, const ledger_limits *limits)
{
    static bool held[8][64];
    int64_t n_held[8] = {0};
    memset(held, 0, sizeof held);
    for (int32_t i = 0; i < ledger_n_running(l); i++) {
        const ledger_seq *s = ledger_running(l)[i];
        for (int32_t b = 0; b < s->n_blocks; b++) {
            const int32_t r = ledger_owner(l, s, b);
            assert_in_range(s->pages[b], 0, limits->n_pages - 1);
            assert_false(held[r][s->pages[b]]);
            held[r][s->pages[b]] = true;
            n_held[r]++;
        }
        for (int32_t k = 0; k < i; k++) {
            assert_int_not_equal(s->slot, ledger_running(l)[k]->slot);
        }
    }
    for (int32_t r = 0; r < limits->n_ranks; r++) {
        assert_int_equal(ledger_free_pages(l)[r], limits->n_pages - n_held[r]);
    }
}

static void random_runs_never_leak_or_share_a_block(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        const ledger_limits limits = {.n_ranks = 1 + (int32_t)(base_random_u64(seed, 0, 0) % 8),
                                      .n_slots = 1 + (int32_t)(base_random_u64(seed, 0, 1) % 9),
                                      .n_pages = 1 + (int32_t)(base_random_u64(seed, 0, 2) % 60),
                                      .n_vocab = 50,
                                      .max_context = 2000};
        ledger *l = make(&limits);
        int n_admitted = 0;
        for (uint64_t i = 0; i < 300; i++) {
            const uint64_t bits = base_random_u64(seed, 1, i);
            if (bits % 3 != 0) {
                const group_admit a =
                    ask(1 + (size_t)(bits >> 8) % 1500, 1 + (int32_t)((bits >> 24) % 300),
                        (int32_t)((bits >> 40) % 10));
                ledger_seq *s = NULL;
                const base_status st = ledger_admit(l, i, &a, &s);
                if (st == BASE_OK) {
                    n_admitted++;
                    assert_true(s->n_blocks * 128 >= (int64_t)a.n_prompt + a.max_new_tokens);
                } else {
                    assert_true(st == BASE_EXHAUSTED || st == BASE_OUT_OF_RANGE);
                    /* An empty ledger takes everything that is possible at all. */
                    assert_true(st == BASE_OUT_OF_RANGE || ledger_n_running(l) > 0);
                }
            } else if (ledger_n_running(l) > 0) {
                ledger_end(l, ledger_running(l)[(bits >> 8) % (uint64_t)ledger_n_running(l)]);
            }
            check_books(l, &limits);
        }
        assert_true(n_admitted > 0);
        while (ledger_n_running(l) > 0) {
            ledger_end(l, ledger_running(l)[0]);
        }
        check_books(l, &limits);
        ledger_destroy(l);
    }
}

static void create_and_admit_survive_every_failed_allocation(void **state)
{
    (void)state;
    group_admit a = ask(300, 100, 0);
    a.sampling.repetition_penalty = 2.0f;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        ledger *l = NULL;
        ledger_seq *s = NULL;
        base_status st = ledger_create(&small, &mem, &l);
        if (st == BASE_OK) {
            st = ledger_admit(l, 1, &a, &s);
            assert_int_equal(ledger_n_running(l), st == BASE_OK);
            if (st != BASE_OK) {
                check_free(l, 5, 5, 5);
            }
            ledger_destroy(l);
        } else {
            assert_null(l);
        }
        assert_int_equal(f.n_live, 0);
        if (st == BASE_OK) {
            assert_true(k > 8);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_blocks_of_prompt_and_output_are_taken_at_once),
        cmocka_unit_test(the_proposed_rank_is_kept_while_it_has_room),
        cmocka_unit_test(a_proposal_outside_the_ranks_is_corrected),
        cmocka_unit_test(what_never_fits_is_told_apart_from_what_does_not_fit_now),
        cmocka_unit_test(bad_requests_are_named_and_change_nothing),
        cmocka_unit_test(a_replay_counts_the_original_prompt),
        cmocka_unit_test(used_blocks_follow_the_position),
        cmocka_unit_test(running_is_in_order_of_arrival),
        cmocka_unit_test(random_runs_never_leak_or_share_a_block),
        cmocka_unit_test(create_and_admit_survive_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
