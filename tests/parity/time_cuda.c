/* Times the CUDA ops but attention and the page writer, which `ropewalk bench` times, on the shapes of Qwen2.5-3B and
 * Llama-3.1-8B: `time_cuda` prints a table, one line a case.
 *
 * A case is a graph of many launches whose operands walk through 1 GiB, so that nothing stays in L2; the time is
 * the median of its replays over the number of launches.  GB/s counts every operand's bytes once. */
#include "kernels/cuda/cuda_gemm.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

#define ARENA   (1ll << 30)
#define REPLAYS 7

typedef struct timer {
    cudaStream_t stream;
    uint8_t *arena; /* [ARENA], random bf16 and f32 near 1 */
    int64_t at;
    cuda_gemm *gemm;
} timer;

/* The next n_bytes of the arena. */
static void *next(timer *t, int64_t n_bytes)
{
    n_bytes = (n_bytes + 255) / 256 * 256;
    assert_true(n_bytes <= ARENA);
    if (t->at + n_bytes > ARENA) {
        t->at = 0;
    }
    void *p = t->arena + t->at;
    t->at += n_bytes;
    return p;
}

typedef struct timed_case {
    const char *what;
    int32_t a, b, c; /* m, n, k; or tokens, heads, head_dim */
    void (*launch)(timer *t, const struct timed_case *c);
    int64_t n_bytes;
    double n_flops;
} timed_case;

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds_of(timer *t, const timed_case *c, int32_t n_launches)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin;
    cudaEvent_t end;
    double took[REPLAYS];

    c->launch(t, c);
    assert_int_equal(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal),
                     cudaSuccess);
    for (int32_t i = 0; i < n_launches; i++) {
        c->launch(t, c);
    }
    assert_int_equal(cudaStreamEndCapture(t->stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    assert_int_equal(cudaEventCreate(&begin), cudaSuccess);
    assert_int_equal(cudaEventCreate(&end), cudaSuccess);
    for (int32_t i = -2; i < REPLAYS; i++) {
        float ms = 0.0f;
        assert_int_equal(cudaEventRecord(begin, t->stream), cudaSuccess);
        assert_int_equal(cudaGraphLaunch(exec, t->stream), cudaSuccess);
        assert_int_equal(cudaEventRecord(end, t->stream), cudaSuccess);
        assert_int_equal(cudaEventSynchronize(end), cudaSuccess);
        assert_int_equal(cudaEventElapsedTime(&ms, begin, end), cudaSuccess);
        took[i < 0 ? 0 : i] = (double)ms * 1e-3 / n_launches;
    }
    qsort(took, REPLAYS, sizeof took[0], compare);
    (void)cudaEventDestroy(begin);
    (void)cudaEventDestroy(end);
    (void)cudaGraphExecDestroy(exec);
    (void)cudaGraphDestroy(graph);
    return took[REPLAYS / 2];
}

static void print_case(timer *t, const timed_case *c)
{
    int64_t n = c->n_bytes > 0 ? (ARENA / 2) / c->n_bytes : 1;
    n = n < 4 ? 4 : n > 400 ? 400 : n;
    if (c->n_flops > 1e11) {
        n = 4;
    }
    const double s = seconds_of(t, c, (int32_t)n);
    printf("%-14s %6d %6d %6d %9.2f us %8.0f GB/s %7.1f TFLOP/s\n", c->what, c->a, c->b, c->c,
           s * 1e6, (double)c->n_bytes / s * 1e-9, c->n_flops / s * 1e-12);
    (void)fflush(stdout);
}

static void launch_copy(timer *t, const timed_case *c)
{
    void *from = next(t, c->a);
    assert_int_equal(
        cudaMemcpyAsync(next(t, c->a), from, (size_t)c->a, cudaMemcpyDeviceToDevice, t->stream),
        cudaSuccess);
}

static kern_gemm_args product(timer *t, const timed_case *c)
{
    return (kern_gemm_args){.x = next(t, (int64_t)c->a * c->c * 4),
                            .w = next(t, (int64_t)c->b * c->c * 2),
                            .y = next(t, (int64_t)c->a * c->b * 4),
                            .m = c->a,
                            .n = c->b,
                            .k = c->c,
                            .x_stride = c->c,
                            .y_stride = c->b,
                            .dtype = BASE_BF16};
}

static void launch_gemv(timer *t, const timed_case *c)
{
    const kern_gemm_args a = product(t, c);
    CHECK_STATUS(cuda_gemv(t->stream, &a), BASE_OK);
}

static void launch_gemm(timer *t, const timed_case *c)
{
    const kern_gemm_args a = product(t, c);
    CHECK_STATUS(kern_cuda_gemm(t->gemm, t->stream, &a), BASE_OK);
}

static void launch_project(timer *t, const timed_case *c)
{
    const int32_t kv = c->b / 10 > 0 ? c->b / 10 / 8 * 8 : 8; /* of 3B; near it for others */
    const int32_t n[3] = {c->b - 2 * kv, kv, kv};
    kern_project_args a = {.x = next(t, (int64_t)c->a * c->c * 4),
                           .norm = next(t, (int64_t)c->c * 2),
                           .n_parts = 3,
                           .m = c->a,
                           .k = c->c,
                           .eps = 1e-6f,
                           .norm_dtype = BASE_BF16};
    a.h = next(t, (int64_t)c->a * c->c * 4);
    for (int32_t i = 0; i < 3; i++) {
        a.parts[i] = (kern_project_part){.w = next(t, (int64_t)n[i] * c->c * 2),
                                         .bias = next(t, (int64_t)n[i] * 2),
                                         .y = next(t, (int64_t)c->a * n[i] * 4),
                                         .n = n[i],
                                         .dtype = BASE_BF16,
                                         .bias_dtype = BASE_BF16};
    }
    cuda_linear linear;
    assert_true(cuda_linear_project(&a, &linear));
    CHECK_STATUS(cuda_linear_run(t->stream, &linear), BASE_OK);
}

static void launch_gated(timer *t, const timed_case *c)
{
    const kern_gated_args a = {.x = next(t, (int64_t)c->a * c->c * 4),
                               .norm = next(t, (int64_t)c->c * 2),
                               .h = next(t, (int64_t)c->a * c->c * 4),
                               .gate = next(t, (int64_t)c->b * c->c),
                               .up = next(t, (int64_t)c->b * c->c),
                               .room = next(t, (int64_t)c->a * c->b * 2),
                               .y = next(t, (int64_t)c->a * c->b * 2),
                               .m = c->a,
                               .f = c->b / 2,
                               .k = c->c,
                               .eps = 1e-6f,
                               .norm_dtype = BASE_BF16,
                               .gate_dtype = BASE_BF16,
                               .up_dtype = BASE_BF16};
    cuda_linear linear;
    assert_true(cuda_linear_gated(&a, &linear));
    CHECK_STATUS(cuda_linear_run(t->stream, &linear), BASE_OK);
}

static void launch_blas(timer *t, const timed_case *c)
{
    const kern_gemm_args a = product(t, c);
    CHECK_STATUS(cuda_gemm_blas(t->gemm, t->stream, &a), BASE_OK);
}

static void time_products(timer *t)
{
    static const int32_t weights[][2] = {
        {256, 2048},    {2560, 2048}, {2048, 2048}, {22016, 2048}, {11008, 2048}, {2048, 11008},
        {151936, 2048}, {1024, 4096}, {4096, 4096}, {14336, 4096}, {4096, 14336}, {128256, 4096}};
    static const int32_t rows[] = {1, 2, 4, 6, 8, 16, 2048};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
            const int64_t m = rows[r];
            const int64_t n = weights[i][0];
            const int64_t k = weights[i][1];
            if (n > 100000 && m > 8) {
                continue;
            }
            timed_case c = {"gemv",
                            rows[r],
                            weights[i][0],
                            weights[i][1],
                            launch_gemv,
                            n * k * 2 + m * (n + k) * 4,
                            2.0 * (double)(m * n * k)};
            if (m <= CUDA_GEMV_ROWS) {
                print_case(t, &c);
            }
            if (m <= CUDA_LINEAR_ROWS) {
                c.what = "linear";
                c.launch = launch_gemm;
                print_case(t, &c);
            }
            c.what = "cuBLASLt";
            c.launch = launch_blas;
            print_case(t, &c);
        }
    }
}

typedef struct world { /* what the row ops point to, in device memory */
    kern_head_format *formats;
    int64_t *positions;
    int32_t *dest;
    int32_t *ids;
    float *turns;
    kern_open *opens;
} world;

static world w;

static void launch_embed(timer *t, const timed_case *c)
{
    const int32_t width = c->b * c->c;
    const kern_embed_args a = {.ids = w.ids,
                               .table = t->arena,
                               .y = next(t, (int64_t)c->a * width * 4),
                               .n_tokens = c->a,
                               .n_vocab = 8192,
                               .width = width,
                               .dtype = BASE_BF16};
    CHECK_STATUS(kern_cuda_embed(t->stream, &a), BASE_OK);
}

static void launch_bias(timer *t, const timed_case *c)
{
    const int32_t width = c->b * c->c;
    const kern_bias_args a = {next(t, (int64_t)c->a * width * 4), t->arena, c->a, width, BASE_BF16};
    CHECK_STATUS(kern_cuda_bias(t->stream, &a), BASE_OK);
}

static void launch_rope(timer *t, const timed_case *c)
{
    const int32_t width = c->b * c->c;
    const kern_rope_args a = {next(t, (int64_t)c->a * width * 4), w.turns, c->a, c->b, c->c, width};
    CHECK_STATUS(kern_cuda_rope(t->stream, &a), BASE_OK);
}

static void launch_basis(timer *t, const timed_case *c)
{
    const kern_basis_args a = {.x = next(t, (int64_t)c->a * c->b * c->c * 4),
                               .formats = w.formats,
                               .n_tokens = c->a,
                               .n_heads = c->b,
                               .n_kv_heads = 2,
                               .head_dim = c->c};
    CHECK_STATUS(kern_cuda_basis(t->stream, &a), BASE_OK);
}

static void launch_append(timer *t, const timed_case *c)
{
    const kern_append_args a = {.k = next(t, (int64_t)c->a * c->b * c->c * 4),
                                .v = next(t, (int64_t)c->a * c->b * c->c * 4),
                                .positions = w.positions,
                                .dest = w.dest,
                                .opens = w.opens,
                                .formats = w.formats,
                                .n_tokens = c->a,
                                .n_kv_heads = c->b,
                                .head_dim = c->c,
                                .n_opens = c->a > 128 ? c->a / 128 : 1};
    CHECK_STATUS(kern_cuda_append(t->stream, &a), BASE_OK);
}

/* The same with queries, and RoPE before. */
static void launch_enter(timer *t, const timed_case *c)
{
    const kern_append_args a = {.q = next(t, (int64_t)c->a * 16 * c->c * 4),
                                .k = next(t, (int64_t)c->a * c->b * c->c * 4),
                                .v = next(t, (int64_t)c->a * c->b * c->c * 4),
                                .turns = w.turns,
                                .positions = w.positions,
                                .dest = w.dest,
                                .opens = w.opens,
                                .formats = w.formats,
                                .n_tokens = c->a,
                                .n_heads = 16,
                                .n_kv_heads = c->b,
                                .head_dim = c->c,
                                .n_opens = c->a > 128 ? c->a / 128 : 1};
    CHECK_STATUS(kern_cuda_append(t->stream, &a), BASE_OK);
}

static void launch_merge(timer *t, const timed_case *c)
{
    const int32_t rows = c->a * c->b;
    const kern_merge_args a = {.partials = next(t, (int64_t)rows * (c->c + 1) * 4),
                               .rank_stride = (int64_t)rows * (c->c + 1),
                               .o = next(t, (int64_t)rows * c->c * 4),
                               .n_ranks = 1,
                               .rows = rows,
                               .head_dim = c->c,
                               .formats = w.formats,
                               .n_heads = c->b,
                               .n_kv_heads = 2};
    CHECK_STATUS(kern_cuda_merge(t->stream, &a), BASE_OK);
}

static void launch_rmsnorm(timer *t, const timed_case *c)
{
    const int32_t width = c->b * c->c;
    const kern_rmsnorm_args a = {next(t, (int64_t)c->a * width * 4),
                                 t->arena,
                                 next(t, (int64_t)c->a * width * 4),
                                 c->a,
                                 width,
                                 1e-6f,
                                 BASE_BF16};
    CHECK_STATUS(kern_cuda_rmsnorm(t->stream, &a), BASE_OK);
}

enum { TOKENS = 2048, HKV = 8, DIM = 128 };

/* A rotated head of one segment, as tq has it, for K and V. */
static void world_init(timer *t, parity_device *device)
{
    static float signs[DIM];
    static float turns[TOKENS * DIM];
    static int64_t positions[TOKENS];
    static int32_t dest[TOKENS];
    static int32_t ids[TOKENS];
    kern_open opens[TOKENS / 128];
    kern_head_format formats[HKV] = {0};
    for (int32_t d = 0; d < DIM; d++) {
        signs[d] = d % 3 == 0 ? -1.0f : 1.0f;
    }
    for (int32_t i = 0; i < TOKENS; i++) {
        positions[i] = 500000 + i - 500000 % 128;
        dest[i] = i / 128;
        ids[i] = i * 37 % 8192;
    }
    for (int32_t h = 0; h < HKV; h++) {
        formats[h].head_dim = DIM;
        formats[h].k =
            (kern_side){.n_segments = 1, .segments = {{.bits = 16, .n_dims = DIM}}, .signs = signs};
        formats[h].v = formats[h].k;
    }
    for (int32_t i = 0; i < TOKENS / 128; i++) {
        opens[i] = (kern_open){.block = i, .rows = next(t, kern_open_elems(HKV, DIM) * 2)};
    }
    w = (world){.formats = device_formats(device, formats, HKV),
                .positions = device_copy(device, positions, sizeof positions),
                .dest = device_copy(device, dest, sizeof dest),
                .ids = device_copy(device, ids, sizeof ids),
                .turns = device_copy(device, turns, sizeof turns),
                .opens = device_copy(device, opens, sizeof opens)};
}

/* q, k and v, and the gated half of the MLP, as a layer of 3B and one of 8B has them: the rows of one launch. */
static void time_fused(timer *t)
{
    static const int32_t shapes[][3] = {{2560, 22016, 2048}, {6144, 28672, 4096}};
    static const int32_t rows[] = {1, 4, 8};
    for (size_t i = 0; i < 6; i++) {
        const int32_t m = rows[i % 3];
        const int32_t *s = shapes[i / 3];
        const timed_case cases[] = {
            {"project", m, s[0], s[2], launch_project, (int64_t)s[0] * s[2] * 2, 0.0},
            {"gated", m, s[1], s[2], launch_gated, (int64_t)s[1] * s[2] * 2, 0.0},
        };
        print_case(t, &cases[0]);
        print_case(t, &cases[1]);
    }
}

static void time_rows(timer *t)
{
    static const int32_t tokens[] = {1, 8, TOKENS};
    for (size_t i = 0; i < 3; i++) {
        const int32_t n = tokens[i];
        const int64_t hidden = (int64_t)n * 32 * DIM;
        const timed_case cases[] = {
            {"embed", n, 32, DIM, launch_embed, hidden * 6, 0.0},
            {"bias", n, 32, DIM, launch_bias, hidden * 8, 0.0},
            {"rmsnorm", n, 32, DIM, launch_rmsnorm, hidden * 8, 0.0},
            {"rope q", n, 32, DIM, launch_rope, hidden * 8, 0.0},
            {"rope k", n, HKV, DIM, launch_rope, hidden * 2, 0.0},
            {"basis q", n, 16, DIM, launch_basis, hidden * 4, 0.0},
            {"append", n, HKV, DIM, launch_append, hidden * 3, 0.0},
            {"append, q", n, 2, DIM, launch_enter, hidden * 5, 0.0},
            {"merge", n, 16, DIM, launch_merge, hidden * 4, 0.0},
        };
        for (size_t j = 0; j < sizeof cases / sizeof cases[0]; j++) {
            print_case(t, &cases[j]);
        }
    }
}

/* bf16 and f32 near 1 alike: no NaN whichever way a kernel reads it. */
static void arena_fill(timer *t)
{
    const size_t n = (size_t)1 << 24;
    uint16_t *host = parity_memory((int64_t)n, sizeof *host);
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = base_random_u64(PARITY_SEED, 1, i);
        host[i] = (uint16_t)(0x3f00u | (r & 0x80ffu));
    }
    for (int64_t at = 0; at < ARENA; at += (int64_t)n * 2) {
        assert_int_equal(cudaMemcpy(t->arena + at, host, n * 2, cudaMemcpyHostToDevice),
                         cudaSuccess);
    }
    free(host);
}

static void time_everything(void **state)
{
    struct cudaDeviceProp device;
    parity_device held = {.n_held = 0};
    timer t = {.at = 0};
    (void)state;
    assert_int_equal(cudaGetDeviceProperties(&device, 0), cudaSuccess);
    printf("%s\n%-14s %6s %6s %6s\n", device.name, "op", "rows", "n", "k");
    assert_int_equal(cudaStreamCreateWithFlags(&t.stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&t.arena, ARENA), cudaSuccess);
    arena_fill(&t);
    CHECK_STATUS(cuda_gemm_create(&base_heap, &t.gemm), BASE_OK);
    world_init(&t, &held);
    const timed_case copy = {"copy", 256 << 20, 0, 0, launch_copy, 512 << 20, 0.0};
    print_case(&t, &copy);
    time_rows(&t);
    time_fused(&t);
    time_products(&t);
    cuda_gemm_destroy(t.gemm);
    device_free(&held);
    (void)cudaFree(t.arena);
    (void)cudaStreamDestroy(t.stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_everything)};
    return PARITY_CUDA_MAIN(tests);
}
