#include "proto/group.pb-c.h"
#include "proto/group_codec.h"
#include "proto/sampling_check.h"
#include "proto/wire.h"

typedef Ropewalk__V1__ToGroup pb_down;
typedef Ropewalk__V1__Admit pb_admit;

static inference_sampling sampling_of(const pb_admit *m)
{
    return (inference_sampling){
        .temperature = m->temperature,
        .top_p = m->top_p,
        .min_p = m->min_p,
        .repetition_penalty = m->repetition_penalty,
        .top_k = (int32_t)m->top_k,
        .seed = m->seed,
    };
}

static base_status check_admit(const pb_admit *m)
{
    base_status st = BASE_OK;
    const inference_sampling sampling = sampling_of(m);

    BASE_TRY(st, out, wire_check_count("admit.prompt", m->n_prompt, 1, INT32_MAX));
    BASE_TRY(st, out, wire_check_i32s("admit.prompt", m->prompt, m->n_prompt));
    /* At least one token of the prompt is original. */
    BASE_TRY(st, out, wire_check_int("admit.n_sent", m->n_sent, 0, m->n_prompt - 1));
    BASE_TRY(st, out, wire_check_int("admit.start_rank", m->start_rank, 0, GROUP_MAX_RANKS - 1));
    BASE_TRY(st, out, proto_sampling_check("admit", &sampling));
    BASE_TRY(
        st, out,
        wire_check_int("admit.max_new_tokens", m->max_new_tokens, 1, INFERENCE_MAX_NEW_TOKENS));
    BASE_TRY(st, out, wire_check_count("admit.stop_ids", m->n_stop_ids, 0, INFERENCE_MAX_STOP_IDS));
    BASE_TRY(st, out, wire_check_i32s("admit.stop_ids", m->stop_ids, m->n_stop_ids));
    BASE_TRY(st, out, wire_check_count("admit.eos_ids", m->n_eos_ids, 0, GROUP_MAX_EOS_IDS));
    BASE_TRY(st, out, wire_check_i32s("admit.eos_ids", m->eos_ids, m->n_eos_ids));
    BASE_TRY(st, out, wire_check_int("admit.logprobs", m->logprobs, 0, INFERENCE_MAX_LOGPROBS));
    BASE_TRY(st, out, wire_check_i32("admit.credit", m->credit));
out:
    return st;
}

static base_status check(const ProtobufCMessage *message)
{
    const pb_down *m = (const pb_down *)message;
    base_status st = BASE_OK;

    switch (m->event_case) {
    case ROPEWALK__V1__TO_GROUP__EVENT_WELCOME:
        BASE_TRY(st, out, wire_check_i32("welcome.protocol", m->welcome->protocol));
        return wire_check_text("welcome.build", m->welcome->build);
    case ROPEWALK__V1__TO_GROUP__EVENT_ADMIT: return check_admit(m->admit);
    case ROPEWALK__V1__TO_GROUP__EVENT_CREDIT:
        return wire_check_int("credit.tokens", m->credit->tokens, 1, INT32_MAX);
    case ROPEWALK__V1__TO_GROUP__EVENT_CANCEL:
    case ROPEWALK__V1__TO_GROUP__EVENT_DRAIN:
    case ROPEWALK__V1__TO_GROUP__EVENT_PING: return BASE_OK;
    default: return BASE_FAIL(BASE_BAD_INPUT, "field 'event' is missing or of a newer protocol");
    }
out:
    return st;
}

static group_admit build_admit(wire_block *block, const pb_admit *m)
{
    return (group_admit){
        .prompt = wire_copy(block, m->prompt, m->n_prompt * sizeof(int32_t)),
        .n_prompt = m->n_prompt,
        .n_sent = (int32_t)m->n_sent,
        .start_rank = (int32_t)m->start_rank,
        .sampling = sampling_of(m),
        .max_new_tokens = (int32_t)m->max_new_tokens,
        .stop_ids = wire_copy(block, m->stop_ids, m->n_stop_ids * sizeof(int32_t)),
        .n_stop_ids = m->n_stop_ids,
        .eos_ids = wire_copy(block, m->eos_ids, m->n_eos_ids * sizeof(int32_t)),
        .n_eos_ids = m->n_eos_ids,
        .logprobs = (int32_t)m->logprobs,
        .credit = (int32_t)m->credit,
    };
}

static void build(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_down *m = (const pb_down *)message;
    group_down down = {.kind = GROUP_DOWN_PING};

    switch (m->event_case) {
    case ROPEWALK__V1__TO_GROUP__EVENT_WELCOME:
        down.kind = GROUP_DOWN_WELCOME;
        down.protocol = (int32_t)m->welcome->protocol;
        down.build = wire_copy_view(block, m->welcome->build);
        break;
    case ROPEWALK__V1__TO_GROUP__EVENT_ADMIT:
        down.kind = GROUP_DOWN_ADMIT;
        down.seq = m->admit->seq;
        down.admit = build_admit(block, m->admit);
        break;
    case ROPEWALK__V1__TO_GROUP__EVENT_CANCEL:
        down.kind = GROUP_DOWN_CANCEL;
        down.seq = m->cancel->seq;
        break;
    case ROPEWALK__V1__TO_GROUP__EVENT_CREDIT:
        down.kind = GROUP_DOWN_CREDIT;
        down.seq = m->credit->seq;
        down.credit = (int32_t)m->credit->tokens;
        break;
    case ROPEWALK__V1__TO_GROUP__EVENT_DRAIN: down.kind = GROUP_DOWN_DRAIN; break;
    default: break;
    }
    if (result != NULL) {
        *(group_down *)result = down;
    }
}

base_status group_down_decode(base_view bytes, const base_alloc *mem, group_down **out)
{
    static const wire_codec codec = {&ropewalk__v1__to_group__descriptor, sizeof(group_down), check,
                                     build};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    *out = result;
out:
    return st;
}

static base_status encode_admit(const group_down *down, pb_down *m, base_bytes *out)
{
    const group_admit *a = &down->admit;
    pb_admit admit = ROPEWALK__V1__ADMIT__INIT;

    admit.seq = down->seq;
    admit.n_prompt = a->n_prompt;
    admit.prompt = wire_u32s(a->prompt);
    admit.n_sent = (uint32_t)a->n_sent;
    admit.start_rank = (uint32_t)a->start_rank;
    admit.temperature = a->sampling.temperature;
    admit.top_p = a->sampling.top_p;
    admit.top_k = (uint32_t)a->sampling.top_k;
    admit.min_p = a->sampling.min_p;
    admit.repetition_penalty = a->sampling.repetition_penalty;
    admit.seed = a->sampling.seed;
    admit.max_new_tokens = (uint32_t)a->max_new_tokens;
    admit.n_stop_ids = a->n_stop_ids;
    admit.stop_ids = wire_u32s(a->stop_ids);
    admit.n_eos_ids = a->n_eos_ids;
    admit.eos_ids = wire_u32s(a->eos_ids);
    admit.logprobs = (uint32_t)a->logprobs;
    admit.credit = (uint32_t)a->credit;
    m->event_case = ROPEWALK__V1__TO_GROUP__EVENT_ADMIT;
    m->admit = &admit;
    return wire_encode(&m->base, out);
}

base_status group_down_encode(const group_down *down, base_bytes *out)
{
    pb_down m = ROPEWALK__V1__TO_GROUP__INIT;
    Ropewalk__V1__Welcome welcome = ROPEWALK__V1__WELCOME__INIT;
    Ropewalk__V1__Cancel cancel = ROPEWALK__V1__CANCEL__INIT;
    Ropewalk__V1__Credit credit = ROPEWALK__V1__CREDIT__INIT;
    Ropewalk__V1__Drain drain = ROPEWALK__V1__DRAIN__INIT;
    Ropewalk__V1__Ping ping = ROPEWALK__V1__PING__INIT;

    switch (down->kind) {
    case GROUP_DOWN_ADMIT: return encode_admit(down, &m, out);
    case GROUP_DOWN_WELCOME:
        welcome.protocol = (uint32_t)down->protocol;
        welcome.build = wire_bytes(down->build);
        m.event_case = ROPEWALK__V1__TO_GROUP__EVENT_WELCOME;
        m.welcome = &welcome;
        break;
    case GROUP_DOWN_CANCEL:
        cancel.seq = down->seq;
        m.event_case = ROPEWALK__V1__TO_GROUP__EVENT_CANCEL;
        m.cancel = &cancel;
        break;
    case GROUP_DOWN_CREDIT:
        credit.seq = down->seq;
        credit.tokens = (uint32_t)down->credit;
        m.event_case = ROPEWALK__V1__TO_GROUP__EVENT_CREDIT;
        m.credit = &credit;
        break;
    case GROUP_DOWN_DRAIN:
        m.event_case = ROPEWALK__V1__TO_GROUP__EVENT_DRAIN;
        m.drain = &drain;
        break;
    case GROUP_DOWN_PING:
        m.event_case = ROPEWALK__V1__TO_GROUP__EVENT_PING;
        m.ping = &ping;
        break;
    }
    return wire_encode(&m.base, out);
}
