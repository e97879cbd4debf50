/* proto/group_codec.h - the messages of group.proto as plain, checked structs.
 *
 * Same rules as inference_codec.h: decoders check everything against the limits here (the peer is
 * another build, perhaps), encoders borrow.  A decoded event and all that it points to are ONE
 * allocation of mem, ended with mem->put.  Errors: BAD_INPUT naming the field, NO_MEMORY, OUT_OF_RANGE.
 * Limits not named below: integers are what their type holds, never negative; texts are UTF-8;
 * floats are finite; start_rank is below GROUP_MAX_RANKS, and so many ranks an array may have. */
#ifndef PROTO_GROUP_CODEC_H
#define PROTO_GROUP_CODEC_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"
#include "proto/inference_codec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GROUP_PROTOCOL    1 /* raised when a message changes its meaning */
#define GROUP_MAX_RANKS   1024
#define GROUP_MAX_EOS_IDS 64

typedef struct group_hello {
    int32_t protocol;
    int32_t page_format;
    base_view build, model, model_hash, policy, policy_hash;
    int32_t ranks;       /* 1..GROUP_MAX_RANKS */
    int64_t max_context; /* >= 1, like the next two */
    int32_t max_batch;
    int32_t vocab_size;
    int32_t n_layers, n_heads, n_kv_heads, head_dim;
    double k_bits_per_element, v_bits_per_element;
    int64_t bytes_per_token, bytes_per_page;
    const int64_t *blocks_total_per_rank; /* [ranks] */
    const int64_t *weight_bytes_per_rank; /* [ranks] */
    base_view exchange;                   /* name of the transport of partials */
    base_view tokenizer_json;
    /* 16 bytes: base_hash of tokenizer_json; checked by the decoder.  Both may be empty. */
    base_view tokenizer_sha256;
    base_view generation_config_json; /* any bytes */
    const int32_t *eos_ids;           /* at most GROUP_MAX_EOS_IDS */
    size_t n_eos_ids;
} group_hello;

typedef enum group_end_reason {
    GROUP_END_UNSPECIFIED,
    GROUP_END_LENGTH,
    GROUP_END_EOS,
    GROUP_END_STOP_TOKEN,
    GROUP_END_CANCELLED,
} group_end_reason;

typedef enum group_up_kind {
    GROUP_UP_HELLO,
    GROUP_UP_ADMITTED,
    GROUP_UP_REFUSED,
    GROUP_UP_PROGRESS,
    GROUP_UP_TOKENS,
    GROUP_UP_ENDED,
    GROUP_UP_LOAD,
} group_up_kind;

/* One message from rank 0; the fields of its kind are set. */
typedef struct group_up {
    group_up_kind kind;
    uint64_t seq;       /* all but HELLO and LOAD */
    group_hello hello;  /* HELLO */
    int32_t start_rank; /* ADMITTED */
    bool retry;         /* REFUSED */
    bool invalid;       /* REFUSED, not retry: INVALID_ARGUMENT for the client, else OUT_OF_RANGE */
    base_view reason_text; /* REFUSED */
    int64_t done, total;   /* PROGRESS: done <= total */
    const int32_t *ids;    /* TOKENS: [n_ids] */
    size_t n_ids;
    const float *logprobs;          /* TOKENS: [n_ids] or NULL */
    int32_t n_top;                  /* TOKENS: 0..INFERENCE_MAX_LOGPROBS */
    const int32_t *top_ids;         /* TOKENS: [n_ids, n_top] or NULL */
    const float *top_logprobs;      /* TOKENS: [n_ids, n_top] or NULL */
    group_end_reason reason;        /* ENDED: not UNSPECIFIED */
    int32_t stop_id;                /* ENDED */
    const int32_t *blocks_per_rank; /* ENDED: [n_blocks_per_rank] */
    size_t n_blocks_per_rank;
    int32_t running, waiting;            /* LOAD */
    const int64_t *blocks_free_per_rank; /* LOAD: [n_blocks_free] */
    size_t n_blocks_free;
    uint64_t steps; /* LOAD */
} group_up;

BASE_MUST_CHECK base_status group_up_encode(const group_up *up, base_bytes *out);
BASE_MUST_CHECK base_status group_up_decode(base_view bytes, const base_alloc *mem, group_up **out);

typedef struct group_admit {
    const int32_t *prompt; /* [n_prompt]; the original prompt, then n_sent generated tokens */
    size_t n_prompt;       /* >= 1 */
    int32_t n_sent;        /* 0..n_prompt - 1 */
    int32_t start_rank;
    inference_sampling sampling;
    int32_t max_new_tokens;  /* counted from the original prompt; 1..INFERENCE_MAX_NEW_TOKENS */
    const int32_t *stop_ids; /* at most INFERENCE_MAX_STOP_IDS */
    size_t n_stop_ids;
    const int32_t *eos_ids; /* at most GROUP_MAX_EOS_IDS */
    size_t n_eos_ids;
    int32_t logprobs; /* 0..INFERENCE_MAX_LOGPROBS */
    int32_t credit;
} group_admit;

typedef enum group_down_kind {
    GROUP_DOWN_WELCOME,
    GROUP_DOWN_ADMIT,
    GROUP_DOWN_CANCEL,
    GROUP_DOWN_CREDIT,
    GROUP_DOWN_DRAIN,
    GROUP_DOWN_PING,
} group_down_kind;

/* One message from the coordinator. */
typedef struct group_down {
    group_down_kind kind;
    uint64_t seq;      /* ADMIT, CANCEL, CREDIT */
    int32_t protocol;  /* WELCOME */
    base_view build;   /* WELCOME */
    group_admit admit; /* ADMIT */
    int32_t credit;    /* CREDIT: tokens, >= 1 */
} group_down;

BASE_MUST_CHECK base_status group_down_encode(const group_down *down, base_bytes *out);
BASE_MUST_CHECK base_status group_down_decode(base_view bytes, const base_alloc *mem,
                                              group_down **out);

#endif /* PROTO_GROUP_CODEC_H */
