#include "worker/engine/plan.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

typedef struct fixture {
    comm *self;
    step_plan *plan;
} fixture;

static fixture make(int32_t max_seqs, int32_t max_tokens)
{
    fixture f = {NULL, NULL};
    CHECK_STATUS(comm_self_create(&base_heap, &f.self), BASE_OK);
    CHECK_STATUS(step_plan_create(max_seqs, max_tokens, &base_heap, &f.plan), BASE_OK);
    return f;
}

static void end(fixture *f)
{
    step_plan_destroy(f->plan);
    comm_destroy(f->self);
}

/* n_seqs sequences that share n_tokens; every field has a value of its own. */
static void fill(step_plan *p, int32_t n_seqs, int32_t n_tokens, int32_t n_pages)
{
    step_plan_reset(p, PLAN_STEP, 41);
    p->n_seqs = n_seqs;
    p->n_tokens = n_tokens;
    p->n_pages = n_pages;
    for (int32_t i = 0; i < n_seqs; i++) {
        const int32_t share = n_tokens / n_seqs;
        p->seqs[i] = (plan_seq){.position = 1000000000000 + i,
                                .slot = n_seqs - 1 - i,
                                .n_tokens = i == n_seqs - 1 ? n_tokens - share * i : share,
                                .first_token = share * i,
                                .clears = i % 2 == 0,
                                .samples = i % 3 == 0};
    }
    for (int32_t i = 0; i < n_tokens; i++) {
        p->ids[i] = i % 7 == 0 ? PLAN_LAST_TOKEN : (int32_t)base_random_u64(1, 2, (uint64_t)i) >> 8;
    }
    for (int32_t i = 0; i < n_pages; i++) {
        p->pages[i] = (plan_page){.slot = i % n_seqs, .block = 3 * i, .rank = 0, .page = 5 * i + 1};
    }
}

static void a_plan_comes_through_as_it_was_short_or_long(void **state)
{
    (void)state;
    static const int32_t sizes[][3] = {{1, 1, 0}, {8, 8, 8}, {3, 700, 9}, {16, 20000, 180}};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        fixture f = make(16, 20000);
        fixture want = make(16, 20000);
        fill(f.plan, sizes[k][0], sizes[k][1], sizes[k][2]);
        fill(want.plan, sizes[k][0], sizes[k][1], sizes[k][2]);
        CHECK_STATUS(step_plan_broadcast(f.plan, f.self, 1000), BASE_OK);
        const step_plan *p = f.plan;
        assert_int_equal(p->kind, PLAN_STEP);
        assert_int_equal(p->step, 41);
        for (int32_t i = 0; i < sizes[k][0]; i++) {
            assert_int_equal(p->seqs[i].position, want.plan->seqs[i].position);
            assert_int_equal(p->seqs[i].slot, want.plan->seqs[i].slot);
            assert_int_equal(p->seqs[i].n_tokens, want.plan->seqs[i].n_tokens);
            assert_int_equal(p->seqs[i].first_token, want.plan->seqs[i].first_token);
            assert_int_equal(p->seqs[i].clears, want.plan->seqs[i].clears);
            assert_int_equal(p->seqs[i].samples, want.plan->seqs[i].samples);
        }
        assert_memory_equal(p->ids, want.plan->ids, (size_t)sizes[k][1] * sizeof(int32_t));
        assert_memory_equal(p->pages, want.plan->pages, (size_t)sizes[k][2] * sizeof(plan_page));
        end(&want);
        end(&f);
    }
}

static void heartbeats_and_stops_carry_nothing_else(void **state)
{
    (void)state;
    fixture f = make(4, 256);
    fill(f.plan, 2, 9, 1);
    step_plan_reset(f.plan, PLAN_STOP, 7);
    CHECK_STATUS(step_plan_broadcast(f.plan, f.self, 1000), BASE_OK);
    assert_int_equal(f.plan->kind, PLAN_STOP);
    assert_int_equal(f.plan->n_seqs + f.plan->n_tokens + f.plan->n_pages, 0);
    end(&f);
}

/* Breaks one thing of a good plan; the broadcast must name it. */
static void broken_plans_are_refused(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        fixture f = make(4, 256);
        step_plan *p = f.plan;
        fill(p, 2, 9, 1);
        switch (k) {
        case 0: p->kind = (plan_kind)9; break;
        case 1: p->seqs[0].slot = 4; break;
        case 2: p->seqs[1].slot = -1; break;
        case 3: p->seqs[0].position = -1; break;
        case 4: p->seqs[0].n_tokens = 0; break;
        case 5: p->seqs[1].n_tokens = 6; break;
        case 6: p->seqs[1].first_token = 3; break;
        case 7: p->n_tokens = 10; break;
        case 8: p->pages[0].rank = 1; break;
        case 9: p->pages[0].page = -1; break;
        case 10: p->pages[0].slot = 4; break;
        case 11: p->pages[0].block = -1; break;
        default:
            CHECK_STATUS(step_plan_broadcast(p, f.self, 1000), BASE_OK);
            end(&f);
            return;
        }
        CHECK_STATUS(step_plan_broadcast(p, f.self, 1000), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES("plan");
        end(&f);
    }
}

static void limits_hold_at_create(void **state)
{
    (void)state;
    step_plan *p = NULL;
    CHECK_STATUS(step_plan_create(0, 128, &base_heap, &p), BASE_BAD_INPUT);
    CHECK_STATUS(step_plan_create(PLAN_MAX_SEQS + 1, 128, &base_heap, &p), BASE_BAD_INPUT);
    CHECK_STATUS(step_plan_create(1, 0, &base_heap, &p), BASE_BAD_INPUT);
    CHECK_STATUS(step_plan_create(1, PLAN_MAX_TOKENS + 1, &base_heap, &p), BASE_BAD_INPUT);
    assert_null(p);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        step_plan *p = NULL;
        const base_status st = step_plan_create(2, 130, &mem, &p);
        if (st == BASE_OK) {
            assert_true(k > 0);
            step_plan_destroy(p);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(p);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_comes_through_as_it_was_short_or_long),
        cmocka_unit_test(heartbeats_and_stops_carry_nothing_else),
        cmocka_unit_test(broken_plans_are_refused),
        cmocka_unit_test(limits_hold_at_create),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
