/* worker/model/rope.h - rotary frequencies of a model, with its scaling to long contexts.
 *
 * Source: transformers' modeling_rope_utils.py; linear (position interpolation, arXiv 2306.15595), llama3
 * (Llama 3.1's smoothed bands), yarn (arXiv 2309.00071).
 *
 * Yarn multiplies sine and cosine by attention_factor a, for q and k alike, so every score by a^2.
 * That factor is applied to the softmax scale instead: the same scores, and K in the cache is rotated
 * but not scaled. */
#ifndef WORKER_MODEL_ROPE_H
#define WORKER_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum rope_kind {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_LLAMA3,
    ROPE_YARN,
} rope_kind;

/* Fields that a kind does not use are 0. */
typedef struct rope_scaling {
    rope_kind kind;
    double factor;           /* linear, llama3, yarn: 1..65536 */
    double original_context; /* llama3, yarn: positions before scaling */
    double low_freq_factor;  /* llama3 */
    double high_freq_factor; /* llama3: above low_freq_factor */
    double beta_fast;        /* yarn: turns in original_context above which a frequency stays */
    double beta_slow;        /* yarn: and below which it is divided by factor */
    double attention_factor; /* yarn */
    bool truncate;           /* yarn: the band's ends are whole pairs */
} rope_scaling;

/* inv_freq_out [head_dim / 2]: angle of pair (i, i + head_dim / 2) per position.  Computed in double. */
void rope_frequencies(double theta, const rope_scaling *scaling, int32_t head_dim,
                      float *inv_freq_out);

/* What scores <q, k> are multiplied by before softmax: a^2 / sqrt(head_dim). */
float rope_softmax_scale(const rope_scaling *scaling, int32_t head_dim);

#endif /* WORKER_MODEL_ROPE_H */
