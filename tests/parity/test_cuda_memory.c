/* kernels/memory.h on a GPU, and what the op table does with pointers it does not know. */
#include "kernels/cuda/cuda_share.h"
#include "kernels/device.h"
#include "tests/support/parity.h"

#include <stdio.h>

enum { N = 1000 };

static kern_ctx *ctx;

static int set_up(void **state)
{
    (void)state;
    CHECK_STATUS(kern_ctx_create_cuda(0, &base_heap, &ctx), BASE_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kern_ctx_destroy(ctx);
    return 0;
}

static float *mirror(int32_t n)
{
    float *p = kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, (size_t)n * sizeof *p);
    assert_non_null(p);
    return p;
}

static void drop(void *p)
{
    kern_mirror(ctx)->put(kern_mirror(ctx)->ctx, p);
}

static base_status add(float *x, const float *bias)
{
    const kern_bias_args a = {.x = x, .bias = bias, .rows = 1, .cols = N, .dtype = BASE_F32};
    return kern_bias(ctx, &a);
}

static void ops_see_what_was_sent_and_the_host_what_was_fetched(void **state)
{
    (void)state;
    float *x = mirror(N);
    float *bias = mirror(N);
    for (int32_t i = 0; i < N; i++) {
        x[i] = (float)i;
        bias[i] = 0.5f;
    }
    CHECK_STATUS(kern_send(ctx, x, N * sizeof *x), BASE_OK);
    CHECK_STATUS(kern_send(ctx, bias, N / 2 * sizeof *bias), BASE_OK); /* the rest stays 0 there */
    bias[0] = 100.0f; /* after the send: nobody sees it */
    CHECK_STATUS(add(x, bias), BASE_OK);
    CHECK_STATUS(kern_fetch(ctx, x, N * sizeof *x), BASE_OK);
    for (int32_t i = 0; i < N; i++) {
        assert_true(x[i] == (float)i + (i < N / 2 ? 0.5f : 0.0f));
    }
    drop(bias);
    drop(x);
}

static void a_pointer_that_the_context_does_not_know_is_refused_by_name(void **state)
{
    (void)state;
    float *x = mirror(N);
    float heap[N] = {0};
    CHECK_STATUS(add(x, heap), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("bias: bias is not memory of this context");
    CHECK_STATUS(kern_send(ctx, heap, sizeof heap), BASE_BAD_INPUT);
    CHECK_STATUS(kern_send(ctx, x, (N + 1) * sizeof *x), BASE_BAD_INPUT); /* past its end */
    CHECK_STATUS(kern_fetch(ctx, heap, sizeof heap), BASE_BAD_INPUT);
    CHECK_STATUS(kern_bind(ctx, heap, sizeof heap), BASE_OK);
    CHECK_STATUS(add(x, heap), BASE_OK);
    kern_unbind(ctx, heap);
    CHECK_STATUS(add(x, heap), BASE_BAD_INPUT);
    CHECK_STATUS(kern_wait(ctx), BASE_OK); /* none of it has hurt the context */
    drop(x);
}

static void bound_bytes_are_copied_once_and_stay_until_the_last_unbind(void **state)
{
    (void)state;
    static float weights[2 * N];
    float *x = mirror(N);
    for (int32_t i = 0; i < 2 * N; i++) {
        weights[i] = (float)i;
    }
    CHECK_STATUS(kern_bind(ctx, weights, sizeof weights), BASE_OK);
    CHECK_STATUS(kern_bind(ctx, weights, sizeof weights), BASE_OK);
    CHECK_STATUS(kern_bind(ctx, weights + 1, sizeof *weights), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("overlap");
    kern_unbind(ctx, weights);
    kern_unbind(ctx, NULL);
    weights[N] = -1.0f;                         /* nobody looks again */
    CHECK_STATUS(add(x, weights + N), BASE_OK); /* from the middle */
    CHECK_STATUS(kern_fetch(ctx, x, N * sizeof *x), BASE_OK);
    for (int32_t i = 0; i < N; i++) {
        assert_true(x[i] == (float)(N + i));
    }
    kern_unbind(ctx, weights);
    CHECK_STATUS(add(x, weights), BASE_BAD_INPUT);
    drop(x);
}

static void many_ranges_keep_their_addresses_apart(void **state)
{
    enum { MANY = 300 };
    (void)state;
    static float *x[MANY];
    for (int32_t i = 0; i < MANY; i++) {
        x[i] = mirror(N);
        x[i][0] = (float)i;
        CHECK_STATUS(kern_send(ctx, x[i], N * sizeof **x), BASE_OK);
    }
    for (int32_t i = 0; i + 1 < MANY; i += 2) {
        CHECK_STATUS(add(x[i], x[i + 1]), BASE_OK);
    }
    for (int32_t i = 0; i + 1 < MANY; i += 2) {
        CHECK_STATUS(kern_fetch(ctx, x[i], N * sizeof **x), BASE_OK);
        assert_true(x[i][0] == (float)(2 * i + 1));
        drop(x[i + 1]);
    }
    for (int32_t i = 0; i < MANY; i += 2) {
        drop(x[i]);
    }
}

static void a_fetch_in_two_parts_has_what_was_there_when_it_began(void **state)
{
    (void)state;
    float *x = mirror(N);
    float *one = mirror(N);
    float taken[3][N];
    for (int32_t i = 0; i < N; i++) {
        x[i] = (float)i;
        one[i] = 1.0f;
    }
    CHECK_STATUS(kern_send(ctx, x, N * sizeof *x), BASE_OK);
    CHECK_STATUS(kern_send(ctx, one, N * sizeof *one), BASE_OK);
    CHECK_STATUS(kern_fetch_begin(ctx, x, N * sizeof *x, taken[0]), BASE_OK);
    for (int32_t k = 1; k < 3; k++) {
        CHECK_STATUS(add(x, one), BASE_OK);
        CHECK_STATUS(kern_fetch_begin(ctx, x, N * sizeof *x, taken[k]), BASE_OK);
        CHECK_STATUS(kern_fetch_begin(ctx, x, N * sizeof *x, taken[k]), BASE_BAD_INPUT);
        CHECK_STATUS(kern_fetch_end(ctx), BASE_OK);
    }
    CHECK_STATUS(kern_fetch_end(ctx), BASE_OK);
    CHECK_STATUS(kern_fetch_end(ctx), BASE_BAD_INPUT);
    for (int32_t k = 0; k < 3; k++) {
        for (int32_t i = 0; i < N; i++) {
            assert_true(taken[k][i] == (float)(i + k));
        }
    }
    assert_true(x[0] == 0.0f); /* the mirror's own side stays */
    drop(one);
    drop(x);
}

static void too_much_memory_is_null_and_not_the_end(void **state)
{
    (void)state;
    assert_null(kern_memory(ctx)->get(kern_memory(ctx)->ctx, (size_t)1 << 46));
    void *some = kern_memory(ctx)->get(kern_memory(ctx)->ctx, 1 << 20);
    assert_non_null(some);
    kern_memory(ctx)->put(kern_memory(ctx)->ctx, some);
    CHECK_STATUS(kern_wait(ctx), BASE_OK);
}

static void the_gpu_is_described_and_another_is_not_there(void **state)
{
    (void)state;
    kern_gpu gpu;
    kern_ctx *other = NULL;
    CHECK_STATUS(kern_gpu_describe(0, &gpu), BASE_OK);
    assert_true(gpu.name[0] != '\0' && gpu.free_bytes > 0 && gpu.free_bytes <= gpu.total_bytes);
    CHECK_STATUS(kern_gpu_describe(kern_gpu_count(), &gpu), BASE_BAD_INPUT);
    CHECK_STATUS(kern_ctx_create_cuda(-1, &base_heap, &other), BASE_BAD_INPUT);
    assert_null(other);
}

/* Recorded ops run again under the stopwatch: more of them take longer. */
static void a_stopwatch_sees_what_the_gpu_does(void **state)
{
    enum { MANY = 200 };
    (void)state;
    float *x = mirror(N);
    float *bias = mirror(N);
    double us[2] = {0.0, 0.0};
    bias[0] = 1.0f;
    CHECK_STATUS(kern_send(ctx, bias, N * sizeof *bias), BASE_OK);
    for (int32_t i = 0; i < 2; i++) {
        const kern_replay_key key = {.owner = x, .words = {i}};
        kern_stopwatch watch;
        bool done = false;
        CHECK_STATUS(kern_record_begin(ctx), BASE_OK);
        for (int32_t k = 0; k < (i == 0 ? 1 : MANY); k++) {
            CHECK_STATUS(add(x, bias), BASE_OK);
        }
        CHECK_STATUS(kern_record_end(ctx, &key, BASE_OK), BASE_OK);
        CHECK_STATUS(kern_wait(ctx), BASE_OK);
        CHECK_STATUS(kern_stopwatch_start(ctx, &watch), BASE_OK);
        CHECK_STATUS(kern_replay(ctx, &key, &done), BASE_OK);
        CHECK_STATUS(kern_stopwatch_stop(ctx, &watch, &us[i]), BASE_OK);
        assert_true(done);
    }
    CHECK_STATUS(kern_fetch(ctx, x, sizeof *x), BASE_OK);
    assert_true(x[0] == 2.0f * (MANY + 1)); /* when recorded, and again */
    assert_true(us[0] > 0.0 && us[1] > us[0]);
    drop(bias);
    drop(x);
}

/* As a transport does with windows that it has made. */
static void lent_memory_is_the_contexts_until_it_is_taken_back(void **state)
{
    (void)state;
    void *lent = NULL;
    void *found = NULL;
    float *bias = mirror(N);
    cudaStream_t stream = NULL;
    CHECK_STATUS(cuda_share_stream(ctx, &stream), BASE_OK);
    assert_non_null(stream);
    assert_int_equal(cudaMalloc(&lent, N * sizeof *bias), cudaSuccess);
    CHECK_STATUS(add(lent, bias), BASE_BAD_INPUT);
    CHECK_STATUS(cuda_share_lend(ctx, lent, N * sizeof *bias), BASE_OK);
    CHECK_STATUS(add(lent, bias), BASE_OK);
    CHECK_STATUS(cuda_share_find(ctx, "window", (float *)lent + 10, 16, &found), BASE_OK);
    assert_ptr_equal(found, (float *)lent + 10);
    CHECK_STATUS(cuda_share_find(ctx, "bias", bias, 16, &found), BASE_OK);
    assert_ptr_not_equal(found, bias);
    CHECK_STATUS(cuda_share_find(ctx, "window", lent, N * sizeof *bias + 1, &found),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("window: 4001 bytes");
    cuda_share_take_back(ctx, lent);
    CHECK_STATUS(add(lent, bias), BASE_BAD_INPUT);
    assert_int_equal(cudaFree(lent), cudaSuccess); /* it was not the context's to free */
    drop(bias);
}

static void bandwidth_is_measured_on_a_gpu_that_is_there(void **state)
{
    (void)state;
    double read_gb = 0.0;
    double copy_gb = 0.0;
    CHECK_STATUS(kern_gpu_bandwidth(0, &read_gb, &copy_gb), BASE_OK);
    assert_true(read_gb > 0.0 && copy_gb > 0.0);
    CHECK_STATUS(kern_gpu_bandwidth(kern_gpu_count(), &read_gb, &copy_gb), BASE_BAD_INPUT);
}

int main(void)
{
    if (kern_gpu_count() == 0) {
        printf("SKIP: no CUDA device\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_see_what_was_sent_and_the_host_what_was_fetched),
        cmocka_unit_test(a_pointer_that_the_context_does_not_know_is_refused_by_name),
        cmocka_unit_test(bound_bytes_are_copied_once_and_stay_until_the_last_unbind),
        cmocka_unit_test(many_ranges_keep_their_addresses_apart),
        cmocka_unit_test(a_fetch_in_two_parts_has_what_was_there_when_it_began),
        cmocka_unit_test(too_much_memory_is_null_and_not_the_end),
        cmocka_unit_test(the_gpu_is_described_and_another_is_not_there),
        cmocka_unit_test(a_stopwatch_sees_what_the_gpu_does),
        cmocka_unit_test(lent_memory_is_the_contexts_until_it_is_taken_back),
        cmocka_unit_test(bandwidth_is_measured_on_a_gpu_that_is_there),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
