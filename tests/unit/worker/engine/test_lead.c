#include "worker/engine/lead.h"

#include "base/log.h"
#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdio.h>

#define V 200

static const engine_options options = {
    .max_batch = 4, .prefill_chunk = 256, .max_context = 2000, .n_pages = 20};

/* Events as text: "admitted 1@0", "token 1:42", ... one after another. */
typedef struct tape {
    char text[65536];
    size_t n_bytes;
    group_up last;
    int64_t free_pages[2];
    int32_t blocks[2];
    float logprob;
    int32_t top_ids[4];
} tape;

static void record(void *ctx, const group_up *up)
{
    tape *t = ctx;
    char *to = t->text + t->n_bytes;
    const size_t room = sizeof t->text - t->n_bytes;
    const unsigned seq = (unsigned)up->seq;
    int n = 0;
    switch (up->kind) {
    case GROUP_UP_ADMITTED: n = snprintf(to, room, "admitted %u@%d ", seq, up->start_rank); break;
    case GROUP_UP_REFUSED:
        n = snprintf(to, room, "refused %u%s(%.*s) ", seq,
                     up->retry     ? " retry "
                     : up->invalid ? " invalid "
                                   : " ",
                     (int)up->reason_text.n_bytes, up->reason_text.data);
        break;
    case GROUP_UP_PROGRESS:
        n = snprintf(to, room, "progress %u:%d/%d ", seq, (int)up->done, (int)up->total);
        break;
    case GROUP_UP_TOKENS:
        n = snprintf(to, room, "token %u:%d ", seq, up->ids[0]);
        assert_int_equal(up->n_ids, 1);
        if (up->logprobs != NULL) {
            t->logprob = up->logprobs[0];
            memcpy(t->top_ids, up->top_ids, (size_t)up->n_top * sizeof t->top_ids[0]);
        }
        break;
    case GROUP_UP_ENDED:
        n = snprintf(to, room, "ended %u:%d,%d ", seq, (int)up->reason, up->stop_id);
        assert_int_equal(up->n_blocks_per_rank, 2);
        memcpy(t->blocks, up->blocks_per_rank, sizeof t->blocks);
        break;
    case GROUP_UP_LOAD:
        n = snprintf(to, room, "load %d+%d ", up->running, up->waiting);
        assert_int_equal(up->n_blocks_free, 2);
        memcpy(t->free_pages, up->blocks_free_per_rank, sizeof t->free_pages);
        break;
    case GROUP_UP_HELLO: fail_msg("a hello"); break;
    }
    t->n_bytes += (size_t)n;
    t->last = *up;
}

typedef struct fixture {
    lead *lead;
    step_plan *plan;
    tape *tape;
    engine_io io;
    forward_pick picks[4]; /* of the step planned last */
    int32_t n_picks;
    uint64_t step;
    step_pace pace; /* nothing is known: prompts get the whole chunk */
} fixture;

static tape the_tape;

static void start(fixture *f)
{
    memset(f, 0, sizeof *f);
    memset(&the_tape, 0, sizeof the_tape);
    f->tape = &the_tape;
    f->io = (engine_io){.ctx = f->tape, .emit = record};
    CHECK_STATUS(lead_create(&options, 2, V, &base_heap, &f->lead), BASE_OK);
    CHECK_STATUS(step_plan_create(4, 260, &base_heap, &f->plan), BASE_OK);
}

static void stop(fixture *f)
{
    step_plan_destroy(f->plan);
    lead_destroy(f->lead);
}

static void check_tape(fixture *f, const char *want)
{
    assert_string_equal(f->tape->text, want);
    f->tape->n_bytes = 0;
    f->tape->text[0] = '\0';
}

static int32_t prompt_ids[2000];

static group_down ask(uint64_t seq, size_t n_prompt, int32_t n_new)
{
    return (group_down){.kind = GROUP_DOWN_ADMIT,
                        .seq = seq,
                        .admit = {.prompt = prompt_ids,
                                  .n_prompt = n_prompt,
                                  .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                                  .max_new_tokens = n_new,
                                  .credit = 1000}};
}

static void say(fixture *f, group_down_kind kind, uint64_t seq, int32_t credit)
{
    const group_down down = {.kind = kind, .seq = seq, .credit = credit};
    lead_take(f->lead, &f->io, &down);
}

static void take(fixture *f, group_down down)
{
    lead_take(f->lead, &f->io, &down);
}

static bool plan(fixture *f)
{
    if (!lead_plan(f->lead, &f->pace, ++f->step, f->plan)) {
        return false;
    }
    f->n_picks = lead_picks(f->lead, f->picks);
    return true;
}

/* The step planned first ends with these last tokens of the slots. */
static void commit(fixture *f, const int32_t last_tokens[4])
{
    kern_sample_report reports[4];
    for (int r = 0; r < 4; r++) {
        reports[r] = (kern_sample_report){.logprob = -0.25f - (float)r, .top_ids = {10 * r, 7}};
    }
    const forward_made made = {last_tokens, reports};
    lead_commit(f->lead, &f->io, &made);
}

/* Runs a step in which the i-th sampling sequence gets token best[i].  False: nothing to do. */
static bool step(fixture *f, const int32_t best[4])
{
    int32_t last_tokens[4] = {-1, -1, -1, -1};
    if (!plan(f)) {
        return false;
    }
    for (int32_t i = 0; i < f->n_picks; i++) {
        last_tokens[f->picks[i].how.slot] = best[i];
    }
    commit(f, last_tokens);
    return true;
}

static void a_sequence_goes_from_prompt_to_its_last_token(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    take(&f, ask(1, 300, 3));
    check_tape(&f, "admitted 1@0 ");
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_int_equal(f.plan->n_seqs, 1);
    assert_true(f.plan->seqs[0].clears);
    assert_false(f.plan->seqs[0].samples);
    assert_int_equal(f.plan->n_tokens, 256);
    assert_int_equal(f.plan->n_pages, 2);
    assert_int_equal(f.plan->pages[1].block, 1);
    assert_int_equal(f.plan->pages[1].rank, 1);
    check_tape(&f, "progress 1:256/300 ");

    assert_true(step(&f, (int32_t[]){42, 9, 9, 9}));
    assert_false(f.plan->seqs[0].clears);
    assert_true(f.plan->seqs[0].samples);
    assert_int_equal(f.plan->seqs[0].position, 256);
    assert_int_equal(f.plan->n_tokens, 44);
    assert_int_equal(f.plan->n_pages, 1);
    assert_int_equal(f.plan->pages[0].block, 2);
    check_tape(&f, "progress 1:300/300 token 1:42 ");

    assert_true(step(&f, (int32_t[]){43, 9, 9, 9}));
    assert_int_equal(f.plan->n_tokens, 1);
    assert_int_equal(f.plan->n_pages, 0);
    assert_int_equal(f.plan->ids[0], PLAN_LAST_TOKEN);
    assert_int_equal(f.plan->seqs[0].position, 300);
    check_tape(&f, "token 1:43 ");
    assert_true(step(&f, (int32_t[]){44, 9, 9, 9}));
    check_tape(&f, "token 1:44 ended 1:1,0 ");
    assert_int_equal(f.tape->blocks[0], 2);
    assert_int_equal(f.tape->blocks[1], 1);
    assert_false(step(&f, (int32_t[]){0, 0, 0, 0}));
    stop(&f);
}

static void decoding_opens_a_block_where_one_begins(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    take(&f, ask(1, 127, 5));
    static const int32_t n_pages[] = {1, 0, 1, 0, 0}; /* positions 0.., 127, 128, 129, 130 */
    for (int i = 0; i < 5; i++) {
        assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
        assert_int_equal(f.plan->n_pages, n_pages[i]);
    }
    stop(&f);
}

static void end_ids_and_stop_ids_end_it_and_are_reported(void **state)
{
    (void)state;
    static const int32_t eos[] = {5, 6};
    static const int32_t stops[] = {70};
    fixture f;
    start(&f);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        group_down down = ask(seq, 4, 100);
        down.admit.eos_ids = eos;
        down.admit.n_eos_ids = seq == 3 ? 0 : 2;
        down.admit.stop_ids = stops;
        down.admit.n_stop_ids = 1;
        take(&f, down);
    }
    check_tape(&f, "admitted 1@0 admitted 2@0 admitted 3@0 ");
    assert_true(step(&f, (int32_t[]){6, 70, 6, 9}));
    check_tape(&f, "progress 1:4/4 token 1:6 ended 1:2,6 "
                   "progress 2:4/4 token 2:70 ended 2:3,70 "
                   "progress 3:4/4 token 3:6 ");
    stop(&f);
}

static void a_cancelled_sequence_is_gone_before_the_next_plan(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    take(&f, ask(1, 600, 10));
    take(&f, ask(2, 4, 10));
    lead_report_load(f.lead, &f.io, 0);
    check_tape(&f, "admitted 1@0 admitted 2@0 load 0+2 ");
    assert_int_equal(f.tape->free_pages[0], 20 - 3 - 1);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    check_tape(&f, "progress 1:256/600 ");
    say(&f, GROUP_DOWN_CANCEL, 1, 0);
    say(&f, GROUP_DOWN_CANCEL, 77, 0); /* unknown: nothing */
    check_tape(&f, "ended 1:4,0 ");
    assert_int_equal(f.tape->blocks[0], 1); /* what it had used */
    lead_report_load(f.lead, &f.io, 0);
    check_tape(&f, "load 0+1 ");
    assert_int_equal(f.tape->free_pages[0], 19);
    assert_int_equal(f.tape->free_pages[1], 20);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_int_equal(f.plan->n_seqs, 1);
    check_tape(&f, "progress 2:4/4 token 2:9 ");
    stop(&f);
}

static void without_credit_it_waits_and_goes_on_with_more(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    group_down down = ask(1, 4, 10);
    down.admit.credit = 2;
    take(&f, down);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_false(step(&f, (int32_t[]){9, 9, 9, 9}));
    say(&f, GROUP_DOWN_CREDIT, 1, 1);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_false(step(&f, (int32_t[]){9, 9, 9, 9}));
    check_tape(&f, "admitted 1@0 progress 1:4/4 token 1:9 token 1:9 token 1:9 ");
    stop(&f);
}

static void refusals_say_whether_to_try_again(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    take(&f, ask(1, 1990, 11));
    check_tape(&f, "refused 1 (prompt of 1990 tokens and max_new_tokens 11, max_context is 2000) ");
    group_down wrong = ask(1, 3, 4);
    wrong.admit.max_new_tokens = 0;
    take(&f, wrong);
    check_tape(&f, "refused 1 invalid (prompt of 3 tokens, 0 of them sent, max_new_tokens 0) ");
    for (uint64_t seq = 2; seq <= 5; seq++) {
        take(&f, ask(seq, 1, 1));
    }
    check_tape(&f, "admitted 2@0 admitted 3@0 admitted 4@0 admitted 5@0 ");
    take(&f, ask(6, 1, 1));
    check_tape(&f, "refused 6 retry (no slot or blocks free now) ");
    say(&f, GROUP_DOWN_DRAIN, 0, 0);
    assert_false(lead_drained(f.lead));
    take(&f, ask(7, 1, 1));
    check_tape(&f, "refused 7 retry (the group is draining) ");
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_true(lead_drained(f.lead));
    stop(&f);
}

static void the_load_is_reported_after_changes_and_as_a_heartbeat(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    lead_report_load(f.lead, &f.io, 1000000);
    lead_report_load(f.lead, &f.io, 1100000);
    check_tape(&f, "load 0+0 ");
    lead_report_load(f.lead, &f.io, 1450000);
    check_tape(&f, "load 0+0 ");
    take(&f, ask(1, 1, 2));
    lead_report_load(f.lead, &f.io, 1450001);
    check_tape(&f, "admitted 1@0 load 0+1 ");
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    lead_report_load(f.lead, &f.io, 1450002);
    check_tape(&f, "progress 1:1/1 token 1:9 load 1+0 ");
    assert_int_equal(f.tape->last.steps, 1);
    stop(&f);
}

static void logprobs_come_when_asked(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    group_down down = ask(2, 1, 2);
    down.admit.logprobs = 2;
    take(&f, ask(1, 1, 2));
    take(&f, down);
    assert_true(step(&f, (int32_t[]){100, 101, 9, 9}));
    assert_int_equal(f.picks[0].how.n_top, 0);
    assert_int_equal(f.picks[1].how.n_top, 2);
    assert_true(f.tape->logprob == -1.25f); /* of the second row */
    assert_int_equal(f.tape->top_ids[0], 10);
    assert_int_equal(f.tape->top_ids[1], 7);
    stop(&f);
}

/* ---- a step ahead ---- */

static void a_step_is_planned_before_the_one_before_has_ended(void **state)
{
    (void)state;
    static const int32_t eos[] = {5};
    fixture f;
    start(&f);
    group_down down = ask(1, 4, 100);
    down.admit.eos_ids = eos;
    down.admit.n_eos_ids = 1;
    take(&f, down);
    take(&f, ask(2, 300, 2));
    check_tape(&f, "admitted 1@0 admitted 2@0 ");
    assert_true(plan(&f)); /* both prompts: 4 and 128 */
    assert_int_equal(f.n_picks, 1);
    assert_true(plan(&f));
    assert_int_equal(f.plan->seqs[0].position, 4);
    assert_int_equal(f.plan->ids[0], PLAN_LAST_TOKEN);
    assert_int_equal(f.plan->seqs[1].position, 128);
    check_tape(&f, "");
    commit(&f, (int32_t[]){77, 9, 9, 9});
    check_tape(&f, "progress 1:4/4 token 1:77 progress 2:128/300 ");
    assert_true(plan(&f));
    commit(&f, (int32_t[]){5, 9, 9, 9}); /* it ends, and has a step under way */
    check_tape(&f, "token 1:5 ended 1:2,5 progress 2:300/300 token 2:9 ");
    assert_int_equal(f.tape->blocks[0], 1);
    assert_false(plan(&f));               /* the last token of 2 is under way */
    commit(&f, (int32_t[]){66, 8, 9, 9}); /* 66 is the discarded one */
    check_tape(&f, "token 2:8 ended 2:1,0 ");
    stop(&f);
}

static void credit_counts_tokens_under_way(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    group_down down = ask(1, 4, 10);
    down.admit.credit = 2;
    take(&f, down);
    assert_true(plan(&f));
    assert_true(plan(&f));
    commit(&f, (int32_t[]){9, 9, 9, 9});
    assert_false(plan(&f));
    say(&f, GROUP_DOWN_CREDIT, 1, 1);
    assert_true(plan(&f));
    commit(&f, (int32_t[]){9, 9, 9, 9});
    commit(&f, (int32_t[]){9, 9, 9, 9});
    assert_false(plan(&f));
    check_tape(&f, "admitted 1@0 progress 1:4/4 token 1:9 token 1:9 token 1:9 ");
    stop(&f);
}

static void a_slot_is_taken_again_while_its_last_step_is_under_way(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    take(&f, ask(1, 4, 10));
    assert_true(plan(&f));
    assert_true(plan(&f));
    say(&f, GROUP_DOWN_CANCEL, 1, 0);
    take(&f, ask(2, 3, 1));
    check_tape(&f, "admitted 1@0 ended 1:4,0 admitted 2@0 ");
    assert_int_equal(f.tape->blocks[0], 0); /* no step of it had ended */
    commit(&f, (int32_t[]){50, 9, 9, 9});
    assert_true(plan(&f));
    assert_int_equal(f.plan->seqs[0].slot, 0);
    assert_true(f.plan->seqs[0].clears);
    commit(&f, (int32_t[]){51, 9, 9, 9});
    check_tape(&f, "");
    commit(&f, (int32_t[]){52, 9, 9, 9});
    check_tape(&f, "progress 2:3/3 token 2:52 ended 2:1,0 ");
    stop(&f);
}

/* ---- how tokens are made ---- */

static const inference_sampling hot = {.temperature = 0.9f,
                                       .top_p = 0.95f,
                                       .min_p = 0.1f,
                                       .repetition_penalty = 1.3f,
                                       .top_k = 4,
                                       .seed = 12};

static void a_pick_says_how_the_request_wants_it(void **state)
{
    (void)state;
    fixture f;
    start(&f);
    group_down down = ask(1, 40, 3);
    down.admit.sampling = hot;
    take(&f, ask(2, 1, 3));
    take(&f, down);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    const forward_pick *p = &f.picks[1];
    assert_int_equal(p->token, 40);
    assert_int_equal(p->how.slot, 1);
    assert_int_equal(p->how.top_k, 4);
    assert_true(p->how.temperature == 0.9f && p->how.top_p == 0.95f && p->how.min_p == 0.1f &&
                p->how.penalty == 1.3f);
    assert_int_equal(p->how.random, base_random_u64(12, 0, 40));
    assert_int_equal(p->n_seen, 40); /* its prompt, once */
    assert_null(f.picks[0].seen_ids);
    assert_true(step(&f, (int32_t[]){9, 9, 9, 9}));
    assert_int_equal(f.picks[1].how.random, base_random_u64(12, 0, 41));
    assert_null(f.picks[1].seen_ids);
    stop(&f);
}

/* What a replay has been sent is part of its prompt: it goes on at the same position, knowing the same tokens. */
static void a_replay_goes_on_as_if_uninterrupted(void **state)
{
    (void)state;
    enum { N_PROMPT = 40, N_NEW = 30 };
    forward_pick whole[N_NEW];
    for (int32_t n_sent = 0; n_sent < N_NEW; n_sent += 7) {
        fixture f;
        int32_t n = n_sent;
        start(&f);
        group_down down = ask(1, (size_t)(N_PROMPT + n_sent), N_NEW);
        down.admit.n_sent = n_sent;
        down.admit.sampling = hot;
        take(&f, down);
        for (; step(&f, (int32_t[]){9, 9, 9, 9}); n++) {
            assert_int_equal(f.n_picks, 1);
            assert_int_equal(f.picks[0].n_seen, n == n_sent ? N_PROMPT + n_sent : 0);
            if (n_sent == 0) {
                whole[n] = f.picks[0];
            }
            assert_memory_equal(&f.picks[0].how, &whole[n].how, sizeof whole[n].how);
        }
        assert_int_equal(n, N_NEW);
        assert_non_null(strstr(f.tape->text, "ended 1:1,0 "));
        stop(&f);
    }
}

/* Whatever comes, everything that was admitted ends, and all pages come back. */
static void random_traffic_ends_and_returns_every_page(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        const bool ahead = seed % 2 != 0;
        fixture f;
        uint64_t n = 0;
        int n_under_way = 0;
        start(&f);
        for (uint64_t seq = 1; seq < 60; seq++) {
            const uint64_t bits = base_random_u64(seed, 7, seq);
            group_down down = ask(seq, 1 + (size_t)(bits % 700), 1 + (int32_t)((bits >> 16) % 30));
            down.admit.start_rank = (int32_t)((bits >> 32) % 3);
            take(&f, down);
            for (uint64_t k = 0; k < bits >> 62; k++) {
                n_under_way += plan(&f);
                if (n_under_way > (ahead ? 1 : 0)) {
                    commit(&f, (int32_t[]){9, 9, 9, 9});
                    n_under_way--;
                }
            }
            if (bits >> 60 == 0) {
                say(&f, GROUP_DOWN_CANCEL, seq - 1, 0);
            }
        }
        for (; n_under_way > 0; n_under_way--) {
            commit(&f, (int32_t[]){9, 9, 9, 9});
        }
        while (step(&f, (int32_t[]){9, 9, 9, 9})) {
            assert_true(++n < 1000);
        }
        lead_report_load(f.lead, &f.io, 0);
        assert_int_equal(f.tape->free_pages[0], 20);
        assert_int_equal(f.tape->free_pages[1], 20);
        int n_admitted = 0;
        int n_ended = 0;
        for (const char *at = f.tape->text; (at = strstr(at, "admitted")) != NULL; at++) {
            n_admitted++;
        }
        for (const char *at = f.tape->text; (at = strstr(at, "ended")) != NULL; at++) {
            n_ended++;
        }
        assert_true(n_admitted > 10);
        assert_int_equal(n_admitted, n_ended);
        stop(&f);
    }
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        lead *l = NULL;
        const base_status st = lead_create(&options, 2, V, &mem, &l);
        if (st == BASE_OK) {
            assert_true(k > 0);
            lead_destroy(l);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(l);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    base_log_init("test", BASE_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_goes_from_prompt_to_its_last_token),
        cmocka_unit_test(decoding_opens_a_block_where_one_begins),
        cmocka_unit_test(end_ids_and_stop_ids_end_it_and_are_reported),
        cmocka_unit_test(a_cancelled_sequence_is_gone_before_the_next_plan),
        cmocka_unit_test(without_credit_it_waits_and_goes_on_with_more),
        cmocka_unit_test(refusals_say_whether_to_try_again),
        cmocka_unit_test(the_load_is_reported_after_changes_and_as_a_heartbeat),
        cmocka_unit_test(logprobs_come_when_asked),
        cmocka_unit_test(a_step_is_planned_before_the_one_before_has_ended),
        cmocka_unit_test(credit_counts_tokens_under_way),
        cmocka_unit_test(a_slot_is_taken_again_while_its_last_step_is_under_way),
        cmocka_unit_test(a_pick_says_how_the_request_wants_it),
        cmocka_unit_test(a_replay_goes_on_as_if_uninterrupted),
        cmocka_unit_test(random_traffic_ends_and_returns_every_page),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
