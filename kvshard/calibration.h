/* kvshard/calibration.h - what a policy knows of a model's activations, and the file that holds it.
 *
 * The energies of a RoPE block (dims i and i + D/2) of a KV head are the mean of |q|^2 over tokens and the head's
 * query heads, and the mean of |k|^2 over tokens.  The file holds energies, not widths, so one file
 * serves every k.  Its bytes: docs/formats.md.  Immutable once filled; any thread reads it. */
#ifndef KVSHARD_CALIBRATION_H
#define KVSHARD_CALIBRATION_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/view.h"
#include "kvshard/format.h"

#include <stdint.h>

#define KV_CALIBRATION_KIND      "block-gtq"
#define KV_CALIBRATION_VERSION   2
#define KV_CALIBRATION_MAX_BYTES ((size_t)1 << 27)

typedef struct kv_calibration {
    base_hash model; /* of the model whose activations these are */
    kv_shape shape;
    int64_t n_tokens; /* that the means are over */
    float *energies;  /* [n_layers][n_kv_heads][2][head_dim / 2], of q, then k; finite, >= 0 */
    base_alloc mem;
} kv_calibration;

/* Energies are 0.  Errors: BAD_INPUT (shape), NO_MEMORY. */
BASE_MUST_CHECK base_status kv_calibration_create(const kv_shape *shape, base_hash model,
                                                  int64_t n_tokens, const base_alloc *mem,
                                                  kv_calibration **calibration_out);
void kv_calibration_destroy(kv_calibration *calibration); /* NULL is allowed */

/* How many energies there are. */
static inline int64_t kv_calibration_count(const kv_shape *shape)
{
    return (int64_t)shape->n_layers * shape->n_kv_heads * shape->head_dim;
}

/* The energies [2][head_dim / 2] of a head. */
static inline float *kv_calibration_head(const kv_calibration *calibration, int32_t layer,
                                         int32_t head)
{
    const kv_shape *s = &calibration->shape;
    return calibration->energies + ((int64_t)layer * s->n_kv_heads + head) * s->head_dim;
}

/* Appends the bytes of the file.  Errors: OUT_OF_RANGE (bytes_out is full), NO_MEMORY. */
BASE_MUST_CHECK base_status kv_calibration_write(const kv_calibration *calibration,
                                                 base_bytes *bytes_out);

/* Reads a whole file of the given name.  Errors: BAD_FILE (name, offset, reason), NO_MEMORY. */
BASE_MUST_CHECK base_status kv_calibration_parse(base_view bytes, const char *name,
                                                 const base_alloc *mem,
                                                 kv_calibration **calibration_out);

/* What a policy needs for a model: NULL if it needs none; else the file that the policy's text names with
 * calib=, or FOLDER/ropewalk/NAME.cal.  Refused unless made from this model.
 * Errors: NOT_FOUND (names the file and the command that makes it), IO, BAD_FILE, NO_MEMORY. */
BASE_MUST_CHECK base_status kv_calibration_open(const char *policy_text, const char *model_folder,
                                                base_hash model, const kv_shape *shape,
                                                const base_alloc *mem,
                                                kv_calibration **calibration_out);

#endif /* KVSHARD_CALIBRATION_H */
