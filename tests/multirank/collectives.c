#include "tests/multirank/collectives.h"

#include "kernels/comm/comm_merge.h"
#include "tests/support/test.h"

#include <stdlib.h>

enum { TIMEOUT_MS = COLLECTIVES_TIMEOUT_MS, MAX_RANKS = 64, BEHIND = 0x5a };

static const size_t sizes[] = {0, 1, 4, 4 * 1032, 7 * 1024 + 3, 1 << 20, (1 << 20) + 4};

uint8_t collectives_byte(int32_t rank, size_t i, int32_t turn)
{
    return (uint8_t)((size_t)rank * 37 + i * 7 + i / 251 + (size_t)turn * 101);
}

void collectives_fill(uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn)
{
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = collectives_byte(rank, i, turn);
    }
}

void collectives_check(const uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (bytes[i] != collectives_byte(rank, i, turn)) {
            fail_msg("byte %zu of %zu from rank %d is %d, want %d", i, n_bytes, rank, bytes[i],
                     collectives_byte(rank, i, turn));
        }
    }
}

void *collectives_get(const collectives *c, size_t n_bytes)
{
    void *mirror = kern_mirror(c->ctx)->get(kern_mirror(c->ctx)->ctx, n_bytes);
    assert_non_null(mirror);
    return mirror;
}

void collectives_put(const collectives *c, void *mirror)
{
    kern_mirror(c->ctx)->put(kern_mirror(c->ctx)->ctx, mirror);
}

/* For n_bytes, and one behind them that no call may write. */
static uint8_t *get_guarded(const collectives *c, size_t n_bytes)
{
    uint8_t *bytes = collectives_get(c, n_bytes + 1);
    memset(bytes, BEHIND, n_bytes + 1);
    CHECK_STATUS(kern_send(c->ctx, bytes, n_bytes + 1), BASE_OK);
    return bytes;
}

static void fetch_guarded(const collectives *c, uint8_t *bytes, size_t n_bytes)
{
    CHECK_STATUS(kern_fetch(c->ctx, bytes, n_bytes + 1), BASE_OK);
    assert_int_equal(bytes[n_bytes], BEHIND);
}

void all_gather_collects_every_rank_in_place_too(void **state)
{
    const collectives *c = *state;
    const int32_t rank = comm_rank(c->tensors);
    const size_t n = (size_t)comm_size(c->tensors);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t n_bytes = sizes[s];
        uint8_t *mine = get_guarded(c, n_bytes);
        uint8_t *all = get_guarded(c, n_bytes * n);
        for (int32_t in_place = 0; in_place < 2; in_place++) {
            uint8_t *from = in_place ? all + (size_t)rank * n_bytes : mine;
            collectives_fill(from, n_bytes, rank, in_place);
            CHECK_STATUS(kern_send(c->ctx, from, n_bytes), BASE_OK);
            CHECK_STATUS(comm_all_gather(c->tensors, from, all, n_bytes, TIMEOUT_MS), BASE_OK);
            fetch_guarded(c, all, n_bytes * n);
            for (size_t r = 0; r < n; r++) {
                collectives_check(all + r * n_bytes, n_bytes, (int32_t)r, in_place);
            }
        }
        collectives_put(c, all);
        collectives_put(c, mine);
    }
}

void broadcast_reaches_every_rank_from_every_root(void **state)
{
    const collectives *c = *state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t *bytes = get_guarded(c, sizes[s]);
        for (int32_t root = 0; root < comm_size(c->tensors); root++) {
            collectives_fill(bytes, sizes[s], comm_rank(c->tensors), root);
            CHECK_STATUS(kern_send(c->ctx, bytes, sizes[s]), BASE_OK);
            CHECK_STATUS(comm_broadcast(c->tensors, bytes, sizes[s], root, TIMEOUT_MS), BASE_OK);
            fetch_guarded(c, bytes, sizes[s]);
            collectives_check(bytes, sizes[s], root, root);
        }
        collectives_put(c, bytes);
    }
}

/* begins NULL: rank r gets unit r. */
static void check_all_to_all(const collectives *c, const int32_t *begins, size_t unit)
{
    const int32_t rank = comm_rank(c->tensors);
    const int32_t n = comm_size(c->tensors);
    const size_t begin = unit * (size_t)(begins == NULL ? rank : begins[rank]);
    const size_t n_own = unit * (size_t)(begins == NULL ? 1 : begins[rank + 1] - begins[rank]);
    const size_t n_sent = unit * (size_t)(begins == NULL ? n : begins[n]);
    uint8_t *send = get_guarded(c, n_sent);
    uint8_t *got = get_guarded(c, n_own * (size_t)n);
    collectives_fill(send, n_sent, rank, 3);
    CHECK_STATUS(kern_send(c->ctx, send, n_sent), BASE_OK);
    CHECK_STATUS(comm_all_to_all(c->tensors, send, got, begins, unit, TIMEOUT_MS), BASE_OK);
    fetch_guarded(c, got, n_own * (size_t)n);
    for (size_t i = 0; i < n_own * (size_t)n; i++) {
        const uint8_t want = collectives_byte((int32_t)(i / n_own), begin + i % n_own, 3);
        if (got[i] != want) {
            fail_msg("byte %zu of units of %zu is %d, want %d", i, unit, got[i], want);
        }
    }
    collectives_put(c, got);
    collectives_put(c, send);
}

/* Rank r gets r + 2 units, the first none; then each one. */
void all_to_all_brings_every_rank_its_part(void **state)
{
    const collectives *c = *state;
    int32_t begins[MAX_RANKS + 1] = {0};
    assert_true(comm_size(c->tensors) <= MAX_RANKS);
    for (int32_t r = 0; r < comm_size(c->tensors); r++) {
        begins[r + 1] = begins[r] + (r == 0 ? 0 : r + 2);
    }
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        check_all_to_all(c, begins, sizes[s]);
        check_all_to_all(c, NULL, sizes[s]);
    }
}

/* Whole numbers, which add up exactly in any order; then any, whose sum is the same on every rank. */
void sum_is_that_of_all_ranks_and_the_same_everywhere(void **state)
{
    static const int64_t counts[] = {0, 1, 3, 64, 4096, 100003, 300001};
    const collectives *c = *state;
    const int32_t n_ranks = comm_size(c->tensors);
    for (size_t s = 0; s < sizeof counts / sizeof counts[0]; s++) {
        const int64_t n = counts[s];
        const size_t n_bytes = (size_t)n * sizeof(float);
        const size_t n_written = n_bytes + (size_t)(n_ranks - 1) * sizeof(float);
        float *x = collectives_get(c, n_written + 1);
        float *room = collectives_get(c, n_written + 1);
        float *all = calloc((size_t)n_ranks, n_bytes + 1);
        assert_non_null(all);
        for (int32_t exact = 0; exact < 2; exact++) {
            for (int64_t i = 0; i < n; i++) {
                const float value = (float)((i * 7 + comm_rank(c->tensors) * 5) % 23 - 11);
                x[i] = exact ? value : value / 7.0f;
            }
            CHECK_STATUS(kern_send(c->ctx, x, n_bytes), BASE_OK);
            CHECK_STATUS(comm_sum(c->tensors, x, n, room, TIMEOUT_MS), BASE_OK);
            CHECK_STATUS(kern_fetch(c->ctx, x, n_bytes), BASE_OK);
            for (int64_t i = 0; i < n && exact; i++) {
                float want = 0.0f;
                for (int32_t r = 0; r < n_ranks; r++) {
                    want += (float)((i * 7 + r * 5) % 23 - 11);
                }
                assert_true(x[i] == want);
            }
            CHECK_STATUS(comm_all_gather(c->host, x, all, n_bytes, TIMEOUT_MS), BASE_OK);
            for (int32_t r = 0; r < n_ranks; r++) {
                assert_memory_equal(all + r * n, x, n_bytes);
            }
        }
        free(all);
        collectives_put(c, room);
        collectives_put(c, x);
    }
}

void merge_of_own_heads_is_that_of_all(void **state)
{
    enum { TOKENS = 3, HEADS = 8, DIM = 128, PARTIAL = TOKENS * HEADS * (DIM + 1) };
    const collectives *c = *state;
    const int32_t rank = comm_rank(c->tensors);
    const int32_t n = comm_size(c->tensors);
    const size_t n_bytes = PARTIAL * sizeof(float);
    int32_t begins[MAX_RANKS + 1] = {0};
    float *all = collectives_get(c, n_bytes * (size_t)n);
    float *received = collectives_get(c, n_bytes * (size_t)n);
    float *room = collectives_get(c, n_bytes);
    float *want = collectives_get(c, n_bytes);
    float *got = collectives_get(c, n_bytes);
    assert_true(n <= MAX_RANKS);
    for (int32_t r = 0; r < n; r++) {
        begins[r + 1] = HEADS * (r + 1) / n;
    }
    for (int32_t i = 0; i < PARTIAL; i++) {
        all[rank * PARTIAL + i] = (float)((i * 7 + rank * 5) % 23) * 0.26f - 2.0f;
    }
    CHECK_STATUS(kern_send(c->ctx, all + rank * PARTIAL, n_bytes), BASE_OK);
    const kern_merge_args whole = {.partials = all,
                                   .rank_stride = PARTIAL,
                                   .o = want,
                                   .n_ranks = n,
                                   .rows = TOKENS * HEADS,
                                   .head_dim = DIM};
    CHECK_STATUS(comm_merge(c->tensors, c->ctx, &whole, TIMEOUT_MS), BASE_OK);
    const int32_t own = begins[rank + 1] - begins[rank];
    const kern_deal_args deal = {.x = all + rank * PARTIAL,
                                 .y = room,
                                 .begins = begins,
                                 .n_ranks = n,
                                 .n_tokens = TOKENS,
                                 .n_heads = HEADS,
                                 .head_dim = DIM};
    const kern_merge_args merge = {.partials = received,
                                   .rank_stride = (int64_t)TOKENS * own * (DIM + 1),
                                   .o = got,
                                   .n_ranks = n,
                                   .rows = TOKENS * own,
                                   .head_dim = DIM};
    CHECK_STATUS(comm_merge_own(c->tensors, c->ctx, &deal, &merge, TIMEOUT_MS), BASE_OK);
    CHECK_STATUS(kern_fetch(c->ctx, want, n_bytes), BASE_OK);
    CHECK_STATUS(kern_fetch(c->ctx, got, n_bytes), BASE_OK);
    for (int32_t t = 0; t < TOKENS; t++) {
        assert_memory_equal(got + t * own * DIM, want + (t * HEADS + begins[rank]) * DIM,
                            (size_t)own * DIM * sizeof *got);
    }
    collectives_put(c, got);
    collectives_put(c, want);
    collectives_put(c, room);
    collectives_put(c, received);
    collectives_put(c, all);
}
