/* The one-shot exchange between ranks that are streams of one process: every word of every call is what kern_cuda_merge
 * makes of the same partials, however far the ranks drift apart.
 *
 * usage: parity.test_cuda_exchange [REPLAYS]    of each graph that is replayed for long (300) */
#include "tests/support/exchange_case.h"

#include "base/clock.h"

static int32_t n_long = 300;

typedef struct world {
    exchange_case x;
    rank ranks[MAX_RANKS];
    uint32_t *report; /* [n_ranks] */
} world;

static world *world_open(const plan *p)
{
    const cuda_exchange_shape shape = {.n_ranks = p->n_ranks,
                                       .head_dim = p->head_dim,
                                       .max_rows = MAX_ROWS,
                                       .max_words = MAX_WORDS,
                                       .max_sum = SET_STRIDE,
                                       .max_gather = MAX_GATHER};
    world *w = parity_memory(1, sizeof *w);
    char *windows[MAX_RANKS] = {NULL};

    OK(cudaHostAlloc((void **)&w->report, MAX_RANKS * sizeof *w->report, cudaHostAllocMapped));
    memset(w->report, 0, MAX_RANKS * sizeof *w->report);
    case_open(&w->x, p);
    for (int32_t r = 0; r < p->n_ranks; r++) {
        rank_open(&w->ranks[r], &w->x, r);
        OK(cudaMalloc((void **)&windows[r], (size_t)cuda_exchange_window_bytes(&shape)));
        CHECK_STATUS(cuda_exchange_clear(NULL, &shape, windows[r]), BASE_OK);
    }
    OK(cudaDeviceSynchronize());
    for (int32_t r = 0; r < p->n_ranks; r++) {
        cuda_exchange_port *port = &w->ranks[r].port;
        *port = (cuda_exchange_port){.shape = shape, .rank = r, .report = w->report + r};
        memcpy(port->windows, windows, sizeof windows);
        CHECK_STATUS(cuda_exchange_limit(w->ranks[r].stream, port, LIMIT_US), BASE_OK);
    }
    return w;
}

static void world_close(world *w)
{
    for (int32_t r = 0; r < w->x.p->n_ranks; r++) {
        OK(cudaFree(w->ranks[r].port.windows[r]));
        rank_close(&w->ranks[r]);
    }
    case_close(&w->x);
    OK(cudaFreeHost(w->report));
    free(w);
}

static void run(const plan *p)
{
    world *w = world_open(p);
    for (int32_t r = 0; r < p->n_ranks; r++) {
        record(&w->ranks[r]);
    }
    for (int32_t n = 0; n < p->n_replays; n++) {
        const bool checked = n == 0 || n == p->n_replays - 1;
        for (int32_t r = 0; r < p->n_ranks && checked; r++) {
            spoil(&w->ranks[r]);
        }
        for (int32_t i = 0; i < p->n_ranks; i++) { /* in another order each time */
            const int32_t r = (i + n) % p->n_ranks;
            OK(cudaGraphLaunch(w->ranks[r].graph, w->ranks[r].stream));
        }
        for (int32_t r = 0; r < p->n_ranks && (checked || n % 16 == 0); r++) {
            OK(cudaStreamSynchronize(w->ranks[r].stream));
        }
        for (int32_t r = 0; r < p->n_ranks && checked; r++) {
            assert_int_equal(w->report[r], 0);
            check_rank(&w->ranks[r]);
        }
    }
    world_close(w);
}

/* Rows of all ranks are under way at once, and the ranks share one GPU here. */
#define ROWS_AT_ONCE 1024

static void every_word_is_what_ops_make_of_all_ranks(void **state)
{
    (void)state;
    static const int32_t counts[] = {1, 2, 3, 4, 8};
    for (int32_t i = 0; i < 5; i++) {
        for (int32_t k = 0; k < 4; k++) {
            const int32_t n_heads = k % 2 == 0 ? 32 : 12;
            const plan p = plan_of(counts[i], k < 2 ? 128 : 64, n_heads, k % 2 == 0,
                                   ROWS_AT_ONCE / counts[i] / n_heads);
            run(&p);
        }
    }
    static const int32_t shared[][2] = {{8, 16},
                                        {4, 12}}; /* ranks that have heads of one KV head */
    for (int32_t i = 0; i < 2; i++) {
        const plan p = plan_of(shared[i][0], 128, shared[i][1], true, 8);
        run(&p);
    }
}

static void attention_is_exchanged_as_it_is_added_up(void **state)
{
    (void)state;
    static const int32_t cases[][4] = {/* ranks, head dim, heads, tokens */
                                       {2, 128, 32, 3}, {2, 64, 32, 4}, {2, 128, 12, 4},
                                       {3, 128, 12, 1}, {3, 64, 12, 2}, {4, 128, 8, 2},
                                       {4, 64, 12, 1},  {8, 128, 4, 1}, {8, 64, 8, 1}};
    for (int32_t i = 0; i < 9; i++) {
        const plan p =
            attend_plan_of(cases[i][0], cases[i][1], cases[i][2], i % 3 != 2, cases[i][3]);
        run(&p);
    }
}

static void graphs_go_on_where_the_last_replay_ended(void **state)
{
    (void)state;
    for (int32_t n_ranks = 2; n_ranks <= 4; n_ranks++) {
        plan p = plan_of(n_ranks, 128, 16, true, ROWS_AT_ONCE / n_ranks / 16);
        p.n_replays = n_long;
        run(&p);
    }
}

/* The last rank stays away: the others end in time, say who is missing, and wait no more. */
static void a_missing_rank_is_named_and_nobody_hangs(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 8; i++) {
        plan p = {.n_ranks = 3, .head_dim = 128, .n_heads = 4, .n_replays = 1};
        if (i == 0) {
            add_broadcast(&p, 2, 0);
        } else if (i >= 6) {
            add_merge(&p, i == 6 ? ATTEND : ATTEND_OWN, 4);
        } else if (i >= 3) {
            add_words(&p, i == 5 ? GATHER : SUM, i == 4 ? 600 * LINE : 1000);
        }
        for (int32_t c = 0; c < 8; c++) {
            add_merge(&p, i == 1 ? MERGE_OWN : i >= 6 ? ATTEND : MERGE, i == 1 || i >= 6 ? 4 : 40);
        }
        const int32_t looked_at = i == 0 ? 1 : 0;
        world *w = world_open(&p);
        for (int32_t r = 0; r < 2; r++) {
            record(&w->ranks[r]); /* the limit is not the graph's */
            CHECK_STATUS(cuda_exchange_limit(w->ranks[r].stream, &w->ranks[r].port, 200000),
                         BASE_OK);
            spoil(&w->ranks[r]);
        }
        for (int32_t again = 0; again < 2; again++) {
            const int64_t begun = base_now_us();
            for (int32_t r = 0; r < 2; r++) {
                OK(cudaGraphLaunch(w->ranks[r].graph, w->ranks[r].stream));
            }
            for (int32_t r = 0; r < 2; r++) {
                OK(cudaStreamSynchronize(w->ranks[r].stream));
                assert_int_equal(w->report[r], CUDA_EXCHANGE_LOST | 2u);
                float first = 0.0f;
                const float *out = w->ranks[r].out + looked_at * MAX_ROWS * 129;
                OK(cudaMemcpy(&first, out + (p.calls[looked_at].kind == GATHER ? 2005 : 5),
                              sizeof first, cudaMemcpyDeviceToHost));
                assert_int_equal(base_f32_bits(first),
                                 p.calls[looked_at].kind == SUM
                                     ? base_f32_bits(words_of(looked_at, r)[5])
                                     : 0x5a5a5a5au);
            }
            const int64_t took_ms = (base_now_us() - begun) / 1000;
            assert_in_range(took_ms, again == 0 ? 200 : 0, again == 0 ? 700 : 100);
        }
        world_close(w);
    }
}

static void other_shapes_are_refused(void **state)
{
    (void)state;
    const plan p = {.n_ranks = 1, .head_dim = 128, .n_heads = 4};
    world *w = world_open(&p);
    const cuda_exchange_port *port = &w->ranks[0].port;
    const call c = {.rows = 8};
    int32_t begins[2];
    share_heads(&p, begins);
    float *lent = device_copy(&w->x.device, exchange_sets[0], (size_t)SET_STRIDE * sizeof(float));
    kern_merge_args a = args_of(&w->x, &c, lent, lent);
    a.rows = MAX_ROWS + 1;
    CHECK_STATUS(cuda_exchange_merge(NULL, port, &a), BASE_BAD_INPUT);
    a.rows = 8;
    a.n_ranks = 2;
    CHECK_STATUS(cuda_exchange_merge(NULL, port, &a), BASE_BAD_INPUT);
    a.n_ranks = 1;
    a.partials = lent + 1;
    CHECK_STATUS(cuda_exchange_merge(NULL, port, &a), BASE_BAD_INPUT);
    kern_deal_args deal = deal_of(&p, &c, begins, lent);
    a = own_args_of(&w->x, &deal, 0, lent);
    a.rows = 6; /* no whole tokens */
    CHECK_STATUS(cuda_exchange_merge_own(NULL, port, &deal, &a), BASE_BAD_INPUT);
    a.rows = 8;
    deal.x = lent + 1;
    CHECK_STATUS(cuda_exchange_merge_own(NULL, port, &deal, &a), BASE_BAD_INPUT);
    deal.n_tokens = MAX_ROWS;
    CHECK_STATUS(cuda_exchange_merge_own(NULL, port, &deal, &a), BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_sum(NULL, port, lent, SET_STRIDE + 1), BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_sum(NULL, port, lent + 1, 4), BASE_BAD_INPUT);
    CHECK_STATUS(
        cuda_exchange_gather(NULL, port, (uint32_t *)lent, (uint32_t *)lent, MAX_GATHER + 1),
        BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_broadcast(NULL, port, (uint32_t *)lent, MAX_WORDS + 1, 0),
                 BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_broadcast(NULL, port, (uint32_t *)lent, 1, 1), BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_limit(NULL, port, 0), BASE_BAD_INPUT);
    CHECK_STATUS(cuda_exchange_limit(NULL, port, 1ll << 32), BASE_BAD_INPUT);
    world_close(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_is_what_ops_make_of_all_ranks),
        cmocka_unit_test(attention_is_exchanged_as_it_is_added_up),
        cmocka_unit_test(graphs_go_on_where_the_last_replay_ended),
        cmocka_unit_test(a_missing_rank_is_named_and_nobody_hangs),
        cmocka_unit_test(other_shapes_are_refused),
    };
    n_long = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : n_long;
    /* A rank that waits must not keep another from starting. */
    (void)setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
    (void)setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    return PARITY_CUDA_MAIN(tests);
}
