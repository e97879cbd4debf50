/* coordinator/model.h - what is served: the facts in which all groups must agree.
 *
 * Made from the Hello of the first group that attaches; groups that come later are checked against
 * it, so that a sequence can move to them and go on with the same tokens.
 * Immutable after create: any thread reads it. */
#ifndef COORDINATOR_MODEL_H
#define COORDINATOR_MODEL_H

#include "base/alloc.h"
#include "base/status.h"
#include "coordinator/defaults.h"
#include "coordinator/text/tokenizer.h"
#include "proto/group_codec.h"

#include <stdint.h>

typedef struct coord_model {
    /* The texts end in NUL too. */
    base_view name, model_hash, policy, policy_hash, build;
    int32_t page_format;
    int32_t vocab_size;
    int32_t n_layers, n_heads, n_kv_heads, head_dim;
    double k_bits_per_element, v_bits_per_element;
    int64_t bytes_per_token, bytes_per_page;
    char tokenizer_sha256[16];
    text_tokenizer *tokenizer; /* NULL: the model has none, prompts are token ids */
    coord_defaults defaults;   /* with the Hello's eos ids */
    base_alloc mem;
} coord_model;

/* Takes as long as reading the tokenizer (0.1 to 1 s for large vocabularies).
 * Errors: BAD_INPUT (a shape, named), BAD_FILE (tokenizer.json or generation_config.json: field and reason), NO_MEMORY. */
BASE_MUST_CHECK base_status coord_model_create(const group_hello *hello, const base_alloc *mem,
                                               coord_model **model_out);
void coord_model_destroy(coord_model *model); /* NULL is allowed */

/* Errors: BAD_INPUT (field is text, and the model has no tokenizer). */
BASE_MUST_CHECK base_status coord_model_check_text(const coord_model *model, const char *field);

/* May a group of this Hello take a protocol and a place beside the others?
 * Errors: BAD_INPUT naming what differs and both values. */
BASE_MUST_CHECK base_status coord_model_check_protocol(const group_hello *hello);
BASE_MUST_CHECK base_status coord_model_check_same(const coord_model *model,
                                                   const group_hello *hello);

#endif /* COORDINATOR_MODEL_H */
