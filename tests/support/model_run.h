/* tests/support/model_run.h - worker/eval/run.h with its model and context, for tests: every failure
 * fails the test. */
#ifndef TESTS_SUPPORT_MODEL_RUN_H
#define TESTS_SUPPORT_MODEL_RUN_H

#include "tests/support/test.h"
#include "worker/eval/logits.h"
#include "worker/eval/run.h"

#define MODEL_RUN_SLOTS 4

typedef struct model_run {
    model *m;
    kern_ctx *ctx;
    eval_run *run;
    kv_format *format; /* of run, like shard and f */
    kv_shard *shard;
    forward *f;
} model_run;

static inline model_run model_run_open(const char *folder, const char *policy_text, comm *ranks,
                                       int32_t max_step_tokens, int32_t max_context)
{
    model_run r = {.run = NULL};
    kv_policy policy;
    const eval_run_options options = {
        .max_step_tokens = max_step_tokens,
        .max_samples = max_step_tokens,
        .max_context = max_context + KERN_BLOCK_TOKENS,
        .n_slots = MODEL_RUN_SLOTS,
    };
    CHECK_STATUS(model_open(folder, &base_heap, &r.m), BASE_OK);
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &r.ctx), BASE_OK);
    CHECK_STATUS(eval_run_create(r.m, &policy, r.ctx, ranks, &options, &base_heap, &r.run),
                 BASE_OK);
    r.format = r.run->cache->format;
    r.shard = r.run->shard;
    r.f = r.run->forward;
    return r;
}

static inline void model_run_close(model_run *r)
{
    eval_run_destroy(r->run);
    kern_ctx_destroy(r->ctx);
    model_close(r->m);
}

static inline void model_run_step(model_run *r, kv_step_seq *seqs, int32_t n_seqs,
                                  const int32_t *ids, const int32_t *sample_rows, int32_t n_samples,
                                  float *logits_out)
{
    CHECK_STATUS(eval_run_step(r->run, seqs, n_seqs, ids, sample_rows, n_samples, logits_out),
                 BASE_OK);
}

static inline void model_run_feed(model_run *r, const int32_t *ids, int32_t n_tokens, int32_t chunk,
                                  float *logits_out)
{
    CHECK_STATUS(eval_run_feed(r->run, ids, n_tokens, chunk, logits_out), BASE_OK);
}

static inline int32_t model_run_argmax(const float *logits, int32_t n)
{
    return eval_logits_best(logits, n);
}

#endif /* TESTS_SUPPORT_MODEL_RUN_H */
