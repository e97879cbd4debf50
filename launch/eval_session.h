/* launch/eval_session.h - what `ropewalk eval` measures: joins the tokenizer with the measures of worker/eval.
 *
 * One process, one rank.  Runs of one policy at a time, but for the text, which all policies read side by side. */
#ifndef LAUNCH_EVAL_SESSION_H
#define LAUNCH_EVAL_SESSION_H

#include "base/status.h"
#include "coordinator/text/tokenizer.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "kvshard/policy.h"
#include "worker/eval/attn_error.h"
#include "worker/eval/teacher.h"
#include "worker/model/model.h"

#include <stdbool.h>
#include <stdint.h>

#define EVAL_MAX_POLICIES 64
#define EVAL_MAX_LENGTHS  16
#define EVAL_MAX_DEPTHS   101
#define EVAL_MAX_TEXT     ((size_t)1 << 30)

typedef struct eval_options {
    const char *model;
    const char *text;     /* NULL: none */
    const char *haystack; /* NULL: text, else MODEL/haystack.txt */
    const char *task;     /* NULL: none */
    kv_policy policies[EVAL_MAX_POLICIES];
    char policy_texts[EVAL_MAX_POLICIES][KV_MAX_POLICY_TEXT]; /* as given: calib=FILE is in there */
    int32_t n_policies;
    int64_t max_tokens; /* of the text; 0: all */
    int32_t window;
    bool logits;
    int32_t lengths[EVAL_MAX_LENGTHS];
    int32_t n_lengths;
    int32_t n_depths;
    int32_t n_trials; /* prompts of one length and depth */
    int32_t n_keys;
    uint64_t seed;
    int32_t n_threads;
    kern_device device;
} eval_options;

typedef struct eval_result { /* of one policy */
    char policy[KV_MAX_POLICY_TEXT];
    double bytes_per_token; /* in whole pages: codes, norms, padding */
    double k_bits, v_bits;  /* per element, the same */
    double *layer_k_bits;   /* [L] */
    eval_teacher_result teacher;
    eval_attn_mae *layers; /* [L]; NULL without logits */
    int32_t right[EVAL_MAX_LENGTHS][EVAL_MAX_DEPTHS];
    double task_score; /* mean of 0..1 */
} eval_result;

typedef struct eval_session {
    eval_options options;
    model *model;
    text_tokenizer *tokenizer;
    kern_ctx *ctx;
    kern_ctx *host; /* a CPU context, ctx or another: measures of attention errors compute there */
    comm *ranks;
    eval_result *results;                            /* [n_policies] */
    kv_calibration *calibrations[EVAL_MAX_POLICIES]; /* NULL where a policy needs none */
    int64_t text_tokens;                             /* read of the text, and their bytes */
    int64_t text_bytes;
    int32_t n_items; /* of the task */
    bool terminal;   /* progress on stderr */
} eval_session;

/* Opens the model and describes the policies.  Errors: BAD_INPUT, NOT_FOUND, IO, BAD_FILE, NO_MEMORY. */
BASE_MUST_CHECK base_status eval_session_open(const eval_options *options, eval_session *s);
void eval_session_close(eval_session *s); /* a zeroed struct is allowed */

/* The parts; each fills its fields of results.  Errors: as open, and those of the measures. */
BASE_MUST_CHECK base_status eval_session_text(eval_session *s);
BASE_MUST_CHECK base_status eval_session_needle(eval_session *s);
BASE_MUST_CHECK base_status eval_session_task(eval_session *s);

/* Depth 0..1 of row i. */
double eval_session_depth(const eval_options *options, int32_t i);

#endif /* LAUNCH_EVAL_SESSION_H */
