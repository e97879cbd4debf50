#include "kernels/comm/comm_threads.h"

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define RANKS  4
#define ROUNDS 200

static atomic_int n_running;
static atomic_int most_running;

typedef struct rank {
    comm *c;
    int32_t n_wrong;
    base_status st;
} rank;

static void note_running(void)
{
    const int n = atomic_fetch_add(&n_running, 1) + 1;
    int most = atomic_load(&most_running);
    while (n > most && !atomic_compare_exchange_weak(&most_running, &most, n)) {
    }
    atomic_fetch_sub(&n_running, 1);
}

/* Rank r gets r + 1 units, and sums of numbers whose order counts. */
static void exchange_parts(rank *r, int32_t round)
{
    static const int32_t begins[RANKS + 1] = {0, 1, 3, 6, 10};
    const int32_t own = comm_rank(r->c);
    int32_t send[10];
    int32_t got[RANKS * RANKS];
    float x[RANKS + 2 + RANKS - 1];
    float room[RANKS + 2 + RANKS - 1];
    for (int32_t i = 0; i < 10; i++) {
        send[i] = round + own * 100 + i;
    }
    for (int32_t i = 0; i < RANKS + 2; i++) {
        x[i] = own == 1 ? 1e8f : own == 2 ? -1e8f : (float)(i + own);
    }
    if (r->st == BASE_OK) {
        r->st = comm_all_to_all(r->c, send, got, begins, sizeof send[0], 5000);
    }
    for (int32_t k = 0; k < RANKS * (own + 1) && r->st == BASE_OK; k++) {
        r->n_wrong += got[k] != round + k / (own + 1) * 100 + begins[own] + k % (own + 1);
    }
    if (r->st == BASE_OK) {
        r->st = comm_sum(r->c, x, RANKS + 2, room, 5000);
    }
    for (int32_t i = 0; i < RANKS + 2 && r->st == BASE_OK; i++) {
        r->n_wrong += x[i] != (((float)i + 1e8f) - 1e8f) + (float)(i + 3);
    }
}

static void *exchange_often(void *arg)
{
    rank *r = arg;
    comm_threads_enter(r->c);
    for (int32_t i = 0; i < ROUNDS && r->st == BASE_OK; i++) {
        int32_t all[RANKS] = {0};
        int32_t word = comm_rank(r->c) == i % RANKS ? i : -1;
        note_running();
        all[comm_rank(r->c)] = i * 10 + comm_rank(r->c);
        r->st = comm_all_gather(r->c, &all[comm_rank(r->c)], all, sizeof all[0], 5000);
        for (int32_t k = 0; k < RANKS && r->st == BASE_OK; k++) {
            r->n_wrong += all[k] != i * 10 + k;
        }
        if (r->st == BASE_OK) {
            r->st = comm_broadcast(r->c, &word, sizeof word, i % RANKS, 5000);
            r->n_wrong += word != i;
        }
        exchange_parts(r, i);
    }
    comm_threads_leave(r->c);
    return NULL;
}

static void *leave_at_once(void *arg)
{
    rank *r = arg;
    comm_threads_enter(r->c);
    comm_threads_leave(r->c);
    return NULL;
}

static void run(rank ranks[RANKS], int32_t n_turns, void *(*last)(void *))
{
    comm *comms[RANKS];
    pthread_t threads[RANKS];
    memset(ranks, 0, RANKS * sizeof *ranks);
    CHECK_STATUS(comm_threads_create(RANKS, n_turns, &base_heap, comms), BASE_OK);
    for (int32_t i = 0; i < RANKS; i++) {
        ranks[i].c = comms[i];
        assert_int_equal(comm_rank(comms[i]), i);
        assert_int_equal(comm_size(comms[i]), RANKS);
        void *(*body)(void *) = i == RANKS - 1 ? last : exchange_often;
        assert_int_equal(pthread_create(&threads[i], NULL, body, &ranks[i]), 0);
    }
    for (int32_t i = 0; i < RANKS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (int32_t i = 0; i < RANKS; i++) {
        comm_destroy(comms[i]);
    }
}

static void every_rank_gets_what_the_others_offer(void **state)
{
    (void)state;
    for (int32_t n_turns = 1; n_turns <= RANKS; n_turns++) {
        rank ranks[RANKS];
        atomic_store(&most_running, 0);
        run(ranks, n_turns, exchange_often);
        for (int32_t i = 0; i < RANKS; i++) {
            CHECK_STATUS(ranks[i].st, BASE_OK);
            assert_int_equal(ranks[i].n_wrong, 0);
        }
        assert_true(atomic_load(&most_running) <= n_turns);
    }
}

static void a_rank_that_left_is_lost_to_the_others(void **state)
{
    (void)state;
    rank ranks[RANKS];
    run(ranks, 2, leave_at_once);
    for (int32_t i = 0; i < RANKS - 1; i++) {
        assert_int_equal(ranks[i].st, BASE_PEER_LOST);
    }
}

static void a_missing_rank_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    comm *comms[2];
    int32_t all[2] = {0};
    CHECK_STATUS(comm_threads_create(2, 1, &base_heap, comms), BASE_OK);
    comm_threads_enter(comms[0]);
    CHECK_STATUS(comm_all_gather(comms[0], &all[0], all, sizeof all[0], 20), BASE_PEER_LOST);
    assert_true(comm_threads_take_waited(comms[0]) >= 20 * 1000000);
    assert_int_equal(comm_threads_take_waited(comms[0]), 0);
    comm_threads_leave(comms[0]);
    comm_destroy(comms[0]);
    comm_destroy(comms[1]);
}

static void create_survives_a_failed_allocation(void **state)
{
    (void)state;
    comm *comms[RANKS] = {NULL};
    CHECK_STATUS(comm_threads_create(0, 1, &base_heap, comms), BASE_BAD_INPUT);
    CHECK_STATUS(comm_threads_create(1, 0, &base_heap, comms), BASE_BAD_INPUT);
    for (int32_t at = 0; at < RANKS + 2; at++) {
        failing_alloc f = {.fail_at = at};
        const base_alloc mem = {failing_get, failing_put, &f};
        CHECK_STATUS(comm_threads_create(RANKS, 1, &mem, comms), BASE_NO_MEMORY);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_gets_what_the_others_offer),
        cmocka_unit_test(a_rank_that_left_is_lost_to_the_others),
        cmocka_unit_test(a_missing_rank_is_waited_for_until_the_deadline),
        cmocka_unit_test(create_survives_a_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
