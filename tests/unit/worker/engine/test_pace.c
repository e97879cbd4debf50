#include "worker/engine/pace.h"

#include "base/random.h"
#include "tests/support/test.h"
#include "worker/engine/engine.h"
#include "worker/engine/scheduler.h"

#define CHUNK 512

/* What a made-up machine takes: reading the weights, and each token. */
typedef struct machine {
    int64_t step_us;
    int64_t token_us;
} machine;

static int64_t takes_us(const machine *m, int32_t n_tokens)
{
    return m->step_us + m->token_us * n_tokens;
}

static void the_first_step_may_take_half_a_minute(void **state)
{
    (void)state;
    const step_pace p = {.latest_us_per_token = 0.0};
    assert_int_equal(pace_deadline_ms(&p, 1), ENGINE_STEP_MS);
    assert_int_equal(pace_deadline_ms(&p, CHUNK), ENGINE_STEP_MS);
}

static void
a_deadline_is_four_times_what_is_expected_and_what_leaves_time_to_go_at_least(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, 800000, 512); /* 1.5625 ms a token */
    assert_int_equal(pace_deadline_ms(&p, 512), 3200);
    assert_int_equal(pace_deadline_ms(&p, 1024), 6400);
    assert_int_equal(pace_deadline_ms(&p, 128), 1200); /* 4 x 200 ms */
    assert_int_equal(pace_deadline_ms(&p, 1), 1200);   /* at most what a block takes */
    pace_note(&p, 900000, 3); /* a small step: what it holds does not matter */
    assert_int_equal(pace_deadline_ms(&p, 1), 3600);
    assert_int_equal(pace_deadline_ms(&p, 127), 3600);
    assert_int_equal(pace_deadline_ms(&p, 512), 3200); /* and it says nothing of large ones */
}

static void the_kind_of_step_not_seen_yet_is_expected_to_take_the_most_it_can(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, 20000, 1);
    assert_int_equal(pace_deadline_ms(&p, 256), 256 * 20 * 4);
    step_pace q = {.latest_us_per_token = 0.0};
    pace_note(&q, 2000 * 512, 512);
    assert_int_equal(pace_deadline_ms(&q, 1), ENGINE_MIN_STEP_MS);
    pace_note(&q, 8000 * 512, 512);
    assert_int_equal(pace_deadline_ms(&q, 1), 4 * 8 * 128);
}

/* 4 ranks that share steps from 256 tokens on, which cost 0.5 ms a token, and others 1.6. */
static void steps_that_ranks_share_say_nothing_of_others_but_the_most_they_can_take(void **state)
{
    (void)state;
    step_pace p = {.shared_from = 256, .n_ranks = 4};
    pace_note(&p, 500 * 2048, 2048);
    assert_int_equal(pace_deadline_ms(&p, 4096), 4 * 2048);
    assert_int_equal(pace_deadline_ms(&p, 255), 4 * 255 * 2); /* one rank does all four's work */
    assert_int_equal(pace_deadline_ms(&p, 128), 1200);        /* 4 x 256 ms */
    pace_note(&p, 1600 * 200, 200);
    assert_int_equal(pace_deadline_ms(&p, 255), 4 * 408);
    assert_int_equal(pace_deadline_ms(&p, 4096), 4 * 2048);
    step_pace q = {.shared_from = 256, .n_ranks = 4};
    pace_note(&q, 1600 * 200, 200);
    assert_int_equal(pace_deadline_ms(&q, 1000), 4 * 1600); /* at most what others take */
}

/* The end of a prompt, which is not shared, does not make the next one go in parts that are too small to be. */
static void chunks_are_shared_where_what_ranks_share_fits(void **state)
{
    (void)state;
    step_pace p = {.shared_from = 256, .n_ranks = 4};
    pace_note(&p, 900 * 512, 512);
    pace_note(&p, 500 * 512, 512); /* 500 fit */
    assert_int_equal(pace_chunk(&p, 0, 250, 4096), 384);
    pace_note(&p, 1600 * 200, 200); /* 156 fit */
    assert_int_equal(pace_chunk(&p, 0, 250, 4096), 384);
    for (int i = 0; i < 10; i++) {
        pace_note(&p, 1100 * 512, 512); /* 227 fit, which are not shared */
    }
    assert_int_equal(pace_chunk(&p, 0, 250, 4096), 128);
}

/* 16 ranks, 0.5 ms a token, of shared steps a 16th.  Two that took a second, once, must not be the last ones. */
static void shared_steps_that_were_slow_are_tried_again(void **state)
{
    (void)state;
    step_pace p = {.shared_from = 1024, .n_ranks = 16};
    int32_t n_steps = 0;
    pace_note(&p, 1000000, 1024);
    pace_note(&p, 1000000, 1024);
    assert_int_equal(pace_chunk(&p, 0, 250, 8192), 256);
    for (int32_t chunk = 256; chunk < 1024 && n_steps < 1000; n_steps++) {
        pace_note(&p, 500 * chunk, chunk);
        chunk = pace_chunk(&p, 0, 250, 8192);
        assert_true(chunk <= 384 || chunk == 1024);
        assert_true(pace_deadline_ms(&p, chunk) >= 4 * 1024 / 2 || chunk < 1024);
    }
    assert_int_equal(n_steps, PACE_TRY_AGAIN);
    pace_note(&p, 1024 * 500 / 16, 1024);
    assert_in_range(pace_chunk(&p, 0, 250, 8192), 7936, 8064);
    assert_int_equal(pace_chunk(&p, 0, 250, 512), 512); /* too few for a shared one */
}

/* Where they are too long still, one in so many is. */
static void shared_steps_that_stay_slow_are_rare(void **state)
{
    (void)state;
    step_pace p = {.shared_from = 256, .n_ranks = 4};
    int32_t n_shared = 0;
    for (int32_t i = 0; i < 1000; i++) {
        const int32_t chunk = pace_chunk(&p, 0, 250, 2048);
        n_shared += chunk >= 256;
        pace_note(&p, chunk >= 256 ? 700000 : 140000, chunk);
    }
    assert_in_range(n_shared, 1000 / (PACE_TRY_AGAIN + 1), 1000 / PACE_TRY_AGAIN + 3);
}

static void patience_rises_at_once_and_falls_slowly(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, 1000000, 500);
    pace_note(&p, 2000000, 500);
    assert_int_equal(pace_deadline_ms(&p, 500), 8000);
    pace_note(&p, 1000000, 500);
    assert_int_equal(pace_deadline_ms(&p, 500), 7600);
    for (int i = 0; i < 100; i++) {
        pace_note(&p, 1000000, 500);
    }
    assert_in_range(pace_deadline_ms(&p, 500), 4000, 4010);
}

static void the_first_step_of_a_kind_is_forgotten_when_the_second_is_known(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, 3000000, 4);
    assert_int_equal(pace_deadline_ms(&p, 4), 12000);
    pace_note(&p, 5120000, 512);
    assert_int_equal(pace_deadline_ms(&p, 4), 12000);
    assert_int_equal(pace_deadline_ms(&p, 512), 20480);
    pace_note(&p, 10000, 4);
    pace_note(&p, 512000, 512);
    assert_int_equal(pace_deadline_ms(&p, 4), ENGINE_MIN_STEP_MS);
    assert_int_equal(pace_deadline_ms(&p, 512), 2048);
}

/* Gone in time, and no false alarm: a step that was to take the goal may take four times as long. */
static void the_parts_of_the_promise_add_up(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, (int64_t)ENGINE_STEP_GOAL_MS * 1000, 1);
    assert_true(pace_deadline_ms(&p, 1) + ENGINE_ABORT_MS + ENGINE_END_MS <= ENGINE_GONE_MS);
    assert_true(pace_deadline_ms(&p, 1) >= 4 * ENGINE_STEP_GOAL_MS);
    assert_true(pace_wait_ms(ENGINE_MIN_STEP_MS) + ENGINE_STEP_GOAL_MS < ENGINE_MIN_STEP_MS);
    assert_int_equal(pace_wait_ms(4000), 3000);
    assert_true(ENGINE_PLAN_MS - ENGINE_HEARTBEAT_MS >= 4 * ENGINE_STEP_GOAL_MS);
}

static void chunks_are_whole_blocks_within_the_goal_and_the_limit(void **state)
{
    (void)state;
    static const struct {
        double us_per_token;
        int32_t n_decoding;
        int64_t goal_ms;
        int32_t want;
    } rows[] = {
        {0.0, 0, 250, CHUNK},     /* nothing is known */
        {1000.0, 0, 0, CHUNK},    /* no goal */
        {100.0, 0, 250, CHUNK},   /* 2500 fit */
        {488.0, 0, 250, CHUNK},   /* 512.3 fit */
        {489.0, 0, 250, 384},     /* 511.2 fit */
        {488.0, 1, 250, 384},     /* 511.3 beside one that decodes */
        {900.0, 0, 250, 256},     /* 277 */
        {900.0, 30, 250, 128},    /* 247 */
        {1900.0, 0, 250, 128},    /* 131 */
        {5000.0, 0, 250, 128},    /* 50: a block at least, so that prompts move */
        {5000.0, 1000, 250, 128}, /* less than none */
        {1e12, 0, 1, 128},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const step_pace p = {.latest_us_per_token = rows[i].us_per_token};
        assert_int_equal(pace_chunk(&p, rows[i].n_decoding, rows[i].goal_ms, CHUNK), rows[i].want);
    }
}

static void the_first_step_and_small_ones_say_nothing_about_sizes(void **state)
{
    (void)state;
    step_pace p = {.latest_us_per_token = 0.0};
    pace_note(&p, 30000000, 512); /* reads the weights */
    assert_int_equal(pace_chunk(&p, 0, 250, CHUNK), CHUNK);
    pace_note(&p, 50000, 1); /* 50 ms a token, but it decodes */
    assert_int_equal(pace_chunk(&p, 0, 250, CHUNK), CHUNK);
    pace_note(&p, 400000, 512); /* 781 us a token: 320 fit */
    assert_int_equal(pace_chunk(&p, 0, 250, CHUNK), 256);
}

/* On machines of many speeds: after eight steps every step takes the goal at most (within a hundredth of what
 * older steps still say), or holds one block; none is much smaller than it need be; and the prompt ends. */
static void a_long_prompt_goes_in_steps_of_about_the_goal(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        const machine m = {(int64_t)(base_random_u64(seed, 0, 0) % 100000),
                           1 + (int64_t)(base_random_u64(seed, 0, 1) % 3000)};
        const int32_t n_decoding = (int32_t)(base_random_u64(seed, 0, 2) % 4);
        sched_seq seqs[5];
        sched_pick picks[5];
        step_pace p = {.latest_us_per_token = 0.0};
        int32_t n_steps = 0;
        for (int32_t i = 0; i < n_decoding; i++) {
            seqs[i] = (sched_seq){100, 100, true};
        }
        seqs[n_decoding] = (sched_seq){0, 20000, true};
        const sched_seq *s = &seqs[n_decoding];
        while (s->position < s->n_prompt) {
            const int32_t chunk = pace_chunk(&p, n_decoding, ENGINE_STEP_GOAL_MS, 4096);
            const int32_t n = scheduler_choose(seqs, n_decoding + 1, chunk, picks);
            int32_t n_tokens = 0;
            assert_true(chunk % 128 == 0 && chunk >= 128 && chunk <= 4096);
            for (int32_t k = 0; k < n; k++) {
                n_tokens += picks[k].n_tokens;
                seqs[picks[k].seq].position += picks[k].n_tokens;
            }
            const int64_t us = takes_us(&m, n_tokens);
            if (n_steps >= 8 && chunk > 128) {
                assert_true(us <= (int64_t)ENGINE_STEP_GOAL_MS * 1010);
            }
            if (n_steps >= 12 && chunk < 4096 && s->position < s->n_prompt) {
                assert_true(takes_us(&m, n_tokens + 128) * 11 / 10 >
                            (int64_t)ENGINE_STEP_GOAL_MS * 1000);
            }
            assert_true(pace_deadline_ms(&p, n_tokens) * 1000 >= us || n_steps == 0);
            pace_note(&p, us, n_tokens);
            assert_true(++n_steps < 200);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_step_may_take_half_a_minute),
        cmocka_unit_test(
            a_deadline_is_four_times_what_is_expected_and_what_leaves_time_to_go_at_least),
        cmocka_unit_test(the_kind_of_step_not_seen_yet_is_expected_to_take_the_most_it_can),
        cmocka_unit_test(steps_that_ranks_share_say_nothing_of_others_but_the_most_they_can_take),
        cmocka_unit_test(chunks_are_shared_where_what_ranks_share_fits),
        cmocka_unit_test(shared_steps_that_were_slow_are_tried_again),
        cmocka_unit_test(shared_steps_that_stay_slow_are_rare),
        cmocka_unit_test(patience_rises_at_once_and_falls_slowly),
        cmocka_unit_test(the_first_step_of_a_kind_is_forgotten_when_the_second_is_known),
        cmocka_unit_test(the_parts_of_the_promise_add_up),
        cmocka_unit_test(chunks_are_whole_blocks_within_the_goal_and_the_limit),
        cmocka_unit_test(the_first_step_and_small_ones_say_nothing_about_sizes),
        cmocka_unit_test(a_long_prompt_goes_in_steps_of_about_the_goal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
