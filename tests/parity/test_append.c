#include "kernels/op_append.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define UNTOUCHED 0x1234u

enum { HKV = 2, DIM = 64, TOKENS = 5, OPENS = 2, ELEMS = HKV * 2 * KERN_BLOCK_TOKENS * DIM };

static const int32_t bits[2] = {4, 16};

typedef struct append_case {
    page_fixture fx[HKV];
    kern_head_format formats[HKV];
    float *k;
    float *v;
    uint16_t *rows[OPENS];
    uint16_t *carry;
    int64_t positions[TOKENS];
    int32_t dest[TOKENS];
    kern_open opens[OPENS];
    float query_signs[DIM];
    kern_append_args args;
} append_case;

/* Token 2 belongs to another rank; tokens 3 and 4 start the next block; open 0 carries 7 rows. */
static append_case *case_create(bool rotated)
{
    append_case *c = parity_memory(1, sizeof *c);
    static const int64_t positions[TOKENS] = {125, 126, 127, 128, 129};
    static const int32_t dest[TOKENS] = {0, 0, -1, 1, 1};
    memcpy(c->positions, positions, sizeof positions);
    memcpy(c->dest, dest, sizeof dest);
    for (int32_t h = 0; h < HKV; h++) {
        page_fixture_init(&c->fx[h], DIM, 2, bits, bits, rotated, (uint64_t)h);
        c->formats[h] = c->fx[h].format;
    }
    c->k = parity_normals(1, (int64_t)TOKENS * HKV * DIM, 1.0);
    c->v = parity_normals(2, (int64_t)TOKENS * HKV * DIM, 1.0);
    c->carry = parity_memory(ELEMS, sizeof *c->carry);
    for (int32_t i = 0; i < OPENS; i++) {
        c->rows[i] = parity_memory(ELEMS, sizeof(uint16_t));
        for (int32_t j = 0; j < ELEMS; j++) {
            c->rows[i][j] = UNTOUCHED;
            c->carry[j] = (uint16_t)(j % 30011);
        }
        c->opens[i] = (kern_open){.block = i, .rows = c->rows[i]};
    }
    c->opens[0].n_carry = 7;
    c->opens[0].carry = c->carry;
    for (int32_t d = 0; rotated && d < DIM;
         d++) { /* K's rows of head 0 stretched, its queries shrunk */
        const float by = 0.5f + 0.6f * (float)(d % 3);
        c->query_signs[d] = c->fx[0].signs[0][d] / by;
        c->fx[0].signs[0][d] *= by;
        c->formats[0].k.query_signs = c->query_signs;
    }
    c->args = (kern_append_args){.k = c->k,
                                 .v = c->v,
                                 .positions = c->positions,
                                 .dest = c->dest,
                                 .opens = c->opens,
                                 .formats = c->formats,
                                 .n_tokens = TOKENS,
                                 .n_kv_heads = HKV,
                                 .head_dim = DIM,
                                 .n_opens = OPENS};
    return c;
}

static void case_destroy(append_case *c)
{
    free(c->k);
    free(c->v);
    free(c->carry);
    free(c->rows[0]);
    free(c->rows[1]);
    free(c);
}

/* The token that lands in row `row` of open `open`, or -1. */
static int32_t token_of(const append_case *c, int32_t open, int32_t row)
{
    for (int32_t t = 0; t < TOKENS; t++) {
        if (c->dest[t] == open && c->positions[t] % KERN_BLOCK_TOKENS == row) {
            return t;
        }
    }
    return -1;
}

/* Element d of the rotated row, in fp64. */
static double rotated(const kern_side *side, const float *x, int32_t d)
{
    const kern_segment *g = &side->segments[d / (DIM / 2)];
    double y = 0.0;
    for (int32_t j = 0; j < g->n_dims; j++) {
        const int32_t both = (d - g->first_dim) & j;
        const double h = __builtin_popcount((unsigned)both) % 2 == 0 ? 1.0 : -1.0;
        y += h * (double)side->signs[g->first_dim + j] * (double)x[g->first_dim + j];
    }
    return y / sqrt((double)g->n_dims);
}

static void check_rows(bool rotate)
{
    kern_ctx *ctx = parity_ctx(2);
    append_case *c = case_create(rotate);
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_OK);
    for (int32_t i = 0; i < OPENS * ELEMS; i++) {
        const int32_t open = i / ELEMS;
        const int32_t at = i % ELEMS;
        const int32_t row = at / DIM % KERN_BLOCK_TOKENS;
        const int32_t side = at / DIM / KERN_BLOCK_TOKENS % 2;
        const int32_t head = at / DIM / KERN_BLOCK_TOKENS / 2;
        const uint16_t got = c->rows[open][at];
        const int32_t t = token_of(c, open, row);
        if (open == 0 && row < 7) {
            assert_int_equal(got, c->carry[at]);
        } else if (t < 0) {
            assert_int_equal(got, UNTOUCHED);
        } else {
            const float *x = (side == 0 ? c->k : c->v) + (t * HKV + head) * DIM;
            const kern_head_format *f = &c->formats[head];
            if (!rotate) {
                assert_int_equal(got, base_bf16_from_f32(x[at % DIM]));
                continue;
            }
            const double want = rotated(side == 0 ? &f->k : &f->v, x, at % DIM);
            /* half a step of bf16, and f32 noise */
            parity_near((double)base_f32_from_bf16(got), want, fabs(want) / 256.0 + 2e-6, "row",
                        at);
        }
    }
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

static void without_signs_rows_are_exactly_bf16(void **state)
{
    (void)state;
    check_rows(false);
}

static void with_signs_rows_are_rotated(void **state)
{
    (void)state;
    check_rows(true);
}

static void rows_already_in_place_need_no_carry(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    append_case *c = case_create(false);
    c->opens[0].carry = NULL;
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_OK);
    assert_int_equal(c->rows[0][0], UNTOUCHED);
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

/* A block that leaves its tail as rows that queries still see. */
static void a_whole_block_may_be_carried(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    append_case *c = case_create(false);
    c->opens[0].n_carry = KERN_BLOCK_TOKENS;
    c->args.n_tokens = 0;
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_OK);
    assert_memory_equal(c->rows[0], c->carry, ELEMS * sizeof *c->carry);
    for (int32_t i = 0; i < ELEMS; i++) {
        assert_int_equal(c->rows[1][i], UNTOUCHED);
    }
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

/* q, k and v that come before RoPE give what the ops one after the other give. */
static void turns_and_queries_are_rope_and_basis_bit_for_bit(void **state)
{
    enum { G = 3, HEADS = HKV * G };
    static float turns[TOKENS * DIM];
    float freq[DIM / 2];
    kern_ctx *ctx = parity_ctx(2);
    append_case *want = case_create(true);
    append_case *got = case_create(true);
    float *want_q = parity_normals(3, (int64_t)TOKENS * HEADS * DIM, 1.0);
    float *got_q = parity_normals(3, (int64_t)TOKENS * HEADS * DIM, 1.0);
    (void)state;
    for (int32_t i = 0; i < DIM / 2; i++) {
        freq[i] = 1.0f / (float)(1 + i);
    }
    const kern_turns_args turn = {want->positions, freq, turns, TOKENS, DIM};
    const kern_rope_args rope_q = {want_q, turns, TOKENS, HEADS, DIM, HEADS * DIM};
    const kern_rope_args rope_k = {want->k, turns, TOKENS, HKV, DIM, HKV * DIM};
    const kern_basis_args basis = {.x = want_q,
                                   .formats = want->formats,
                                   .n_tokens = TOKENS,
                                   .n_heads = HEADS,
                                   .n_kv_heads = HKV,
                                   .head_dim = DIM};
    CHECK_STATUS(kern_turns(ctx, &turn), BASE_OK);
    CHECK_STATUS(kern_rope(ctx, &rope_q), BASE_OK);
    CHECK_STATUS(kern_rope(ctx, &rope_k), BASE_OK);
    CHECK_STATUS(kern_append(ctx, &want->args), BASE_OK);
    CHECK_STATUS(kern_basis(ctx, &basis), BASE_OK);

    got->args.q = got_q;
    got->args.turns = turns;
    got->args.n_heads = HEADS;
    CHECK_STATUS(kern_append(ctx, &got->args), BASE_OK);
    assert_memory_equal(got_q, want_q, TOKENS * HEADS * DIM * sizeof *got_q);
    for (int32_t i = 0; i < OPENS; i++) {
        assert_memory_equal(got->rows[i], want->rows[i], ELEMS * sizeof *got->rows[i]);
    }

    kern_append_args q_alone = got->args;
    q_alone.k = NULL;
    q_alone.v = NULL;
    q_alone.positions = NULL;
    q_alone.dest = NULL;
    q_alone.opens = NULL;
    q_alone.n_opens = 0;
    q_alone.q = parity_normals(3, (int64_t)TOKENS * HEADS * DIM, 1.0);
    CHECK_STATUS(kern_append(ctx, &q_alone), BASE_OK);
    assert_memory_equal(q_alone.q, want_q, TOKENS * HEADS * DIM * sizeof *want_q);
    free(q_alone.q);
    PARITY_REFUSED(kern_append, ctx, got->args, n_heads, HEADS + 1);
    PARITY_REFUSED(kern_append, ctx, got->args, n_heads, 0);
    free(got_q);
    free(want_q);
    case_destroy(got);
    case_destroy(want);
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    append_case *c = case_create(false);
    PARITY_REFUSED(kern_append, ctx, c->args, n_tokens, -1);
    PARITY_REFUSED(kern_append, ctx, c->args, n_kv_heads, 0);
    PARITY_REFUSED(kern_append, ctx, c->args, head_dim, 96);
    PARITY_REFUSED(kern_append, ctx, c->args, head_dim, 128);
    PARITY_REFUSED(kern_append, ctx, c->args, n_opens, 1);
    c->dest[4] = -2;
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_BAD_INPUT);
    c->dest[4] = 1;
    c->positions[4] = -1;
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_BAD_INPUT);
    c->positions[4] = 129;
    c->opens[0].n_carry = 129;
    CHECK_STATUS(kern_append(ctx, &c->args), BASE_BAD_INPUT);
    for (int32_t i = 0; i < OPENS * ELEMS; i++) {
        assert_int_equal(c->rows[i / ELEMS][i % ELEMS], UNTOUCHED);
    }
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_signs_rows_are_exactly_bf16),
        cmocka_unit_test(with_signs_rows_are_rotated),
        cmocka_unit_test(rows_already_in_place_need_no_carry),
        cmocka_unit_test(a_whole_block_may_be_carried),
        cmocka_unit_test(turns_and_queries_are_rope_and_basis_bit_for_bit),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
