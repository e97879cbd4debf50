/* kernels/op_sample.h - logits to token ids, where the logits are.
 *
 * For each row r, of a sequence in slot s = rows[r].slot, with T = temperature:
 *   score[i]  logits[r, i]; of ids in the slot's set `seen` it is divided by `penalty` where above 0, else multiplied
 *             (Keskar et al., arXiv 1909.05858, section 4.1, as Hugging Face applies it)
 *   best      the id of the largest score; ties go to the lower id, NaN loses against every number
 * T = 0, or NaN everywhere: the token is best.  Else, by kernels/sample_rule.h, in integers after one f32 rounding,
 *   q[i]      2^27 log2(e) / T times how far score[i] lies below the best one's; equal scores: 0
 *   w[i]      2^31 * 2^(-q / 2^27), rounded down: the probability of i relative to best's
 *   kept      of the ids with w above 0, by q, then by id: the first top_k (0: all); of them the fewest that reach
 *             top_p of their sum; of them those with w >= 2^31 min_p (Nguyen et al., arXiv 2407.01082)
 *   token     the first kept id, in order of ids, at which the running sum of w passes random / 2^64 of their sum
 * The token is written to ids[s], where the next step finds it (op_embed.h), and added to `seen` if penalty is
 * not 1.
 * n_top > 0 asks for a report: natural log probabilities of the raw logits, of the token and of the n_top most likely
 * ids, descending, ties to the lower id; always finite: -FLT_MAX stands for a probability of 0.
 *
 *   logits  [n_rows, V]  f32
 *   rows    [n_rows]     a mirror, slots distinct
 *   ids     [n_slots]
 *   seen    [n_slots][(V + 63) / 64]  bit i % 64 of word i / 64; NULL if every penalty is 1
 *   reports [n_rows]     written where n_top > 0; NULL if it is 0 everywhere
 *
 * Aliasing.  None.
 * Limits.    n_rows 0..n_slots; V 1..KERN_SAMPLE_MAX_VOCAB; T >= 0; top_p > 0; penalty > 0; top_k >= 0;
 *            n_top 0..min(V, KERN_SAMPLE_MAX_TOP).
 * Numerics.  The same logits give the same token on every backend.  A probability is off by at most 4e-6 of itself and
 *            2^-31 of best's.  Log probabilities: within 1e-5 + 1e-6 |ref| of fp64.
 * Errors.    BAD_INPUT (a limit is broken, nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_SAMPLE_H
#define KERNELS_OP_SAMPLE_H

#include "base/status.h"

#include <stdint.h>

#define KERN_SAMPLE_MAX_VOCAB           (1 << 18)
#define KERN_SAMPLE_MAX_TOP             20
#define KERN_SAMPLE_SEEN_WORDS(n_vocab) (((int64_t)(n_vocab) + 63) / 64) /* of a slot's set */

struct kern_ctx;

typedef struct kern_sample_row {
    uint64_t random; /* of base_random_u64: a pure function of seed, sample and position */
    float temperature;
    float top_p; /* 1 and more: off */
    float min_p;
    float penalty;
    int32_t top_k;
    int32_t slot;
    int32_t n_top;
    int32_t unused; /* the size is a multiple of 8 */
} kern_sample_row;

typedef struct kern_sample_report {
    float logprob; /* of the token */
    int32_t top_ids[KERN_SAMPLE_MAX_TOP];
    float top_logprobs[KERN_SAMPLE_MAX_TOP];
} kern_sample_report;

typedef struct kern_sample_args {
    const float *logits;
    const kern_sample_row *rows;
    int32_t *ids;
    uint64_t *seen;
    kern_sample_report *reports;
    int32_t n_rows;
    int32_t n_vocab;
    int32_t n_slots;
} kern_sample_args;

BASE_MUST_CHECK base_status kern_sample(struct kern_ctx *ctx, const kern_sample_args *args);

#endif /* KERNELS_OP_SAMPLE_H */
