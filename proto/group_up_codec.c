#include "base/hash.h"
#include "proto/group.pb-c.h"
#include "proto/group_codec.h"
#include "proto/wire.h"

typedef Ropewalk__V1__FromGroup pb_up;
typedef Ropewalk__V1__Hello pb_hello;
typedef Ropewalk__V1__NewTokens pb_tokens;
typedef Ropewalk__V1__Ended pb_ended;
typedef Ropewalk__V1__Load pb_load;

/* X(field): what Hello and group_hello have alike, by type. */
#define HELLO_TEXTS(X) X(build) X(model) X(model_hash) X(policy) X(policy_hash) X(exchange)
#define HELLO_BYTES(X) X(tokenizer_json) X(tokenizer_sha256) X(generation_config_json)
/* The group counts with these, so that 0 would be a fault; the others only describe it. */
#define HELLO_COUNTS(X) X(max_batch) X(vocab_size)
#define HELLO_I32S(X)   X(protocol) X(page_format) X(n_layers) X(n_heads) X(n_kv_heads) X(head_dim)
#define HELLO_I64S(X)   X(bytes_per_token) X(bytes_per_page)

/* ---- checks ---- */

static base_status check_tokenizer(const pb_hello *m)
{
    base_status st = BASE_OK;
    base_hasher *hasher = NULL;

    if (m->tokenizer_json.len == 0 && m->tokenizer_sha256.len == 0) {
        return BASE_OK; /* a model without a tokenizer */
    }
    if (m->tokenizer_sha256.len != BASE_HASH_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "field 'hello.tokenizer_sha256' has %zu bytes, allowed %d",
                         m->tokenizer_sha256.len, BASE_HASH_BYTES);
    }
    BASE_TRY(st, out, base_hasher_create(&hasher));
    base_hasher_add(hasher, m->tokenizer_json.data, m->tokenizer_json.len);
    const base_hash hash = base_hasher_end(hasher);
    if (memcmp(hash.bytes, m->tokenizer_sha256.data, BASE_HASH_BYTES) != 0) {
        st = BASE_FAIL(BASE_BAD_INPUT,
                       "field 'hello.tokenizer_sha256' is not the hash of the %zu bytes of "
                       "tokenizer_json",
                       m->tokenizer_json.len);
    }
out:
    return st;
}

static base_status check_hello(const pb_hello *m)
{
    base_status st = BASE_OK;

#define CHECK(field) BASE_TRY(st, out, wire_check_text("hello." #field, m->field));
    HELLO_TEXTS(CHECK)
#undef CHECK
#define CHECK(field) BASE_TRY(st, out, wire_check_int("hello." #field, m->field, 1, INT32_MAX));
    HELLO_COUNTS(CHECK)
#undef CHECK
#define CHECK(field) BASE_TRY(st, out, wire_check_i32("hello." #field, m->field));
    HELLO_I32S(CHECK)
#undef CHECK
#define CHECK(field) BASE_TRY(st, out, wire_check_i64("hello." #field, m->field));
    HELLO_I64S(CHECK)
#undef CHECK
    BASE_TRY(st, out, wire_check_int("hello.max_context", m->max_context, 1, INT64_MAX));
    BASE_TRY(st, out, wire_check_amount("hello.k_bits_per_element", m->k_bits_per_element));
    BASE_TRY(st, out, wire_check_amount("hello.v_bits_per_element", m->v_bits_per_element));
    BASE_TRY(st, out, wire_check_int("hello.ranks", m->ranks, 1, GROUP_MAX_RANKS));
    BASE_TRY(st, out,
             wire_check_same("hello.blocks_total_per_rank", m->n_blocks_total_per_rank, m->ranks));
    BASE_TRY(st, out,
             wire_check_i64s("hello.blocks_total_per_rank", m->blocks_total_per_rank, m->ranks));
    BASE_TRY(st, out,
             wire_check_same("hello.weight_bytes_per_rank", m->n_weight_bytes_per_rank, m->ranks));
    BASE_TRY(st, out,
             wire_check_i64s("hello.weight_bytes_per_rank", m->weight_bytes_per_rank, m->ranks));
    BASE_TRY(st, out, wire_check_count("hello.eos_ids", m->n_eos_ids, 0, GROUP_MAX_EOS_IDS));
    BASE_TRY(st, out, wire_check_i32s("hello.eos_ids", m->eos_ids, m->n_eos_ids));
    BASE_TRY(st, out, check_tokenizer(m));
out:
    return st;
}

static base_status check_tokens(const pb_tokens *m)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, wire_check_i32s("tokens.ids", m->ids, m->n_ids));
    if (m->n_logprobs > 0) {
        BASE_TRY(st, out, wire_check_same("tokens.logprobs", m->n_logprobs, m->n_ids));
    }
    BASE_TRY(st, out, wire_check_finite("tokens.logprobs", m->logprobs, m->n_logprobs));
    BASE_TRY(st, out, wire_check_int("tokens.n_top", m->n_top, 0, INFERENCE_MAX_LOGPROBS));
    const size_t n_tops = m->n_ids * m->n_top;
    BASE_TRY(st, out, wire_check_same("tokens.top_ids", m->n_top_ids, n_tops));
    BASE_TRY(st, out, wire_check_i32s("tokens.top_ids", m->top_ids, n_tops));
    BASE_TRY(st, out, wire_check_same("tokens.top_logprobs", m->n_top_logprobs, n_tops));
    BASE_TRY(st, out, wire_check_finite("tokens.top_logprobs", m->top_logprobs, n_tops));
out:
    return st;
}

static base_status check_ended(const pb_ended *m)
{
    base_status st = BASE_OK;

    BASE_TRY(
        st, out,
        wire_check_int("ended.reason", (uint32_t)m->reason, GROUP_END_LENGTH, GROUP_END_CANCELLED));
    BASE_TRY(st, out, wire_check_i32("ended.stop_id", m->stop_id));
    BASE_TRY(st, out,
             wire_check_count("ended.blocks_per_rank", m->n_blocks_per_rank, 0, GROUP_MAX_RANKS));
    BASE_TRY(st, out,
             wire_check_i32s("ended.blocks_per_rank", m->blocks_per_rank, m->n_blocks_per_rank));
out:
    return st;
}

static base_status check_load(const pb_load *m)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, wire_check_i32("load.running", m->running));
    BASE_TRY(st, out, wire_check_i32("load.waiting", m->waiting));
    BASE_TRY(st, out,
             wire_check_count("load.blocks_free_per_rank", m->n_blocks_free_per_rank, 0,
                              GROUP_MAX_RANKS));
    BASE_TRY(st, out,
             wire_check_i64s("load.blocks_free_per_rank", m->blocks_free_per_rank,
                             m->n_blocks_free_per_rank));
out:
    return st;
}

static base_status check(const ProtobufCMessage *message)
{
    const pb_up *m = (const pb_up *)message;
    base_status st = BASE_OK;

    switch (m->event_case) {
    case ROPEWALK__V1__FROM_GROUP__EVENT_HELLO: return check_hello(m->hello);
    case ROPEWALK__V1__FROM_GROUP__EVENT_ADMITTED:
        return wire_check_int("admitted.start_rank", m->admitted->start_rank, 0,
                              GROUP_MAX_RANKS - 1);
    case ROPEWALK__V1__FROM_GROUP__EVENT_REFUSED:
        return wire_check_text("refused.reason", m->refused->reason);
    case ROPEWALK__V1__FROM_GROUP__EVENT_PROGRESS:
        BASE_TRY(st, out, wire_check_i64("progress.total", m->progress->total));
        return wire_check_int("progress.done", m->progress->done, 0, m->progress->total);
    case ROPEWALK__V1__FROM_GROUP__EVENT_TOKENS: return check_tokens(m->tokens);
    case ROPEWALK__V1__FROM_GROUP__EVENT_ENDED: return check_ended(m->ended);
    case ROPEWALK__V1__FROM_GROUP__EVENT_LOAD: return check_load(m->load);
    default: return BASE_FAIL(BASE_BAD_INPUT, "field 'event' is missing or of a newer protocol");
    }
out:
    return st;
}

/* ---- bytes to struct ---- */

static group_hello build_hello(wire_block *block, const pb_hello *m)
{
    group_hello h = {.ranks = (int32_t)m->ranks,
                     .max_context = (int64_t)m->max_context,
                     .k_bits_per_element = m->k_bits_per_element,
                     .v_bits_per_element = m->v_bits_per_element,
                     .n_eos_ids = m->n_eos_ids};

#define BUILD(field) h.field = wire_copy_view(block, m->field);
    HELLO_TEXTS(BUILD)
    HELLO_BYTES(BUILD)
#undef BUILD
#define BUILD(field) h.field = (int32_t)m->field;
    HELLO_COUNTS(BUILD)
    HELLO_I32S(BUILD)
#undef BUILD
#define BUILD(field) h.field = (int64_t)m->field;
    HELLO_I64S(BUILD)
#undef BUILD
    h.blocks_total_per_rank =
        wire_copy(block, m->blocks_total_per_rank, m->ranks * sizeof(int64_t));
    h.weight_bytes_per_rank =
        wire_copy(block, m->weight_bytes_per_rank, m->ranks * sizeof(int64_t));
    h.eos_ids = wire_copy(block, m->eos_ids, m->n_eos_ids * sizeof(int32_t));
    return h;
}

static void build_tokens(wire_block *block, const pb_tokens *m, group_up *up)
{
    up->seq = m->seq;
    up->n_ids = m->n_ids;
    up->n_top = (int32_t)m->n_top;
    up->ids = wire_copy(block, m->ids, m->n_ids * sizeof(int32_t));
    up->logprobs = wire_copy(block, m->logprobs, m->n_logprobs * sizeof(float));
    up->top_ids = wire_copy(block, m->top_ids, m->n_top_ids * sizeof(int32_t));
    up->top_logprobs = wire_copy(block, m->top_logprobs, m->n_top_logprobs * sizeof(float));
}

static void build_ended(wire_block *block, const pb_ended *m, group_up *up)
{
    up->seq = m->seq;
    up->reason = (group_end_reason)m->reason;
    up->stop_id = (int32_t)m->stop_id;
    up->n_blocks_per_rank = m->n_blocks_per_rank;
    up->blocks_per_rank =
        wire_copy(block, m->blocks_per_rank, m->n_blocks_per_rank * sizeof(int32_t));
}

static void build_load(wire_block *block, const pb_load *m, group_up *up)
{
    up->running = (int32_t)m->running;
    up->waiting = (int32_t)m->waiting;
    up->steps = m->steps;
    up->n_blocks_free = m->n_blocks_free_per_rank;
    up->blocks_free_per_rank =
        wire_copy(block, m->blocks_free_per_rank, m->n_blocks_free_per_rank * sizeof(int64_t));
}

static void build(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_up *m = (const pb_up *)message;
    group_up up = {.kind = GROUP_UP_HELLO};

    switch (m->event_case) {
    case ROPEWALK__V1__FROM_GROUP__EVENT_ADMITTED:
        up.kind = GROUP_UP_ADMITTED;
        up.seq = m->admitted->seq;
        up.start_rank = (int32_t)m->admitted->start_rank;
        break;
    case ROPEWALK__V1__FROM_GROUP__EVENT_REFUSED:
        up.kind = GROUP_UP_REFUSED;
        up.seq = m->refused->seq;
        up.retry = m->refused->retry != 0;
        up.invalid = m->refused->invalid != 0;
        up.reason_text = wire_copy_view(block, m->refused->reason);
        break;
    case ROPEWALK__V1__FROM_GROUP__EVENT_PROGRESS:
        up.kind = GROUP_UP_PROGRESS;
        up.seq = m->progress->seq;
        up.done = (int64_t)m->progress->done;
        up.total = (int64_t)m->progress->total;
        break;
    case ROPEWALK__V1__FROM_GROUP__EVENT_TOKENS:
        up.kind = GROUP_UP_TOKENS;
        build_tokens(block, m->tokens, &up);
        break;
    case ROPEWALK__V1__FROM_GROUP__EVENT_ENDED:
        up.kind = GROUP_UP_ENDED;
        build_ended(block, m->ended, &up);
        break;
    case ROPEWALK__V1__FROM_GROUP__EVENT_LOAD:
        up.kind = GROUP_UP_LOAD;
        build_load(block, m->load, &up);
        break;
    default: up.hello = build_hello(block, m->hello); break;
    }
    if (result != NULL) {
        *(group_up *)result = up;
    }
}

base_status group_up_decode(base_view bytes, const base_alloc *mem, group_up **out)
{
    static const wire_codec codec = {&ropewalk__v1__from_group__descriptor, sizeof(group_up), check,
                                     build};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    *out = result;
out:
    return st;
}

/* ---- struct to bytes ---- */

static base_status encode_hello(const group_hello *h, pb_up *m, base_bytes *out)
{
    pb_hello hello = ROPEWALK__V1__HELLO__INIT;

#define ENCODE(field) hello.field = wire_bytes(h->field);
    HELLO_TEXTS(ENCODE)
    HELLO_BYTES(ENCODE)
#undef ENCODE
#define ENCODE(field) hello.field = (uint32_t)h->field;
    HELLO_COUNTS(ENCODE)
    HELLO_I32S(ENCODE)
#undef ENCODE
#define ENCODE(field) hello.field = (uint64_t)h->field;
    HELLO_I64S(ENCODE)
#undef ENCODE
    hello.ranks = (uint32_t)h->ranks;
    hello.max_context = (uint64_t)h->max_context;
    hello.k_bits_per_element = h->k_bits_per_element;
    hello.v_bits_per_element = h->v_bits_per_element;
    hello.n_blocks_total_per_rank = (size_t)h->ranks;
    hello.blocks_total_per_rank = wire_u64s(h->blocks_total_per_rank);
    hello.n_weight_bytes_per_rank = (size_t)h->ranks;
    hello.weight_bytes_per_rank = wire_u64s(h->weight_bytes_per_rank);
    hello.n_eos_ids = h->n_eos_ids;
    hello.eos_ids = wire_u32s(h->eos_ids);
    m->event_case = ROPEWALK__V1__FROM_GROUP__EVENT_HELLO;
    m->hello = &hello;
    return wire_encode(&m->base, out);
}

static base_status encode_tokens(const group_up *up, pb_up *m, base_bytes *out)
{
    pb_tokens tokens = ROPEWALK__V1__NEW_TOKENS__INIT;
    const size_t n_tops = up->n_ids * (size_t)up->n_top;

    tokens.seq = up->seq;
    tokens.n_ids = up->n_ids;
    tokens.ids = wire_u32s(up->ids);
    tokens.n_logprobs = up->logprobs == NULL ? 0 : up->n_ids;
    tokens.logprobs = wire_f32s(up->logprobs);
    tokens.n_top = (uint32_t)up->n_top;
    tokens.n_top_ids = n_tops;
    tokens.top_ids = wire_u32s(up->top_ids);
    tokens.n_top_logprobs = n_tops;
    tokens.top_logprobs = wire_f32s(up->top_logprobs);
    m->event_case = ROPEWALK__V1__FROM_GROUP__EVENT_TOKENS;
    m->tokens = &tokens;
    return wire_encode(&m->base, out);
}

static base_status encode_ended(const group_up *up, pb_up *m, base_bytes *out)
{
    pb_ended ended = ROPEWALK__V1__ENDED__INIT;

    ended.seq = up->seq;
    ended.reason = (Ropewalk__V1__EndReason)up->reason;
    ended.stop_id = (uint32_t)up->stop_id;
    ended.n_blocks_per_rank = up->n_blocks_per_rank;
    ended.blocks_per_rank = wire_u32s(up->blocks_per_rank);
    m->event_case = ROPEWALK__V1__FROM_GROUP__EVENT_ENDED;
    m->ended = &ended;
    return wire_encode(&m->base, out);
}

static base_status encode_load(const group_up *up, pb_up *m, base_bytes *out)
{
    pb_load load = ROPEWALK__V1__LOAD__INIT;

    load.running = (uint32_t)up->running;
    load.waiting = (uint32_t)up->waiting;
    load.n_blocks_free_per_rank = up->n_blocks_free;
    load.blocks_free_per_rank = wire_u64s(up->blocks_free_per_rank);
    load.steps = up->steps;
    m->event_case = ROPEWALK__V1__FROM_GROUP__EVENT_LOAD;
    m->load = &load;
    return wire_encode(&m->base, out);
}

base_status group_up_encode(const group_up *up, base_bytes *out)
{
    pb_up m = ROPEWALK__V1__FROM_GROUP__INIT;
    Ropewalk__V1__Admitted admitted = ROPEWALK__V1__ADMITTED__INIT;
    Ropewalk__V1__Refused refused = ROPEWALK__V1__REFUSED__INIT;
    Ropewalk__V1__Progress progress = ROPEWALK__V1__PROGRESS__INIT;

    switch (up->kind) {
    case GROUP_UP_HELLO: return encode_hello(&up->hello, &m, out);
    case GROUP_UP_TOKENS: return encode_tokens(up, &m, out);
    case GROUP_UP_ENDED: return encode_ended(up, &m, out);
    case GROUP_UP_LOAD: return encode_load(up, &m, out);
    case GROUP_UP_ADMITTED:
        admitted.seq = up->seq;
        admitted.start_rank = (uint32_t)up->start_rank;
        m.event_case = ROPEWALK__V1__FROM_GROUP__EVENT_ADMITTED;
        m.admitted = &admitted;
        break;
    case GROUP_UP_REFUSED:
        refused.seq = up->seq;
        refused.retry = up->retry;
        refused.invalid = up->invalid;
        refused.reason = wire_bytes(up->reason_text);
        m.event_case = ROPEWALK__V1__FROM_GROUP__EVENT_REFUSED;
        m.refused = &refused;
        break;
    case GROUP_UP_PROGRESS:
        progress.seq = up->seq;
        progress.done = (uint64_t)up->done;
        progress.total = (uint64_t)up->total;
        m.event_case = ROPEWALK__V1__FROM_GROUP__EVENT_PROGRESS;
        m.progress = &progress;
        break;
    }
    return wire_encode(&m.base, out);
}
