/* kvshard/policy/policy_impl.h - what a policy is to the code that reads policies and makes formats.
 * Only kvshard/policy.c, kvshard/format.c and the files of this folder include it.
 *
 * A policy NAME of policies.def is one file here, which defines kv_policy_impl_NAME: the keys that
 * users may write, and a function that says how one head is laid out.  Everything else (reading and
 * writing the text, offsets, codebooks, signs, the hash) follows from that. */
#ifndef KVSHARD_POLICY_POLICY_IMPL_H
#define KVSHARD_POLICY_POLICY_IMPL_H

#include "kernels/page.h"
#include "kvshard/format.h"
#include "kvshard/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kv_policy_key { /* key=value of a policy; the value is an int32_t of kv_policy */
    const char *name;
    bool flag;     /* written bare it means 1; the canonical text leaves 0 out */
    size_t offset; /* of the field */
    int32_t low;   /* low..high is allowed */
    int32_t high;
    int32_t also;        /* and this */
    const int32_t *only; /* [n_only]: if not NULL, these are allowed and nothing else */
    int32_t n_only;
} kv_policy_key;

typedef struct kv_side_plan { /* K or V of one head */
    bool rotated;             /* stored after random signs and a Hadamard transform per segment */
    bool ordered;             /* order is used: page-basis dim j holds model dim order[j] */
    bool stretched;           /* K, rotated: stretch is used */
    int32_t n_segments;       /* in order of dims; together they cover head_dim */
    struct {
        kern_segment_kind kind;
        int32_t bits;   /* as page.h allows for the kind */
        int32_t n_dims; /* multiple of 8; if rotated 1, 3, 5 or 7 times a power of two */
        int32_t group;  /* affine kinds only */
    } segments[KERN_MAX_SEGMENTS];
    uint16_t order[KERN_MAX_HEAD_DIM]; /* a permutation of 0..head_dim-1 */
    float stretch
        [KERN_MAX_HEAD_DIM]; /* > 0: what rows are multiplied by, and queries divided (page.h) */
} kv_side_plan;

typedef struct kv_policy_impl {
    kv_policy initial;         /* what the bare name means */
    const kv_policy_key *keys; /* [n_keys], in the order of the canonical text */
    int32_t n_keys;
    /* Lays out K (side 0) or V (side 1) of a head.  Pure; called more than once per head. */
    void (*plan_side)(const kv_policy *policy, const kv_shape *shape, int32_t layer, int32_t head,
                      int32_t side, kv_side_plan *plan_out);
    /* The name of the calibration that it needs, or NULL.  Then users may write calib=FILE, and this takes the
     * place of plan_side: energies [2][head_dim / 2] of the head (calibration.h). */
    const char *calibration;
    void (*plan_calibrated)(const kv_policy *policy, const kv_shape *shape, const float *energies,
                            int32_t side, kv_side_plan *plan_out);
} kv_policy_impl;

#define X(name, text) extern const kv_policy_impl kv_policy_impl_##name;
#include "kvshard/policies.def"
#undef X

const kv_policy_impl *kv_policy_impl_of(kv_policy_kind kind);

#endif /* KVSHARD_POLICY_POLICY_IMPL_H */
