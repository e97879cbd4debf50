/* worker/engine/sampler.h - logits to a token id.
 *
 * Order: repetition penalty over the tokens of prompt and output (Keskar et al., arXiv 1909.05858,
 * section 4.1, as Hugging Face applies it), then greedy if temperature is 0, else temperature, top-k, top-p,
 * min-p (Nguyen et al., arXiv 2407.01082: relative to the most likely token) and one draw.
 * The draw is a pure function of (seed, sample index, position): replay gives the same token.
 * Ties go to the lower id.  NaN logits lose against every number. */
#ifndef WORKER_ENGINE_SAMPLER_H
#define WORKER_ENGINE_SAMPLER_H

#include "base/alloc.h"
#include "base/status.h"
#include "proto/inference_codec.h"

#include <stdint.h>

typedef struct sampler sampler; /* scratch for one vocabulary size */

BASE_MUST_CHECK base_status sampler_create(int32_t n_vocab, const base_alloc *mem,
                                           sampler **sampler_out);
void sampler_destroy(sampler *s); /* NULL is allowed */

/* logits [V] are not changed.  seen: bitset [(V + 63) / 64] of the tokens of the sequence, or NULL when
 * repetition_penalty is 1.  position is the position that the new token will take. */
int32_t sampler_pick(sampler *s, const float *logits, const inference_sampling *params,
                     const uint64_t *seen, uint64_t sample_index, int64_t position);

/* Natural log probabilities of the raw distribution: of `id`, and of the n_top (0..V) most likely tokens,
 * descending, into top_ids_out and top_logprobs_out [n_top] (may be NULL when n_top is 0).  Always
 * finite: -FLT_MAX stands for a probability of 0. */
void sampler_logprobs(sampler *s, const float *logits, int32_t id, int32_t n_top,
                      float *logprob_out, int32_t *top_ids_out, float *top_logprobs_out);

#endif /* WORKER_ENGINE_SAMPLER_H */
