#include "proto/inference.pb-c.h"
#include "proto/inference_codec.h"
#include "proto/sampling_check.h"
#include "proto/wire.h"

#include <stdio.h>

typedef Ropewalk__V1__GenerateRequest pb_request;
typedef Ropewalk__V1__Sampling pb_sampling;
typedef Ropewalk__V1__Stopping pb_stopping;

/* X(field of the message, its case, bit): the optional fields of Sampling. */
#define SAMPLING_FIELDS(X)                                                           \
    X(temperature, TEMPERATURE_TEMPERATURE, TEMPERATURE)                             \
    X(top_p, TOP_P_TOP_P, TOP_P)                                                     \
    X(top_k, TOP_K_TOP_K, TOP_K)                                                     \
    X(min_p, MIN_P_MIN_P, MIN_P)                                                     \
    X(repetition_penalty, REPETITION_PENALTY_REPETITION_PENALTY, REPETITION_PENALTY) \
    X(seed, SEED_SEED, SEED)

static const inference_sampling defaults = {.top_p = 1.0f, .repetition_penalty = 1.0f};

/* The values to use, and which of them came. */
static inference_sampling sampling_of(const pb_sampling *m, uint32_t *given_out)
{
    inference_sampling s = defaults;
    uint32_t given = 0;

#define READ(name, name_case, bit)                                                      \
    if (m != NULL && m->opt_##name##_case == ROPEWALK__V1__SAMPLING__OPT_##name_case) { \
        s.name = (__typeof__(s.name))m->name;                                           \
        given |= INFERENCE_GIVEN_##bit;                                                 \
    }
    SAMPLING_FIELDS(READ)
#undef READ
    *given_out = given;
    return s;
}

static bool has_max_new_tokens(const pb_stopping *m)
{
    return m->opt_max_new_tokens_case == ROPEWALK__V1__STOPPING__OPT_MAX_NEW_TOKENS_MAX_NEW_TOKENS;
}

static base_status check_request_id(ProtobufCBinaryData id)
{
    if (id.len > INFERENCE_MAX_REQUEST_ID_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "field 'request_id' has %zu bytes, allowed 0..%d", id.len,
                         INFERENCE_MAX_REQUEST_ID_BYTES);
    }
    for (size_t i = 0; i < id.len; i++) { /* it goes into logs: U+0000..1F, 7F, 80..9F */
        const bool c1 = i > 0 && id.data[i - 1] == 0xc2 && id.data[i] >= 0x80 && id.data[i] < 0xa0;
        if (id.data[i] < 0x20 || id.data[i] == 0x7f || c1) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "field 'request_id' has control character 0x%02x at byte %zu",
                             id.data[i], i);
        }
    }
    return wire_check_text("request_id", id);
}

static base_status check_prompt(const pb_request *m)
{
    base_status st = BASE_OK;

    switch (m->prompt_case) {
    case ROPEWALK__V1__GENERATE_REQUEST__PROMPT_TEXT: return wire_check_text("text", m->text);
    case ROPEWALK__V1__GENERATE_REQUEST__PROMPT_TOKEN_IDS:
        BASE_TRY(st, out, wire_check_count("token_ids.ids", m->token_ids->n_ids, 1, INT32_MAX));
        return wire_check_i32s("token_ids.ids", m->token_ids->ids, m->token_ids->n_ids);
    default: return BASE_FAIL(BASE_BAD_INPUT, "field 'prompt' is missing: give text or token_ids");
    }
out:
    return st;
}

static base_status check_stop(const ProtobufCBinaryData *stop, size_t i)
{
    char field[48];
    if (stop->len < 1 || stop->len > INFERENCE_MAX_STOP_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "field 'stopping.stop[%zu]' has %zu bytes, allowed 1..%d",
                         i, stop->len, INFERENCE_MAX_STOP_BYTES);
    }
    (void)snprintf(field, sizeof field, "stopping.stop[%zu]", i);
    return wire_check_text(field, *stop);
}

static base_status check_stopping(const pb_stopping *m)
{
    base_status st = BASE_OK;

    if (has_max_new_tokens(m)) {
        BASE_TRY(st, out,
                 wire_check_int("stopping.max_new_tokens", m->max_new_tokens, 1,
                                INFERENCE_MAX_NEW_TOKENS));
    }
    BASE_TRY(st, out, wire_check_count("stopping.stop", m->n_stop, 0, INFERENCE_MAX_STOPS));
    for (size_t i = 0; i < m->n_stop; i++) {
        BASE_TRY(st, out, check_stop(&m->stop[i], i));
    }
    BASE_TRY(st, out,
             wire_check_count("stopping.stop_token_ids", m->n_stop_token_ids, 0,
                              INFERENCE_MAX_STOP_IDS));
    BASE_TRY(st, out,
             wire_check_i32s("stopping.stop_token_ids", m->stop_token_ids, m->n_stop_token_ids));
out:
    return st;
}

static base_status check(const ProtobufCMessage *message)
{
    const pb_request *m = (const pb_request *)message;
    base_status st = BASE_OK;
    uint32_t given;
    const inference_sampling sampling = sampling_of(m->sampling, &given);

    BASE_TRY(st, out, check_request_id(m->request_id));
    BASE_TRY(st, out, wire_check_text("model", m->model));
    BASE_TRY(st, out, check_prompt(m));
    BASE_TRY(st, out, proto_sampling_check("sampling", &sampling));
    if (m->stopping != NULL) {
        BASE_TRY(st, out, check_stopping(m->stopping));
    }
    BASE_TRY(st, out, wire_check_int("logprobs", m->logprobs, 0, INFERENCE_MAX_LOGPROBS));
out:
    return st;
}

static void build(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_request *m = (const pb_request *)message;
    const pb_stopping *stopping = m->stopping;
    inference_generate_request r = {.logprobs = (int32_t)m->logprobs};

    r.request_id = wire_copy_view(block, m->request_id);
    r.model = wire_copy_view(block, m->model);
    r.has_text = m->prompt_case == ROPEWALK__V1__GENERATE_REQUEST__PROMPT_TEXT;
    if (r.has_text) {
        r.text = wire_copy_view(block, m->text);
    } else {
        r.n_prompt_ids = m->token_ids->n_ids;
        r.prompt_ids = wire_copy(block, m->token_ids->ids, r.n_prompt_ids * sizeof(int32_t));
    }
    r.sampling = sampling_of(m->sampling, &r.given);
    if (stopping != NULL) {
        if (has_max_new_tokens(stopping)) {
            r.max_new_tokens = (int32_t)stopping->max_new_tokens;
            r.given |= INFERENCE_GIVEN_MAX_NEW_TOKENS;
        }
        r.n_stops = stopping->n_stop;
        r.stops = wire_take(block, r.n_stops * sizeof *r.stops);
        for (size_t i = 0; i < r.n_stops; i++) {
            const base_view stop = wire_copy_view(block, stopping->stop[i]);
            if (r.stops != NULL) {
                r.stops[i] = stop;
            }
        }
        r.n_stop_ids = stopping->n_stop_token_ids;
        r.stop_ids = wire_copy(block, stopping->stop_token_ids, r.n_stop_ids * sizeof(int32_t));
        r.ignore_eos = stopping->ignore_eos != 0;
        r.include_stop = stopping->include_stop != 0;
    }
    if (result != NULL) {
        *(inference_generate_request *)result = r;
    }
}

base_status inference_generate_request_decode(base_view bytes, const base_alloc *mem,
                                              inference_generate_request **out)
{
    static const wire_codec codec = {&ropewalk__v1__generate_request__descriptor,
                                     sizeof(inference_generate_request), check, build};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    inference_generate_request *request = result;
    request->mem = *mem;
    *out = request;
out:
    return st;
}

void inference_generate_request_free(inference_generate_request *request)
{
    if (request != NULL) {
        const base_alloc mem = request->mem;
        mem.put(mem.ctx, request);
    }
}

base_status inference_generate_request_encode(const inference_generate_request *request,
                                              base_bytes *out)
{
    base_status st = BASE_OK;
    const base_alloc mem = out->mem;
    pb_request m;
    pb_sampling sampling = ROPEWALK__V1__SAMPLING__INIT;
    pb_stopping stopping = ROPEWALK__V1__STOPPING__INIT;
    Ropewalk__V1__TokenIds token_ids = ROPEWALK__V1__TOKEN_IDS__INIT;

    ropewalk__v1__generate_request__init(&m);
    m.request_id = wire_bytes(request->request_id);
    m.model = wire_bytes(request->model);
    if (request->has_text) {
        m.prompt_case = ROPEWALK__V1__GENERATE_REQUEST__PROMPT_TEXT;
        m.text = wire_bytes(request->text);
    } else {
        m.prompt_case = ROPEWALK__V1__GENERATE_REQUEST__PROMPT_TOKEN_IDS;
        token_ids.n_ids = request->n_prompt_ids;
        token_ids.ids = wire_u32s(request->prompt_ids);
        m.token_ids = &token_ids;
    }

#define WRITE(name, name_case, bit)                                           \
    if ((request->given & INFERENCE_GIVEN_##bit) != 0) {                      \
        sampling.opt_##name##_case = ROPEWALK__V1__SAMPLING__OPT_##name_case; \
        sampling.name = (__typeof__(sampling.name))request->sampling.name;    \
    }
    SAMPLING_FIELDS(WRITE)
#undef WRITE
    m.sampling = &sampling;

    if ((request->given & INFERENCE_GIVEN_MAX_NEW_TOKENS) != 0) {
        stopping.opt_max_new_tokens_case =
            ROPEWALK__V1__STOPPING__OPT_MAX_NEW_TOKENS_MAX_NEW_TOKENS;
        stopping.max_new_tokens = (uint32_t)request->max_new_tokens;
    }
    stopping.n_stop = request->n_stops;
    if (request->n_stops > 0) {
        stopping.stop = mem.get(mem.ctx, request->n_stops * sizeof *stopping.stop);
        if (stopping.stop == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "%zu stop strings", request->n_stops);
            goto out;
        }
        for (size_t i = 0; i < request->n_stops; i++) {
            stopping.stop[i] = wire_bytes(request->stops[i]);
        }
    }
    stopping.n_stop_token_ids = request->n_stop_ids;
    stopping.stop_token_ids = wire_u32s(request->stop_ids);
    stopping.ignore_eos = request->ignore_eos;
    stopping.include_stop = request->include_stop;
    m.stopping = &stopping;
    m.logprobs = (uint32_t)request->logprobs;

    BASE_TRY(st, out, wire_encode(&m.base, out));
out:
    mem.put(mem.ctx, stopping.stop);
    return st;
}
