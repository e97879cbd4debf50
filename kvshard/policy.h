/* kvshard/policy.h - which quantisation a cache uses, as users write it.
 *
 *   bf16                   reference: 16-bit rows
 *   tq:k=4,v=4             TurboQuant-MSE (arXiv 2504.19874): signed Hadamard rotation, Lloyd-Max codes,
 *                          one corrected norm per position; k and v in 2..8, or 16 for bf16
 *   block-gtq:k=3,v=3      Block-GTQ (arXiv 2606.24033): K's RoPE blocks get 1..8 bits by energy, in the bytes of tq
 *                          with the same k (1..8), V is tq's; calib=FILE: the energies, else
 *                          MODEL/ropewalk/block-gtq.cal
 *   kivi:k=2,v=2,g=32,w=128,s=0
 *                          KIVI (arXiv 2402.02750): codes of k and v bits (2, 4, 8, or 16 for bf16) on a scale and a
 *                          min; K shares them among g (32, 64, 128) positions of a channel, V among g channels
 *                          (at most the head's) of a position.  w positions before a query's own block and the first
 *                          s are read as bf16 rows: whole blocks, w 0..1024 in steps of 128, s 0 or 128
 *
 * A policy is a line in policies.def and a file in policy/ that fills the head formats (format.h).
 * block-gtq:paper (groups of any size, as the paper has them) is a reference that no page holds: only `ropewalk
 * eval` knows it (worker/eval/free_groups.h). */
#ifndef KVSHARD_POLICY_H
#define KVSHARD_POLICY_H

#include "base/status.h"
#include "base/view.h"

#include <stdint.h>

#define KV_MAX_POLICY_TEXT 128

typedef enum kv_policy_kind {
#define X(name, text) KV_POLICY_##name,
#include "kvshard/policies.def"
#undef X
} kv_policy_kind;

typedef struct kv_policy {
    kv_policy_kind kind;
    int32_t paper; /* 1: a reference of the paper's format, which has no pages */
    int32_t k_bits;
    int32_t v_bits;
    int32_t group; /* kivi: elements that share a scale and a min; else 0 */
    int32_t
        window;    /* positions beside the open block that queries see as bf16 rows: whole blocks */
    int32_t sinks; /* positions at the start that every query sees as bf16 rows: whole blocks */
} kv_policy;

/* Reads "name[:key=value,...]".  Errors: BAD_INPUT naming the policy, key, value and what is allowed. */
BASE_MUST_CHECK base_status kv_policy_parse(const char *text, kv_policy *policy_out);

/* The value of calib= in text that kv_policy_parse accepts; NULL data: there is none.  Points into text. */
base_view kv_policy_calib(const char *text);

/* The canonical text, every parameter written out but calib: what counts is what the file holds, and
 * that is part of the policy hash. */
void kv_policy_text(const kv_policy *policy, char text_out[KV_MAX_POLICY_TEXT]);

#endif /* KVSHARD_POLICY_H */
