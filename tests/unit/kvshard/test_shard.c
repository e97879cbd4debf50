#include "kvshard/shard.h"

#include "kvshard/pool.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#define N_LAYERS 2
#define N_HEADS  2
#define HEAD_DIM 64

static const kv_shard_options small = {
    .n_pages = 40, .n_slots = 3, .max_step_tokens = 600, .max_blocks_per_slot = 10};

typedef struct fixture {
    kern_ctx *ctx;
    kv_format *format;
    kv_shard *shard;
} fixture;

static int setup(void **state)
{
    static fixture f;
    const kv_policy policy = {.kind = KV_POLICY_TQ, .k_bits = 3, .v_bits = 3};
    const kv_shape shape = {N_LAYERS, N_HEADS, HEAD_DIM};
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &f.format), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &f.ctx), BASE_OK);
    CHECK_STATUS(kv_shard_create(f.format, &small, f.ctx, &base_heap, &f.shard), BASE_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    kv_shard_destroy(f->shard);
    kern_ctx_destroy(f->ctx);
    kv_format_destroy(f->format);
    return 0;
}

static const kv_step *begin(kv_shard *shard, int32_t slot, int64_t position, int32_t n_tokens)
{
    const kv_step_seq seq = {.slot = slot, .n_tokens = n_tokens, .position = position};
    const kv_step *step = NULL;
    CHECK_STATUS(kv_shard_begin_step(shard, &seq, 1, &step), BASE_OK);
    return step;
}

/* Tails differ from layer to layer, scratch does not. */
static bool in_tail(kv_shard *shard, int32_t open)
{
    const uint16_t *first = kv_shard_layer_opens(shard, 0)[open].rows;
    const uint16_t *second = kv_shard_layer_opens(shard, 1)[open].rows;
    return first != second;
}

/* A sequence of whose blocks 0..5 this rank owns all but 2, step after step. */
static void rows_live_where_the_next_step_finds_them(void **state)
{
    const fixture *f = *state;
    static const int32_t owned[] = {0, 1, 3, 4, 5};
    static const struct {
        int64_t position;
        int32_t n_tokens;
        int32_t n_pages; /* of the sequence, full at the end of the step */
        int32_t n_opens;
        struct {
            int32_t block;
            bool tail;
            int32_t n_carry;
            int32_t page; /* packed into, or -1 */
        } opens[3];
    } rows[] = {
        {0, 100, 0, 1, {{0, true, 0, -1}}},    /* opens block 0 */
        {100, 27, 0, 1, {{0, true, 0, -1}}},   /* goes on in place */
        {127, 1, 1, 1, {{0, true, 0, 20}}},    /* fills it in place */
        {128, 5, 1, 1, {{1, true, 0, -1}}},    /* opens block 1 */
        {133, 128, 2, 1, {{1, false, 5, 21}}}, /* fills it, ends in 2 */
        {261, 133, 2, 1, {{3, true, 0, -1}}},  /* opens block 3 */
        {394, 374, 5, 3, {{3, false, 10, 22}, {4, false, 0, 23}, {5, true, 0, 24}}}, /* fills 3 */
    };
    for (int32_t i = 0; i < 5; i++) {
        CHECK_STATUS(kv_shard_add_page(f->shard, 1, owned[i], 20 + i), BASE_OK);
    }
    (void)begin(f->shard, 1, 0, 1);
    const uint16_t *tail = kv_shard_layer_opens(f->shard, 0)[0].rows;
    kv_shard_clear_slot(f->shard, 1);
    for (int32_t i = 0; i < 5; i++) {
        CHECK_STATUS(kv_shard_add_page(f->shard, 1, owned[i], 20 + i), BASE_OK);
    }

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const kv_step *step = begin(f->shard, 1, rows[i].position, rows[i].n_tokens);
        const kern_attn_seq *seq = &step->seqs[0];
        int32_t n_packs = 0;

        assert_int_equal(step->n_seqs, 1);
        assert_int_equal(step->n_tokens, rows[i].n_tokens);
        assert_int_equal(seq->position, rows[i].position);
        assert_int_equal(seq->first_token, 0);
        assert_int_equal(seq->n_tokens, rows[i].n_tokens);
        assert_int_equal(seq->n_pages, rows[i].n_pages);
        assert_true(seq->first_page + seq->n_pages <= step->n_page_list);
        for (int32_t j = 0; j < seq->n_pages; j++) {
            assert_int_equal(step->page_list[seq->first_page + j].block, owned[j]);
            assert_int_equal(step->page_list[seq->first_page + j].page, 20 + j);
        }
        assert_int_equal(step->n_opens, rows[i].n_opens);
        assert_int_equal(seq->first_open, 0);
        assert_int_equal(seq->n_opens, rows[i].n_opens);
        for (int32_t j = 0; j < step->n_opens; j++) {
            const kern_open *open = &kv_shard_layer_opens(f->shard, 1)[j];
            const int64_t next_layer = kern_open_elems(N_HEADS, HEAD_DIM);
            assert_int_equal(open->block, rows[i].opens[j].block);
            assert_int_equal(open->n_carry, rows[i].opens[j].n_carry);
            assert_true(open->carry == (open->n_carry > 0 ? tail + next_layer : NULL));
            assert_int_equal(open->rows == tail + next_layer, rows[i].opens[j].tail);
            assert_int_equal(in_tail(f->shard, j), rows[i].opens[j].tail);
            if (rows[i].opens[j].page >= 0) {
                assert_true(n_packs < step->n_packs);
                assert_int_equal(step->packs[n_packs].open, j);
                assert_int_equal(step->packs[n_packs].page, rows[i].opens[j].page);
                n_packs++;
            }
        }
        assert_int_equal(step->n_packs, n_packs);
        for (int32_t t = 0; t < step->n_tokens; t++) {
            const int64_t p = rows[i].position + t;
            int32_t want = -1;
            for (int32_t j = 0; j < step->n_opens; j++) {
                want = rows[i].opens[j].block == p / KERN_BLOCK_TOKENS ? j : want;
            }
            assert_int_equal(step->positions[t], p);
            assert_int_equal(step->dest[t], want);
        }
    }
}

/* Two blocks before the open one and block 0 stay in tails; this rank owns all blocks but 3. */
static void a_window_and_a_sink_stay_in_tails(void **state)
{
    fixture *f = *state;
    enum { BLOCKS = 9 };
    static const struct {
        int64_t position;
        int32_t n_tokens;
        int32_t n_opens;
        struct {
            int32_t block;
            bool tail;
            int32_t n_carry;
            bool packed;
        } opens[6];
    } rows[] = {
        {0, 128, 1, {{0, true, 0, true}}},
        {128, 257, 3, {{0, true, 0, false}, {1, true, 0, true}, {2, true, 0, true}}},
        /* block 3 is another rank's; the sink is there for good */
        {385, 127, 3, {{0, true, 0, false}, {1, true, 0, false}, {2, true, 0, false}}},
        {512, 1, 3, {{0, true, 0, false}, {2, true, 0, false}, {4, true, 0, false}}},
        /* 2 and 4 leave their tails for 5 and 7 */
        {513,
         511,
         6,
         {{0, true, 0, false},
          {2, false, 128, false},
          {4, false, 1, true},
          {5, true, 0, true},
          {6, true, 0, true},
          {7, true, 0, true}}},
        {1024,
         1,
         4,
         {{0, true, 0, false}, {6, true, 0, false}, {7, true, 0, false}, {8, true, 0, false}}},
    };
    kv_policy policy;
    kv_format *format = NULL;
    kv_shard *shard = NULL;
    const kv_shape shape = {N_LAYERS, N_HEADS, HEAD_DIM};
    uint16_t *tails[BLOCKS] = {NULL};
    CHECK_STATUS(kv_policy_parse("kivi:w=256,s=128", &policy), BASE_OK);
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
    CHECK_STATUS(kv_shard_create(format, &small, f->ctx, &base_heap, &shard), BASE_OK);
    for (int32_t b = 0; b < BLOCKS; b++) {
        if (b != 3) {
            CHECK_STATUS(kv_shard_add_page(shard, 2, b, b), BASE_OK);
        }
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const kv_step *step = begin(shard, 2, rows[i].position, rows[i].n_tokens);
        const kern_open *opens = kv_shard_layer_opens(shard, 1);
        int32_t n_packs = 0;
        assert_int_equal(step->window_blocks, 2);
        assert_int_equal(step->sink_blocks, 1);
        assert_int_equal(step->n_opens, rows[i].n_opens);
        for (int32_t j = 0; j < step->n_opens; j++) {
            const int32_t block = rows[i].opens[j].block;
            assert_int_equal(opens[j].block, block);
            assert_int_equal(opens[j].n_carry, rows[i].opens[j].n_carry);
            assert_int_equal(in_tail(shard, j), rows[i].opens[j].tail);
            opens = kv_shard_layer_opens(shard, 1);
            if (rows[i].opens[j].tail) { /* the same place in every step */
                assert_true(tails[block] == NULL || tails[block] == opens[j].rows);
                tails[block] = opens[j].rows;
            }
            assert_true(opens[j].carry == (opens[j].n_carry > 0 ? tails[block] : NULL));
            if (rows[i].opens[j].packed) {
                assert_int_equal(step->packs[n_packs].page, block);
                assert_int_equal(step->packs[n_packs++].open, j);
            }
        }
        assert_int_equal(step->n_packs, n_packs);
    }
    assert_true(tails[1] == tails[4] && tails[1] == tails[7]); /* the ring */
    assert_true(tails[2] == tails[8]);
    assert_true(tails[0] != tails[6]); /* the sink is not in it */
    kv_shard_destroy(shard);
    kv_format_destroy(format);
}

static void sequences_of_a_step_follow_each_other(void **state)
{
    fixture *f = *state;
    const kv_step_seq seqs[] = {{.slot = 2, .n_tokens = 3, .position = 0},
                                {.slot = 0, .n_tokens = 260, .position = 0},
                                {.slot = 1, .n_tokens = 1, .position = 0}};
    const kv_step *step = NULL;
    CHECK_STATUS(kv_shard_add_page(f->shard, 2, 0, 5), BASE_OK);
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 1, 6), BASE_OK);
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 2, 7), BASE_OK);
    CHECK_STATUS(kv_shard_begin_step(f->shard, seqs, 3, &step), BASE_OK);
    assert_int_equal(step->n_tokens, 264);
    assert_int_equal(step->n_opens, 3);
    static const int32_t first_token[] = {0, 3, 263};
    static const int32_t first_open[] = {0, 1, 3};
    static const int32_t n_opens[] = {1, 2, 0};
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(step->seqs[i].first_token, first_token[i]);
        assert_int_equal(step->seqs[i].first_open, first_open[i]);
        assert_int_equal(step->seqs[i].n_opens, n_opens[i]);
    }
    assert_int_equal(step->dest[0], 0);
    assert_int_equal(step->dest[3], -1);      /* block 0 of slot 0: another rank's */
    assert_int_equal(step->dest[3 + 128], 1); /* its block 1 */
    assert_int_equal(step->dest[3 + 256], 2); /* its block 2 */
    assert_int_equal(step->positions[262], 259);
    assert_int_equal(step->dest[263], -1);
    assert_int_equal(step->n_packs, 1);
    assert_int_equal(step->page_stride, f->format->page_bytes);
    assert_int_equal(step->n_pages_total, small.n_pages);
    assert_int_equal((uintptr_t)step->pages % 64, 0);

    CHECK_STATUS(kv_shard_begin_step(f->shard, NULL, 0, &step), BASE_OK); /* an idle step */
    assert_int_equal(step->n_tokens + step->n_seqs + step->n_opens + step->n_packs, 0);
}

/* Every page byte and row that a step names can be written: the sanitizers watch. */
static void the_largest_step_fits(void **state)
{
    fixture *f = *state;
    const size_t row_bytes = (size_t)kern_open_elems(N_HEADS, HEAD_DIM) * sizeof(uint16_t);
    const kv_step *step = NULL;
    kv_step_seq seqs[3];
    for (int32_t slot = 0; slot < 3; slot++) {
        for (int32_t b = 0; b < 10; b++) {
            CHECK_STATUS(kv_shard_add_page(f->shard, slot, b, slot * 10 + b), BASE_OK);
        }
        seqs[slot] = (kv_step_seq){.slot = slot, .n_tokens = 127, .position = 0};
    }
    CHECK_STATUS(kv_shard_begin_step(f->shard, seqs, 3, &step), BASE_OK);
    static const int32_t n_tokens[] = {130, 130, 340}; /* 600 in all, three opens in scratch more */
    for (int32_t slot = 0; slot < 3; slot++) {
        seqs[slot].position = 127;
        seqs[slot].n_tokens = n_tokens[slot];
    }
    CHECK_STATUS(kv_shard_begin_step(f->shard, seqs, 3, &step), BASE_OK);
    assert_int_equal(step->n_opens, 3 + 3 + 4);
    for (int32_t layer = 0; layer < N_LAYERS; layer++) {
        const kern_open *opens = kv_shard_layer_opens(f->shard, layer);
        for (int32_t i = 0; i < step->n_opens; i++) {
            memset(opens[i].rows, layer, row_bytes);
            for (int32_t j = 0; j < i; j++) {
                assert_true(opens[i].rows != opens[j].rows);
            }
        }
    }
    memset(step->pages, 1, (size_t)step->n_pages_total * (size_t)step->page_stride);
}

static void a_cleared_slot_begins_anew(void **state)
{
    fixture *f = *state;
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 0, 3), BASE_OK);
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 2, 4), BASE_OK);
    (void)begin(f->shard, 0, 0, 300);
    kv_shard_clear_slot(f->shard, 0);
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 1, 9), BASE_OK);
    const kv_step *step = begin(f->shard, 0, 0, 256);
    assert_int_equal(step->n_opens, 1);
    assert_int_equal(step->seqs[0].n_pages, 1);
    assert_int_equal(step->page_list[step->seqs[0].first_page].page, 9);
    assert_int_equal(kv_shard_layer_opens(f->shard, 0)[0].n_carry, 0);
}

static void a_broken_plan_is_refused_and_changes_nothing(void **state)
{
    const fixture *f = *state;
    static const struct {
        kv_step_seq seqs[4];
        int32_t n_seqs;
        const char *error;
    } rows[] = {
        {{{0, 1, 0}, {3, 1, 0}}, 2, "slot 3, allowed 0..2"},
        {{{0, 1, 0}, {-1, 1, 0}}, 2, "slot -1"},
        {{{1, 1, 0}, {0, 1, 0}, {1, 1, 1}}, 3, "slot 1 comes twice"},
        {{{1, 1, 1}}, 1, "slot 1: position 1, the next one is 0"},
        {{{2, 1, 0}}, 1, "slot 2: position 0, the next one is 200"},
        {{{2, 1, 199}}, 1, "position 199"},
        {{{2, 1, 201}}, 1, "position 201"},
        {{{0, 0, 0}}, 1, "slot 0: 0 tokens, allowed 1..1280"},
        {{{0, 1281, 0}}, 1, "slot 0: 1281 tokens"},
        {{{0, 300, 0}, {1, 301, 0}}, 2, "601 tokens, allowed 600"},
        {{{0, 1, 0}}, 4, "4 sequences, allowed 0..3"},
        {{{0, 1, 0}}, -1, "-1 sequences"},
    };
    (void)begin(f->shard, 2, 0, 200);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const kv_step *step = NULL;
        CHECK_STATUS(kv_shard_begin_step(f->shard, rows[i].seqs, rows[i].n_seqs, &step),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
        assert_null(step);
    }
    const kv_step_seq good[] = {{0, 300, 0}, {1, 299, 0}, {2, 1, 200}};
    const kv_step *step = NULL;
    CHECK_STATUS(kv_shard_begin_step(f->shard, good, 3, &step), BASE_OK);
}

static void pages_out_of_order_or_range_are_refused(void **state)
{
    const fixture *f = *state;
    static const struct {
        int32_t slot;
        int32_t block;
        int32_t page;
        const char *error;
    } rows[] = {
        {3, 5, 0, "slot 3, allowed 0..2"},
        {-1, 5, 0, "slot -1"},
        {0, 3, 0, "block 3, allowed 4..9"},
        {0, 2, 0, "block 2, allowed 4..9"},
        {0, 10, 0, "block 10, allowed 4..9"},
        {1, -1, 0, "block -1, allowed 0..9"},
        {0, 4, 40, "page 40, allowed 0..39"},
        {0, 4, -1, "page -1"},
        {2, 1, 0, "slot 2: block 1 comes late, position is 129"},
    };
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 3, 0), BASE_OK);
    (void)begin(f->shard, 2, 0, 129);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_STATUS(kv_shard_add_page(f->shard, rows[i].slot, rows[i].block, rows[i].page),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
    }
    CHECK_STATUS(kv_shard_add_page(f->shard, 0, 9, 39), BASE_OK);
    CHECK_STATUS(kv_shard_add_page(f->shard, 2, 2, 1), BASE_OK);
}

static void options_outside_the_limits_are_refused(void **state)
{
    const fixture *f = *state;
    static const struct {
        kv_shard_options options;
        const char *error;
    } rows[] = {
        {{0, 1, 1, 1}, "n_pages is 0, allowed 1..16777216"},
        {{KV_MAX_PAGES + 1, 1, 1, 1}, "n_pages is 16777217"},
        {{1, 0, 1, 1}, "n_slots is 0, allowed 1..65536"},
        {{1, 65537, 1, 1}, "n_slots is 65537"},
        {{1, 1, 0, 1}, "max_step_tokens is 0"},
        {{1, 1, (1 << 24) + 1, 1}, "max_step_tokens is 16777217"},
        {{1, 1, 1, 0}, "max_blocks_per_slot is 0"},
        {{1, 1, 1, (1 << 24) + 1}, "max_blocks_per_slot is 16777217"},
        {{1, 128, 1, 1 << 24}, "128 slots of 16777216 blocks"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_shard *shard = NULL;
        CHECK_STATUS(kv_shard_create(f->format, &rows[i].options, f->ctx, &base_heap, &shard),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
        assert_null(shard);
    }
}

static void bytes_are_what_create_allocates(void **state)
{
    fixture *f = *state;
    failing_alloc a = {.fail_at = -1};
    const base_alloc mem = {failing_get, failing_put, &a};
    kern_ctx *ctx = NULL;
    kv_shard *shard = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(1, &mem, &ctx), BASE_OK);
    a.n_bytes = 0;
    CHECK_STATUS(kv_shard_create(f->format, &small, ctx, &mem, &shard), BASE_OK);
    assert_int_equal(a.n_bytes, kv_shard_bytes(f->format, &small));
    kv_shard_destroy(shard);

    kv_format windowed = *f->format;
    windowed.window_blocks = 3;
    windowed.sink_blocks = 1;
    const int64_t tail_bytes = N_LAYERS * kern_open_elems(N_HEADS, HEAD_DIM) * 2;
    const int64_t before = a.n_bytes;
    a.n_bytes = 0;
    CHECK_STATUS(kv_shard_create(&windowed, &small, ctx, &mem, &shard), BASE_OK);
    assert_int_equal(a.n_bytes, kv_shard_bytes(&windowed, &small));
    assert_in_range(a.n_bytes - before, 4 * small.n_slots * tail_bytes,
                    4 * small.n_slots * tail_bytes + 4096); /* and what names them */
    kv_shard_destroy(shard);

    kv_format huge = *f->format;
    huge.page_bytes = INT64_MAX / 2;
    assert_int_equal(kv_shard_bytes(&huge, &small), INT64_MAX);
    shard = NULL;
    CHECK_STATUS(kv_shard_create(&huge, &small, ctx, &mem, &shard), BASE_BAD_INPUT);
    assert_null(shard);
    kern_ctx_destroy(ctx);
}

static void create_survives_every_failed_allocation(void **state)
{
    fixture *f = *state;
    for (int k = 0;; k++) {
        failing_alloc fail = {.fail_at = -1};
        const base_alloc mem = {failing_get, failing_put, &fail};
        kern_ctx *ctx = NULL; /* its memory fails too */
        kv_shard *shard = NULL;
        CHECK_STATUS(kern_ctx_create_cpu(1, &mem, &ctx), BASE_OK);
        const int n_before = fail.n_live;
        fail.n_calls = 0;
        fail.fail_at = k;
        const base_status st = kv_shard_create(f->format, &small, ctx, &mem, &shard);
        const bool done = st == BASE_OK;
        if (done) {
            assert_int_equal(k, fail.n_calls);
            assert_true(k > 0);
        } else {
            assert_int_equal(st, BASE_NO_MEMORY);
            assert_null(shard);
        }
        kv_shard_destroy(shard);
        assert_int_equal(fail.n_live, n_before);
        kern_ctx_destroy(ctx);
        assert_int_equal(fail.n_live, 0);
        if (done) {
            return;
        }
    }
}

#define WITH_SHARD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SHARD(rows_live_where_the_next_step_finds_them),
        WITH_SHARD(a_window_and_a_sink_stay_in_tails),
        WITH_SHARD(sequences_of_a_step_follow_each_other),
        WITH_SHARD(the_largest_step_fits),
        WITH_SHARD(a_cleared_slot_begins_anew),
        WITH_SHARD(a_broken_plan_is_refused_and_changes_nothing),
        WITH_SHARD(pages_out_of_order_or_range_are_refused),
        WITH_SHARD(options_outside_the_limits_are_refused),
        WITH_SHARD(bytes_are_what_create_allocates),
        WITH_SHARD(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
