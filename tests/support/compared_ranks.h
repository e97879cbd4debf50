/* tests/support/compared_ranks.h - ranks of a test that compare the logits they make together with those each makes alone, on
 * CPUs, or on GPUs, which they share where there are fewer. */
#ifndef TESTS_SUPPORT_COMPARED_RANKS_H
#define TESTS_SUPPORT_COMPARED_RANKS_H

#include "base/json.h"
#include "base/log.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/logits_distance.h"
#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"
#include "worker/eval/run.h"

#include <stdio.h>
#include <stdlib.h>

#define COMPARED_TEXT 2048
#define COMPARED_TINY "tests/golden/models/"
#define COMPARED_HEAD_DIM \
    128 /* of the demo model's, which lsa exchanges; others go by what is behind */

static struct {
    boot_world world;
    comm *host;
    comm *all; /* over ctx's memory; the host's on CPUs */
    comm *self;
    kern_ctx *ctx;
    bool on_gpu;
    int32_t text[COMPARED_TEXT];
} the;

/* Of a row of logits, relative to its size in norm.  Sums in another order differ by 1e-7 of their terms; a K or V that
 * rounds the other way to bf16 moves a row by 1e-4, and one whose code turns by more.  A GPU rounds what prefill multiplies
 * to bf16 too, so there it is those of tests/golden/test_cuda_model.c. */
static inline double compared_tolerance(bool codes)
{
    return the.on_gpu ? (codes ? 0.04 : 0.01) : (codes ? 0.02 : 0.002);
}

static inline eval_run *compared_run(const model *m, comm *ranks, const char *policy_text,
                                     const eval_run_options *options)
{
    kv_policy policy;
    eval_run *run = NULL;
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(eval_run_create(m, &policy, the.ctx, ranks, options, &base_heap, &run), BASE_OK);
    return run;
}

/* Of bf16 pages. */
static inline kv_format *compared_format(const model *m)
{
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    const kv_shape shape = {m->config.n_layers, m->config.n_kv_heads, m->config.head_dim};
    kv_format *format = NULL;
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
    return format;
}

static inline base_status compared_open(comm_way way, bool with_lsa)
{
    base_status st = BASE_OK;
    if (!the.on_gpu) {
        the.all = the.host;
        return kern_ctx_create_cpu(1, &base_heap, &the.ctx);
    }
    BASE_TRY(st, out, gpu_ranks_open(&the.world, the.host, way, &the.ctx, &the.all));
    if (with_lsa) {
        st = gpu_ranks_add_lsa(the.host, the.ctx, COMPARED_HEAD_DIM, &the.all);
    }
out:
    return st;
}

/* Opens the ranks: on CPUs, on GPUs over NCCL ("cuda"), or with the one-shot exchange in front of it ("lsa").  Not 0: what
 * main returns. */
static inline int compared_start(const char *where, comm_way way)
{
    const boot_launch launch = {NULL, NULL, NULL};
    const bool with_lsa = strcmp(where, "lsa") == 0;
    the.on_gpu = with_lsa || strcmp(where, "cuda") == 0;
    if (the.on_gpu && kern_gpu_count() == 0) {
        printf("SKIP: no CUDA device\n");
        return TEST_SKIPPED;
    }
    base_log_init("test", BASE_LOG_ERROR);
    if (boot_mpi_start(&launch, &the.world) != BASE_OK ||
        comm_mpi_create(&base_heap, &the.host) != BASE_OK ||
        comm_self_create(&base_heap, &the.self) != BASE_OK ||
        compared_open(way, with_lsa) != BASE_OK ||
        (the.world.rank > 0 && freopen("/dev/null", "w", stdout) == NULL)) {
        (void)fprintf(stderr, "%s\n", base_last_error());
        return EXIT_FAILURE;
    }
    return 0;
}

/* A group set-up of cmocka: the text. */
static inline int compared_read_text(void **state)
{
    json_t *root = NULL;
    (void)state;
    CHECK_STATUS(base_json_read("tests/golden/prompts.json", (size_t)1 << 22, &root), BASE_OK);
    const json_t *list = json_object_get(root, "text");
    assert_true(json_array_size(list) >= COMPARED_TEXT);
    for (size_t i = 0; i < COMPARED_TEXT; i++) {
        the.text[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    base_json_free(root);
    return 0;
}

static inline void compared_end(void)
{
    if (the.all != the.host) {
        comm_destroy(the.all);
    }
    kern_ctx_destroy(the.ctx);
    comm_destroy(the.self);
    comm_destroy(the.host);
    boot_mpi_end();
}

#endif /* TESTS_SUPPORT_COMPARED_RANKS_H */
