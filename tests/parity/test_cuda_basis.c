/* basis and append on the GPU: the same bits as on the CPU, for every kind of segment that can be rotated. */
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

enum { HKV = 4 };

typedef struct basis_world {
    kern_head_format formats[HKV];
    float signs[HKV][2][KERN_MAX_HEAD_DIM];
    float query_signs[HKV][KERN_MAX_HEAD_DIM];
    uint16_t order[HKV][2][KERN_MAX_HEAD_DIM];
} basis_world;

static void set_side(basis_world *w, int32_t h, int32_t s, const int32_t *dims, bool signs,
                     bool order)
{
    kern_side *side = s == 0 ? &w->formats[h].k : &w->formats[h].v;
    int32_t first = 0;
    for (; dims[side->n_segments] > 0; side->n_segments++) {
        const int32_t n = dims[side->n_segments];
        side->segments[side->n_segments] =
            (kern_segment){.kind = KERN_PLAIN, .bits = 16, .first_dim = first, .n_dims = n};
        first += n;
    }
    assert_int_equal(first, w->formats[h].head_dim);
    for (int32_t d = 0; d < first; d++) {
        const uint64_t coin =
            base_random_u64(PARITY_SEED, 900 + (uint64_t)(2 * h + s), (uint64_t)d);
        w->signs[h][s][d] = coin % 2 == 0 ? 1.0f : -1.0f;
        w->order[h][s][d] = (uint16_t)((d * 37 + 11 * h) % first); /* 37 is prime to 64 and 128 */
    }
    side->signs = signs ? w->signs[h][s] : NULL;
    side->order = order ? w->order[h][s] : NULL;
}

/* K's rows stretched, and queries shrunk as much. */
static void stretch(basis_world *w, int32_t h)
{
    for (int32_t d = 0; d < w->formats[h].head_dim; d++) {
        const float by = (float)exp(base_random_normal(PARITY_SEED, 950, (uint64_t)(h * 128 + d)));
        w->query_signs[h][d] = w->signs[h][0][d] / by;
        w->signs[h][0][d] *= by;
    }
    w->formats[h].k.query_signs = w->query_signs[h];
}

/* A rotated whole head; segments of 7, 3, 5 and 1 parts, stretched and not; an order alone; nothing at all. */
static basis_world *world_create(int32_t head_dim)
{
    static const int32_t whole_64[] = {64, 0};
    static const int32_t mixed_64[] = {40, 24, 0};
    static const int32_t parts_64[] = {8, 56, 0};
    static const int32_t whole_128[] = {128, 0};
    static const int32_t mixed_128[] = {56, 24, 40, 8, 0};
    static const int32_t parts_128[] = {16, 112, 0};
    const bool small = head_dim == 64;
    basis_world *w = parity_memory(1, sizeof *w);
    for (int32_t h = 0; h < HKV; h++) {
        w->formats[h].head_dim = head_dim;
    }
    set_side(w, 0, 0, small ? whole_64 : whole_128, true, false);
    set_side(w, 0, 1, small ? mixed_64 : mixed_128, true, true);
    set_side(w, 1, 0, small ? mixed_64 : mixed_128, true, false);
    set_side(w, 1, 1, small ? parts_64 : parts_128, true, false);
    set_side(w, 2, 0, small ? parts_64 : parts_128, true, true);
    set_side(w, 2, 1, small ? whole_64 : whole_128, false, true);
    set_side(w, 3, 0, small ? mixed_64 : mixed_128, false, true);
    set_side(w, 3, 1, small ? whole_64 : whole_128, false, false);
    stretch(w, 1);
    stretch(w, 2);
    return w;
}

static void basis_gives_the_cpu_bits_both_ways(void **state)
{
    static const int32_t tokens[] = {1, 5, 301};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (uint32_t i = 0; i < 24; i++) {
        const int32_t dim = i % 2 == 0 ? 64 : 128;
        const int32_t n_heads = HKV * 3;
        const int64_t n = (int64_t)tokens[i / 8] * n_heads * dim;
        const size_t n_bytes = (size_t)n * sizeof(float);
        basis_world *w = world_create(dim);
        parity_device device = {.n_held = 0};
        float *x = parity_normals(i, n, 1.0);
        void *dx = on_device(x, n_bytes);
        kern_basis_args a = {.x = x,
                             .formats = w->formats,
                             .n_tokens = tokens[i / 8],
                             .n_heads = n_heads,
                             .n_kv_heads = HKV,
                             .head_dim = dim,
                             .v_side = i / 2 % 2 == 1,
                             .inverse = i / 4 % 2 == 1};
        CHECK_STATUS(kern_basis(ctx, &a), BASE_OK);
        a.x = dx;
        a.formats = device_formats(&device, w->formats, HKV);
        CHECK_STATUS(kern_cuda_basis(NULL, &a), BASE_OK);
        void *got = bytes_from_device(dx, n_bytes);
        assert_memory_equal(got, x, n_bytes);
        device_free(&device);
        free(got);
        free(x);
        free(w);
    }
    kern_ctx_destroy(ctx);
}

enum { OPENS = 3, MAX_TOKENS = 200 };

typedef struct append_case {
    basis_world *w;
    float *k;
    float *v;
    int64_t positions[MAX_TOKENS];
    int32_t dest[MAX_TOKENS];
    uint16_t *memory; /* OPENS + 1 rows of a block: the opens' rows, and one carry more */
    kern_append_args args;
} append_case;

/* Positions 250 on fill block 1, block 2 belongs to another rank, block 3 begins.  Rows 0 and 1 take turns as
 * each other's source: open 0 keeps what the tail of open 1 held. */
static void case_init(append_case *c, int32_t dim, int32_t n_tokens)
{
    const int64_t elems = kern_open_elems(HKV, dim);
    c->w = world_create(dim);
    c->k = parity_normals(1, (int64_t)n_tokens * HKV * dim, 1.0);
    c->v = parity_normals(2, (int64_t)n_tokens * HKV * dim, 1.0);
    if (n_tokens > 0) {
        c->v[(HKV - 1) * dim] = base_bits_f32(0xffc12345u); /* a NaN that nothing rotates */
    }
    c->memory = parity_memory((OPENS + 1) * elems, sizeof *c->memory);
    for (int64_t i = 0; i < (OPENS + 1) * elems; i++) {
        c->memory[i] = (uint16_t)(i % 65521);
    }
    for (int32_t t = 0; t < n_tokens; t++) {
        const int32_t block = (250 + t) / KERN_BLOCK_TOKENS;
        c->positions[t] = 250 + t;
        c->dest[t] = block == 1 ? 0 : block == 2 ? -1 : 1;
    }
    c->args = (kern_append_args){.k = c->k,
                                 .v = c->v,
                                 .positions = c->positions,
                                 .dest = c->dest,
                                 .formats = c->w->formats,
                                 .n_tokens = n_tokens,
                                 .n_kv_heads = HKV,
                                 .head_dim = dim,
                                 .n_opens = OPENS};
}

/* The opens over memory, wherever it lies. */
static void opens_init(kern_open *opens, uint16_t *memory, int64_t elems)
{
    uint16_t *rows[OPENS + 1];
    for (int32_t i = 0; i <= OPENS; i++) {
        rows[i] = memory + i * elems;
    }
    opens[0] = (kern_open){.block = 1, .n_carry = 122, .rows = rows[0], .carry = rows[1]};
    opens[1] = (kern_open){.block = 3, .n_carry = 3, .rows = rows[1], .carry = rows[3]};
    opens[2] = (kern_open){.block = 9, .n_carry = 127, .rows = rows[2], .carry = rows[0]};
}

static void append_gives_the_cpu_rows(void **state)
{
    static const int32_t tokens[] = {0, 3, 64, 65, MAX_TOKENS};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 20; i++) {
        const int32_t dim = i % 2 == 0 ? 64 : 128;
        const int32_t n = tokens[i / 4];
        const bool whole = i / 2 % 2 == 1; /* queries too, and all before RoPE */
        const size_t q_bytes = (size_t)n * 3 * HKV * (size_t)dim * sizeof(float);
        const size_t turn_bytes = (size_t)n * (size_t)dim * sizeof(float);
        float *q = parity_normals(3, (int64_t)n * 3 * HKV * dim, 1.0);
        float *turns = parity_normals(4, (int64_t)n * dim, 1.0);
        const int64_t elems = kern_open_elems(HKV, dim);
        const size_t n_bytes = (size_t)((OPENS + 1) * elems) * sizeof(uint16_t);
        const size_t kv_bytes = (size_t)n * HKV * (size_t)dim * sizeof(float);
        append_case *c = parity_memory(1, sizeof *c);
        kern_open opens[OPENS];
        parity_device device = {.n_held = 0};
        case_init(c, dim, n);
        kern_append_args a = c->args;
        void *rows = on_device(c->memory, n_bytes);
        opens_init(opens, rows, elems);
        a.k = device_copy(&device, c->k, kv_bytes);
        a.v = device_copy(&device, c->v, kv_bytes);
        a.positions = device_copy(&device, c->positions, sizeof c->positions);
        a.dest = device_copy(&device, c->dest, sizeof c->dest);
        a.opens = device_copy(&device, opens, sizeof opens);
        a.formats = device_formats(&device, c->w->formats, HKV);
        void *dq = on_device(q, q_bytes);
        if (whole) {
            a.q = dq;
            a.turns = device_copy(&device, turns, turn_bytes);
            a.n_heads = 3 * HKV;
            c->args.q = q;
            c->args.turns = turns;
            c->args.n_heads = a.n_heads;
        }
        CHECK_STATUS(kern_cuda_append(NULL, &a), BASE_OK);
        void *got = bytes_from_device(rows, n_bytes);
        void *got_q = bytes_from_device(dq, q_bytes);

        opens_init(opens, c->memory, elems);
        c->args.opens = opens;
        CHECK_STATUS(kern_append(ctx, &c->args), BASE_OK);
        assert_memory_equal(got, c->memory, n_bytes);
        assert_memory_equal(got_q, q, q_bytes);
        device_free(&device);
        free(got_q);
        free(got);
        free(turns);
        free(q);
        free(c->memory);
        free(c->k);
        free(c->v);
        free(c->w);
        free(c);
    }
    kern_ctx_destroy(ctx);
}

/* Many ranks and one, which has nothing to say about a row. */
static void merge_leaves_the_basis_as_on_the_cpu(void **state)
{
    enum { TOKENS = 5, HEADS = 3 * HKV, ROWS = TOKENS * HEADS };
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const int32_t dim = i % 2 == 0 ? 64 : 128;
        const int32_t n_ranks = i / 2 == 0 ? 1 : 3;
        const int64_t stride = (int64_t)ROWS * (dim + 1);
        const size_t n_bytes = (size_t)ROWS * (size_t)dim * sizeof(float);
        basis_world *w = world_create(dim);
        parity_device device = {.n_held = 0};
        float *partials = parity_normals(i, n_ranks * stride, 1.0);
        float *want = parity_memory((int64_t)ROWS * dim, sizeof *want);
        partials[(int64_t)ROWS * dim + 7] = -INFINITY;
        kern_merge_args a = {.partials = partials,
                             .rank_stride = stride,
                             .o = want,
                             .n_ranks = n_ranks,
                             .rows = ROWS,
                             .head_dim = dim,
                             .formats = w->formats,
                             .n_heads = HEADS,
                             .n_kv_heads = HKV};
        CHECK_STATUS(kern_merge(ctx, &a), BASE_OK);
        void *out = on_device(want, n_bytes);
        assert_int_equal(cudaMemset(out, 0xff, n_bytes), cudaSuccess);
        a.partials = device_copy(&device, partials, (size_t)(n_ranks * stride) * sizeof *partials);
        a.formats = device_formats(&device, w->formats, HKV);
        a.o = out;
        CHECK_STATUS(kern_cuda_merge(NULL, &a), BASE_OK);
        float *got = from_device(out, (int64_t)ROWS * dim);
        check_close(got, want, (int64_t)ROWS * dim, 1e-5, 0.0);
        device_free(&device);
        free(got);
        free(want);
        free(partials);
        free(w);
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_leaves_the_basis_as_on_the_cpu),
        cmocka_unit_test(basis_gives_the_cpu_bits_both_ways),
        cmocka_unit_test(append_gives_the_cpu_rows),
    };
    return PARITY_CUDA_MAIN(tests);
}
