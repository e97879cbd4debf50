/* proto/inference_codec.h - the messages of inference.proto as plain, checked structs.
 *
 * Decoders take untrusted bytes: every count, length, range and UTF-8 text is checked here, so that
 * what comes out can be used as it is.  A decoded struct and all that it points to are one
 * allocation, which lives until its _free.  Unknown fields are ignored.  A message that would take
 * more than 256 MiB while it is parsed is refused, whatever its length.
 * Encoders append to a base_bytes, all or nothing, and borrow their input; they check nothing.
 * Errors of decoders: BAD_INPUT naming field, value and limit; NO_MEMORY.
 * Errors of encoders: OUT_OF_RANGE (buffer limit), NO_MEMORY.
 * Threads: any; nothing is shared. */
#ifndef PROTO_INFERENCE_CODEC_H
#define PROTO_INFERENCE_CODEC_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INFERENCE_MAX_REQUEST_ID_BYTES 128
#define INFERENCE_MAX_STOPS            16
#define INFERENCE_MAX_STOP_BYTES       1024
#define INFERENCE_MAX_STOP_IDS         64
#define INFERENCE_MAX_LOGPROBS         20
#define INFERENCE_MAX_NEW_TOKENS       (1 << 24)

/* Which optional fields a request carried. */
typedef enum inference_given {
    INFERENCE_GIVEN_TEMPERATURE = 1 << 0,
    INFERENCE_GIVEN_TOP_P = 1 << 1,
    INFERENCE_GIVEN_TOP_K = 1 << 2,
    INFERENCE_GIVEN_MIN_P = 1 << 3,
    INFERENCE_GIVEN_REPETITION_PENALTY = 1 << 4,
    INFERENCE_GIVEN_SEED = 1 << 5,
    INFERENCE_GIVEN_MAX_NEW_TOKENS = 1 << 6,
} inference_given;

typedef struct inference_sampling {
    float temperature;        /* [0, 100]; 0 = greedy */
    float top_p;              /* (0, 1] */
    float min_p;              /* [0, 1] */
    float repetition_penalty; /* (0, 100] */
    int32_t top_k;            /* 0 = off */
    uint64_t seed;
} inference_sampling;

typedef struct inference_generate_request {
    base_view request_id; /* no control characters */
    base_view model;
    bool has_text;
    base_view text; /* UTF-8; may hold NULs */
    /* When !has_text: at least one, each 0..2^31-1, not yet checked against a vocabulary. */
    int32_t *prompt_ids;
    size_t n_prompt_ids;
    uint32_t given; /* inference_given bits; the fields below are defaults where unset */
    inference_sampling sampling; /* defaults: 0, 1, 0, 1, 0, 0 */
    int32_t max_new_tokens;      /* 1..INFERENCE_MAX_NEW_TOKENS; 0 where not given */
    base_view *stops;
    size_t n_stops;
    int32_t *stop_ids;
    size_t n_stop_ids;
    bool ignore_eos;
    bool include_stop;
    int32_t logprobs; /* 0..INFERENCE_MAX_LOGPROBS */
    base_alloc mem;
} inference_generate_request;

BASE_MUST_CHECK base_status inference_generate_request_decode(base_view bytes,
                                                              const base_alloc *mem,
                                                              inference_generate_request **out);
void inference_generate_request_free(inference_generate_request *request); /* NULL is allowed */
BASE_MUST_CHECK base_status
inference_generate_request_encode(const inference_generate_request *request, base_bytes *out);

typedef enum inference_finish_reason {
    INFERENCE_FINISH_UNSPECIFIED,
    INFERENCE_FINISH_LENGTH,
    INFERENCE_FINISH_EOS,
    INFERENCE_FINISH_STOP_TOKEN,
    INFERENCE_FINISH_STOP_STRING,
} inference_finish_reason;

const char *inference_finish_reason_name(inference_finish_reason reason); /* "length", "eos", ... */

typedef struct inference_token_logprobs {
    float logprob;
    int32_t n_top;
    const int32_t *top_ids;    /* [n_top] */
    const float *top_logprobs; /* [n_top] */
} inference_token_logprobs;

typedef struct inference_kv_usage {
    base_view policy;
    int32_t ranks;
    double k_bits_per_element;
    double v_bits_per_element;
    int64_t bytes_per_token;
    int64_t bf16_bytes_per_token;
    int64_t bytes_per_page;         /* one block on its rank */
    const int32_t *blocks_per_rank; /* [n_blocks_per_rank] */
    size_t n_blocks_per_rank;
} inference_kv_usage;

typedef struct inference_finished {
    inference_finish_reason reason;
    base_view stop;
    int32_t stop_id;
    int64_t prompt_tokens;
    int64_t new_tokens;
    uint64_t seed;
    double queue_ms, ttft_ms, tpot_ms, total_ms;
    inference_kv_usage kv;
} inference_finished;

typedef enum inference_event_kind {
    INFERENCE_EVENT_PREFILL,
    INFERENCE_EVENT_TOKENS,
    INFERENCE_EVENT_FINISHED,
} inference_event_kind;

/* One message of the Generate stream. */
typedef struct inference_event {
    inference_event_kind kind;
    int64_t prefill_done, prefill_total; /* PREFILL: done <= total */
    const int32_t *ids;                  /* TOKENS: [n_ids] */
    size_t n_ids;
    base_view text;                           /* TOKENS */
    const inference_token_logprobs *logprobs; /* TOKENS: [n_logprobs], n_ids of them or none */
    size_t n_logprobs;
    inference_finished finished; /* FINISHED */
} inference_event;

BASE_MUST_CHECK base_status inference_event_encode(const inference_event *event, base_bytes *out);
/* The struct and all it points to are one allocation of mem, ended with inference_event_free. */
BASE_MUST_CHECK base_status inference_event_decode(base_view bytes, const base_alloc *mem,
                                                   inference_event **out);
void inference_event_free(inference_event *event, const base_alloc *mem);

typedef struct inference_tokenize_request {
    base_view text;
    bool add_special, parse_special;
    base_alloc mem;
} inference_tokenize_request;
BASE_MUST_CHECK base_status inference_tokenize_request_decode(base_view bytes,
                                                              const base_alloc *mem,
                                                              inference_tokenize_request **out);
void inference_tokenize_request_free(inference_tokenize_request *request);
BASE_MUST_CHECK base_status inference_tokenize_response_encode(const int32_t *ids, size_t n_ids,
                                                               base_bytes *out);

typedef struct inference_detokenize_request {
    int32_t *ids;
    size_t n_ids;
    bool skip_special;
    base_alloc mem;
} inference_detokenize_request;
BASE_MUST_CHECK base_status inference_detokenize_request_decode(base_view bytes,
                                                                const base_alloc *mem,
                                                                inference_detokenize_request **out);
void inference_detokenize_request_free(inference_detokenize_request *request);
BASE_MUST_CHECK base_status inference_detokenize_response_encode(base_view text, base_bytes *out);

typedef struct inference_model_info {
    base_view model, model_hash, policy, policy_hash, build;
    int32_t vocab_size;
    int64_t max_context;
    int32_t n_layers, n_heads, n_kv_heads, head_dim;
    int32_t groups, ranks, block_tokens;
    const int64_t *blocks_total_per_rank; /* [ranks] */
    const int64_t *blocks_free_per_rank;  /* [ranks] */
    int32_t running, waiting;
    int64_t requests_finished, requests_cancelled, requests_refused;
    double k_bits_per_element, v_bits_per_element;
    int64_t bytes_per_token;
    int64_t bytes_per_page;               /* one block on its rank */
    const int64_t *weight_bytes_per_rank; /* [ranks] */
    base_view exchange;                   /* name of the transport of partials */
} inference_model_info;
BASE_MUST_CHECK base_status inference_model_info_encode(const inference_model_info *info,
                                                        base_bytes *out);
/* One allocation, ended with mem->put. */
BASE_MUST_CHECK base_status inference_model_info_decode(base_view bytes, const base_alloc *mem,
                                                        inference_model_info **out);

#endif /* PROTO_INFERENCE_CODEC_H */
