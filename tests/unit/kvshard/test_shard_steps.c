/* The shards of N ranks follow random plans.  In place of K and V, the rows hold a mark that says whose
 * they are; a page is what was in the rows when it was packed.  Then every query must find every position
 * up to its own exactly once, over all ranks: by the rule of kernels/op_attn.h. */
#include "kvshard/owner.h"
#include "kvshard/pool.h"
#include "kvshard/shard.h"

#include "base/random.h"
#include "tests/support/test.h"

#include <stdlib.h>

#define MAX_RANKS  4
#define N_LAYERS   2
#define HEAD_DIM   64
#define N_SLOTS    3
#define N_PAGES    64
#define MAX_TOKENS 1500 /* of a sequence */
#define MAX_BLOCKS ((MAX_TOKENS + 127) / 128)
#define OPEN_BYTES (2 * KERN_BLOCK_TOKENS * HEAD_DIM * sizeof(uint16_t))

typedef struct mark { /* stands at the start of a K row and of a V row */
    uint16_t seq;
    uint16_t position;
    uint16_t layer;
    uint16_t side;
} mark;

typedef struct rank {
    kv_shard *shard;
    kv_pool *pool;
    mark pages[N_LAYERS][N_PAGES][2][KERN_BLOCK_TOKENS]; /* as they were packed */
    const kv_step *step;
} rank;

typedef struct sequence {
    uint16_t id;
    int32_t n_tokens; /* in all; 0: the slot is idle */
    int32_t position;
    int32_t n_blocks; /* that have an owner */
    int32_t pages[MAX_BLOCKS];
    kv_run run;
} sequence;

typedef struct world {
    int32_t n_ranks;
    int32_t chunk; /* tokens of a step, 0: as many as are left */
    int32_t window_blocks;
    int32_t sink_blocks;
    uint64_t seed;
    uint64_t n_draws;
    rank *ranks;
    sequence seqs[N_SLOTS];
    uint16_t n_started;
} world;

static int32_t draw(world *w, int32_t low, int32_t high)
{
    const uint64_t r = base_random_u64(w->seed, 7, w->n_draws++);
    return low + (int32_t)(r % (uint64_t)(high - low + 1));
}

static void start_sequence(world *w, int32_t slot)
{
    sequence *s = &w->seqs[slot];
    *s = (sequence){.id = ++w->n_started,
                    .n_tokens = draw(w, 1, MAX_TOKENS),
                    .run = {0, draw(w, 0, w->n_ranks - 1)}};
}

static void end_sequence(world *w, int32_t slot)
{
    sequence *s = &w->seqs[slot];
    for (int32_t b = 0; b < s->n_blocks; b++) {
        kv_pool_release(w->ranks[kv_owner_of(&s->run, 1, b, w->n_ranks)].pool, s->pages[b]);
    }
    for (int32_t r = 0; r < w->n_ranks; r++) {
        kv_shard_clear_slot(w->ranks[r].shard, slot);
    }
    *s = (sequence){0};
}

/* Gives owners and pages to the blocks up to position `end`, sometimes a few more. */
static void add_blocks(world *w, int32_t slot, int32_t end)
{
    sequence *s = &w->seqs[slot];
    const int32_t most = (int32_t)kv_blocks_of_tokens(s->n_tokens);
    int32_t n_blocks = (int32_t)kv_blocks_of_tokens(end) + draw(w, 0, 2);
    n_blocks = n_blocks > most ? most : n_blocks;
    for (; s->n_blocks < n_blocks; s->n_blocks++) {
        rank *owner = &w->ranks[kv_owner_of(&s->run, 1, s->n_blocks, w->n_ranks)];
        int32_t *page = &s->pages[s->n_blocks];
        CHECK_STATUS(kv_pool_take(owner->pool, page), BASE_OK);
        CHECK_STATUS(kv_shard_add_page(owner->shard, slot, s->n_blocks, *page), BASE_OK);
    }
}

static uint16_t *row_of(uint16_t *rows, int32_t side, int64_t position)
{
    return rows + (side * KERN_BLOCK_TOKENS + position % KERN_BLOCK_TOKENS) * HEAD_DIM;
}

/* Stands for kern_append: all carries first, then the tokens. */
static void append(const world *w, rank *r, int32_t layer, const int32_t *slot_of_seq)
{
    const kv_step *step = r->step;
    for (int32_t i = 0; i < step->n_opens; i++) {
        const uint16_t *first = kv_shard_layer_opens(r->shard, 0)[i].rows;
        uint16_t *second = kv_shard_layer_opens(r->shard, 1)[i].rows;
        if (first == second) {
            memset(second, 0xff, OPEN_BYTES); /* scratch: nothing may be left from before */
        }
    }
    const kern_open *opens = kv_shard_layer_opens(r->shard, layer);
    for (int32_t i = 0; i < step->n_opens; i++) {
        for (int32_t side = 0; side < 2 && opens[i].carry != NULL; side++) {
            memcpy(opens[i].rows + side * KERN_BLOCK_TOKENS * HEAD_DIM,
                   opens[i].carry + side * KERN_BLOCK_TOKENS * HEAD_DIM,
                   (size_t)opens[i].n_carry * HEAD_DIM * sizeof(uint16_t));
        }
    }
    for (int32_t i = 0; i < step->n_seqs; i++) {
        const kern_attn_seq *seq = &step->seqs[i];
        for (int32_t t = seq->first_token; t < seq->first_token + seq->n_tokens; t++) {
            const int64_t p = step->positions[t];
            assert_int_equal(p, seq->position + t - seq->first_token);
            if (step->dest[t] < 0) {
                continue;
            }
            assert_in_range(step->dest[t], seq->first_open, seq->first_open + seq->n_opens - 1);
            assert_int_equal(opens[step->dest[t]].block, p / KERN_BLOCK_TOKENS);
            for (uint16_t side = 0; side < 2; side++) {
                const mark m = {w->seqs[slot_of_seq[i]].id, (uint16_t)p, (uint16_t)layer, side};
                memcpy(row_of(opens[step->dest[t]].rows, side, p), &m, sizeof m);
            }
        }
    }
}

/* Stands for kern_pack_pages. */
static void pack(rank *r, const kern_open *opens, int32_t layer)
{
    for (int32_t i = 0; i < r->step->n_packs; i++) {
        const kern_pack *p = &r->step->packs[i];
        for (int32_t side = 0; side < 2; side++) {
            for (int32_t t = 0; t < KERN_BLOCK_TOKENS; t++) {
                memcpy(&r->pages[layer][p->page][side][t], row_of(opens[p->open].rows, side, t),
                       sizeof(mark));
            }
        }
    }
}

static void see(const mark *m, uint16_t id, int32_t layer, int32_t side, int64_t position,
                uint8_t *n_seen)
{
    assert_int_equal(m->seq, id);
    assert_int_equal(m->layer, layer);
    assert_int_equal(m->side, side);
    assert_int_equal(m->position, position);
    n_seen[position]++;
}

/* Does a query of a block see another as bf16 rows? */
static bool as_rows(const world *w, int64_t query_block, int64_t block)
{
    return block <= query_block &&
           (query_block - block <= w->window_blocks || block < w->sink_blocks);
}

/* Stands for kern_attn of one query on one rank: counts the positions that it sees. */
static void look(const world *w, rank *r, const kern_open *opens, int32_t layer,
                 const kern_attn_seq *seq, uint16_t id, int64_t position, uint8_t *n_seen)
{
    const int64_t block = position / KERN_BLOCK_TOKENS;
    int32_t before = -1;
    for (int32_t i = seq->first_page; i < seq->first_page + seq->n_pages; i++) {
        const kern_attn_page *page = &r->step->page_list[i];
        assert_true(page->block > before);
        before = page->block;
        const bool seen = page->block < block && !as_rows(w, block, page->block);
        for (int32_t t = 0; t < KERN_BLOCK_TOKENS && seen; t++) {
            for (int32_t side = 0; side < 2; side++) {
                see(&r->pages[layer][page->page][side][t], id, layer, side,
                    (int64_t)page->block * KERN_BLOCK_TOKENS + t, n_seen);
            }
        }
    }
    for (int32_t i = seq->first_open; i < seq->first_open + seq->n_opens; i++) {
        const int64_t first = (int64_t)opens[i].block * KERN_BLOCK_TOKENS;
        const int64_t end = as_rows(w, block, opens[i].block) ? first + KERN_BLOCK_TOKENS : first;
        for (int64_t p = first; p < end && p <= position; p++) {
            for (int32_t side = 0; side < 2; side++) {
                mark m;
                memcpy(&m, row_of(opens[i].rows, side, p), sizeof m);
                see(&m, id, layer, side, p, n_seen);
            }
        }
    }
}

static void check_query(const world *w, int32_t layer, int32_t seq, int32_t slot, int64_t position)
{
    uint8_t n_seen[MAX_TOKENS + KERN_BLOCK_TOKENS] = {0};
    for (int32_t r = 0; r < w->n_ranks; r++) {
        rank *at = &w->ranks[r];
        look(w, at, kv_shard_layer_opens(at->shard, layer), layer, &at->step->seqs[seq],
             w->seqs[slot].id, position, n_seen);
    }
    for (int32_t p = 0; p < MAX_TOKENS + KERN_BLOCK_TOKENS; p++) {
        assert_int_equal(n_seen[p], p <= position ? 2 : 0); /* K and V */
    }
}

static void run_step(world *w)
{
    kv_step_seq plan[N_SLOTS];
    int32_t slots[N_SLOTS];
    int32_t n_seqs = 0;

    for (int32_t slot = 0; slot < N_SLOTS; slot++) {
        sequence *s = &w->seqs[slot];
        if (s->n_tokens != 0 && draw(w, 0, 3) > 0) {
            const int32_t left = s->n_tokens - s->position;
            const int32_t n = w->chunk == 0 || w->chunk > left ? left : w->chunk;
            add_blocks(w, slot, s->position + n);
            slots[n_seqs] = slot;
            plan[n_seqs++] = (kv_step_seq){.slot = slot, .n_tokens = n, .position = s->position};
        }
    }
    for (int32_t r = 0; r < w->n_ranks; r++) {
        CHECK_STATUS(kv_shard_begin_step(w->ranks[r].shard, plan, n_seqs, &w->ranks[r].step),
                     BASE_OK);
    }
    for (int32_t layer = 0; layer < N_LAYERS; layer++) {
        for (int32_t r = 0; r < w->n_ranks; r++) {
            rank *at = &w->ranks[r];
            append(w, at, layer, slots);
            pack(at, kv_shard_layer_opens(at->shard, layer), layer);
        }
        for (int32_t i = 0; i < n_seqs; i++) {
            const int32_t first = (int32_t)plan[i].position;
            const int32_t last = first + plan[i].n_tokens - 1;
            check_query(w, layer, i, slots[i], first);
            check_query(w, layer, i, slots[i], draw(w, first, last));
            check_query(w, layer, i, slots[i], last);
        }
    }
    for (int32_t i = 0; i < n_seqs; i++) {
        sequence *s = &w->seqs[slots[i]];
        s->position += plan[i].n_tokens;
        if (s->position == s->n_tokens || draw(w, 0, 99) == 0) { /* done, or cancelled */
            end_sequence(w, slots[i]);
        }
    }
}

static void run_world(const char *policy_text, int32_t n_ranks, int32_t chunk, uint64_t seed,
                      int32_t n_steps)
{
    kv_policy policy;
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    world w = {.n_ranks = n_ranks,
               .chunk = chunk,
               .window_blocks = policy.window / KERN_BLOCK_TOKENS,
               .sink_blocks = policy.sinks / KERN_BLOCK_TOKENS,
               .seed = seed};
    const kv_shape shape = {N_LAYERS, 1, HEAD_DIM};
    const kv_shard_options options = {.n_pages = N_PAGES,
                                      .n_slots = N_SLOTS,
                                      .max_step_tokens = N_SLOTS * MAX_TOKENS,
                                      .max_blocks_per_slot = MAX_BLOCKS};
    kv_format *format = NULL;
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    w.ranks = calloc((size_t)n_ranks, sizeof *w.ranks);
    assert_non_null(w.ranks);
    for (int32_t r = 0; r < n_ranks; r++) {
        CHECK_STATUS(kv_shard_create(format, &options, ctx, &base_heap, &w.ranks[r].shard),
                     BASE_OK);
        CHECK_STATUS(kv_pool_create(N_PAGES, &base_heap, &w.ranks[r].pool), BASE_OK);
    }
    for (int32_t i = 0; i < n_steps; i++) {
        for (int32_t slot = 0; slot < N_SLOTS; slot++) {
            if (w.seqs[slot].n_tokens == 0) {
                start_sequence(&w, slot);
            }
        }
        run_step(&w);
    }
    assert_true(w.n_started > N_SLOTS); /* slots were reused */
    for (int32_t slot = 0; slot < N_SLOTS; slot++) {
        end_sequence(&w, slot);
    }
    for (int32_t r = 0; r < n_ranks; r++) {
        assert_int_equal(kv_pool_n_free(w.ranks[r].pool), N_PAGES);
        kv_pool_destroy(w.ranks[r].pool);
        kv_shard_destroy(w.ranks[r].shard);
    }
    free(w.ranks);
    kern_ctx_destroy(ctx);
    kv_format_destroy(format);
}

static void every_position_is_seen_once_whatever_the_chunks_and_ranks(void **state)
{
    (void)state;
    static const struct {
        int32_t chunk;
        int32_t n_steps;
    } rows[] = {{1, 500}, {7, 150}, {128, 30}, {129, 30}, {512, 20}, {0, 15}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks++) {
            run_world("bf16", n_ranks, rows[i].chunk, 100 + i, rows[i].n_steps);
        }
    }
}

/* The rows of a window and of sinks are found wherever a query of any chunk looks for them. */
static void windows_and_sinks_are_seen_once_as_rows(void **state)
{
    (void)state;
    static const char *const policies[] = {"kivi:w=128", "kivi:w=384,s=128", "kivi:w=0,s=128",
                                           "kivi:w=1024"};
    static const struct {
        int32_t chunk;
        int32_t n_steps;
    } rows[] = {{1, 300}, {60, 60}, {128, 20}, {300, 15}, {0, 10}};
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++) {
            for (int32_t n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks += 1 + (int32_t)i % 2) {
                run_world(policies[i], n_ranks, rows[j].chunk, 200 + i + 7 * j, rows[j].n_steps);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_position_is_seen_once_whatever_the_chunks_and_ranks),
        cmocka_unit_test(windows_and_sinks_are_seen_once_as_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
