/* kvshard/format.h - the static descriptor of a cache: the head format of every (layer, KV head).
 *
 * Identical on all ranks of a group: policy_hash covers the page-format version, the policy, the
 * shape, every segment, order, codebook and rotation, and the rule of what a query sees (kernels/op_attn.h).
 * Immutable after create; any thread reads it. */
#ifndef KVSHARD_FORMAT_H
#define KVSHARD_FORMAT_H

#include "base/alloc.h"
#include "base/hash.h"
#include "base/status.h"
#include "kernels/page.h"
#include "kvshard/policy.h"

#include <stdint.h>

#define KV_PAGE_FORMAT_VERSION 1

typedef struct kv_shape { /* of the model, as the cache sees it */
    int32_t n_layers;     /* 1..1024 */
    int32_t n_kv_heads;   /* 1..256 */
    int32_t head_dim;     /* 64 or 128 */
} kv_shape;

typedef struct kv_format {
    kv_policy policy;
    kv_shape shape;
    kern_head_format *heads; /* [n_layers][n_kv_heads] */
    int32_t window_blocks;   /* that a query sees as bf16 rows beside its own (kernels/op_attn.h) */
    int32_t sink_blocks;     /* and at the start of its sequence */
    int64_t page_bytes;      /* of one block: all layers and KV heads; multiple of 128 */
    double k_bits_per_element; /* codes, metadata and padding */
    double v_bits_per_element;
    base_hash policy_hash;
    void *data; /* codebooks and signs that heads point to */
    uint16_t
        *orders; /* [n_layers][n_kv_heads][2][head_dim], or NULL: no policy's side is ordered */
    base_alloc mem;
} kv_format;

/* Errors: BAD_INPUT naming the field. */
BASE_MUST_CHECK base_status kv_shape_check(const kv_shape *shape);

struct kv_calibration;

/* Errors: BAD_INPUT (the policy needs a calibration and this is none, or of another shape). */
BASE_MUST_CHECK base_status kv_format_check_calibration(const kv_policy *policy,
                                                        const kv_shape *shape,
                                                        const struct kv_calibration *calibration);

/* calibration: what kv_calibration_open gave for the policy, needed during the call only.
 * Errors: BAD_INPUT (shape; a calibration that is missing or of another shape; a policy that has no
 * pages), NO_MEMORY. */
BASE_MUST_CHECK base_status kv_format_create_calibrated(const kv_policy *policy,
                                                        const kv_shape *shape,
                                                        const struct kv_calibration *calibration,
                                                        const base_alloc *mem,
                                                        kv_format **format_out);
/* The same for policies that need none. */
BASE_MUST_CHECK base_status kv_format_create(const kv_policy *policy, const kv_shape *shape,
                                             const base_alloc *mem, kv_format **format_out);
void kv_format_destroy(kv_format *format); /* NULL is allowed */

/* The head formats [n_kv_heads] of a layer. */
static inline const kern_head_format *kv_format_layer(const kv_format *format, int32_t layer)
{
    return format->heads + (int64_t)layer * format->shape.n_kv_heads;
}

/* Bytes that one position takes in pages, and in bf16 pages. */
double kv_format_bytes_per_token(const kv_format *format);
int64_t kv_format_bf16_bytes_per_token(const kv_format *format);

#endif /* KVSHARD_FORMAT_H */
