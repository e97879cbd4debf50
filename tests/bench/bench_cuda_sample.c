/* What the sampling op takes on a GPU: `bench_cuda_sample` prints microseconds a launch, by rows and kind, for
 * vocabularies of 4 096 and 151 936 ids with normal logits.  A launch is one of 50 in a graph, the median of nine replays. */
#include "base/random.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

enum { MAX_ROWS = 64, LAUNCHES = 50, REPLAYS = 9 };

typedef struct kind {
    const char *name;
    kern_sample_row row;
} kind;

static const kind kinds[] = {
    {"greedy", {.top_p = 1.0f, .penalty = 1.0f}},
    {"temperature", {.temperature = 1.0f, .top_p = 1.0f, .penalty = 1.0f}},
    {"top_k 50", {.temperature = 1.0f, .top_p = 1.0f, .penalty = 1.0f, .top_k = 50}},
    {"top_p 0.9", {.temperature = 1.0f, .top_p = 0.9f, .penalty = 1.0f}},
    {"both", {.temperature = 0.7f, .top_p = 0.95f, .penalty = 1.0f, .top_k = 40}},
    {"both, penalty", {.temperature = 0.7f, .top_p = 0.95f, .penalty = 1.1f, .top_k = 40}},
    {"greedy, 5 top", {.top_p = 1.0f, .penalty = 1.0f, .n_top = 5}},
};

static int compare(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return (x > y) - (x < y);
}

static double us_of(cudaStream_t stream, const kern_sample_args *a)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin;
    cudaEvent_t end;
    float took[REPLAYS];

    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    for (int32_t i = 0; i < LAUNCHES; i++) {
        CHECK_STATUS(kern_cuda_sample(stream, a), BASE_OK);
    }
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    assert_int_equal(cudaEventCreate(&begin), cudaSuccess);
    assert_int_equal(cudaEventCreate(&end), cudaSuccess);
    for (int32_t i = -2; i < REPLAYS; i++) {
        assert_int_equal(cudaEventRecord(begin, stream), cudaSuccess);
        assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
        assert_int_equal(cudaEventRecord(end, stream), cudaSuccess);
        assert_int_equal(cudaEventSynchronize(end), cudaSuccess);
        assert_int_equal(cudaEventElapsedTime(&took[i < 0 ? 0 : i], begin, end), cudaSuccess);
    }
    qsort(took, REPLAYS, sizeof took[0], compare);
    (void)cudaEventDestroy(begin);
    (void)cudaEventDestroy(end);
    (void)cudaGraphExecDestroy(exec);
    (void)cudaGraphDestroy(graph);
    return (double)took[REPLAYS / 2] * 1e3 / LAUNCHES;
}

static void time_kinds(int32_t n_vocab)
{
    static const int32_t n_rows[] = {1, 8, 32, 64};
    parity_device device = {.n_held = 0};
    cudaStream_t stream;
    float *logits = parity_normals(1, (int64_t)MAX_ROWS * n_vocab, 3.0);
    int32_t *zeros = parity_memory(MAX_ROWS * KERN_SAMPLE_SEEN_WORDS(n_vocab) * 2, sizeof *zeros);
    const size_t seen_bytes =
        (size_t)(MAX_ROWS * KERN_SAMPLE_SEEN_WORDS(n_vocab)) * sizeof(uint64_t);
    kern_sample_args a = {
        .logits = device_copy(&device, logits, sizeof *logits * MAX_ROWS * (size_t)n_vocab),
        .ids = device_copy(&device, zeros, sizeof(int32_t) * MAX_ROWS),
        .seen = device_copy(&device, zeros, seen_bytes),
        .reports = device_copy(&device, zeros, sizeof(kern_sample_report) * MAX_ROWS),
        .n_vocab = n_vocab,
        .n_slots = MAX_ROWS};
    assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    printf("%d ids\n%-14s", n_vocab, "rows");
    for (size_t j = 0; j < sizeof n_rows / sizeof n_rows[0]; j++) {
        printf(" %8d", n_rows[j]);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        kern_sample_row rows[MAX_ROWS];
        for (int32_t r = 0; r < MAX_ROWS; r++) {
            rows[r] = kinds[i].row;
            rows[r].slot = r;
            rows[r].random = base_random_u64(1, 0, (uint64_t)r);
        }
        a.rows = device_copy(&device, rows, sizeof rows);
        printf("\n%-14s", kinds[i].name);
        for (size_t j = 0; j < sizeof n_rows / sizeof n_rows[0]; j++) {
            a.n_rows = n_rows[j];
            printf(" %8.2f", us_of(stream, &a));
        }
    }
    printf("\n");
    (void)cudaStreamDestroy(stream);
    device_free(&device);
    free(zeros);
    free(logits);
}

static void time_vocabularies(void **state)
{
    (void)state;
    time_kinds(4096);
    time_kinds(151936);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(time_vocabularies)};
    return PARITY_CUDA_MAIN(tests);
}
