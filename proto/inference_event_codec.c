#include "base/checked.h"
#include "proto/inference.pb-c.h"
#include "proto/inference_codec.h"
#include "proto/wire.h"

#include <stdio.h>

typedef Ropewalk__V1__GenerateResponse pb_event;
typedef Ropewalk__V1__Tokens pb_tokens;
typedef Ropewalk__V1__TokenLogprobs pb_logprobs;
typedef Ropewalk__V1__Finished pb_finished;
typedef Ropewalk__V1__Usage pb_usage;
typedef Ropewalk__V1__Timing pb_timing;
typedef Ropewalk__V1__KvUsage pb_kv;

const char *inference_finish_reason_name(inference_finish_reason reason)
{
    switch (reason) {
    case INFERENCE_FINISH_UNSPECIFIED: return "unspecified";
    case INFERENCE_FINISH_LENGTH: return "length";
    case INFERENCE_FINISH_EOS: return "eos";
    case INFERENCE_FINISH_STOP_TOKEN: return "stop_token";
    case INFERENCE_FINISH_STOP_STRING: return "stop_string";
    }
    return "?";
}

/* ---- checks ---- */

static base_status check_logprobs(const pb_logprobs *m, size_t i)
{
    base_status st = BASE_OK;
    char field[64];

    (void)snprintf(field, sizeof field, "tokens.logprobs[%zu].logprob", i);
    BASE_TRY(st, out, wire_check_finite(field, &m->logprob, 1));
    (void)snprintf(field, sizeof field, "tokens.logprobs[%zu].top_ids", i);
    BASE_TRY(st, out, wire_check_count(field, m->n_top_ids, 0, INFERENCE_MAX_LOGPROBS));
    BASE_TRY(st, out, wire_check_i32s(field, m->top_ids, m->n_top_ids));
    (void)snprintf(field, sizeof field, "tokens.logprobs[%zu].top_logprobs", i);
    BASE_TRY(st, out, wire_check_same(field, m->n_top_logprobs, m->n_top_ids));
    BASE_TRY(st, out, wire_check_finite(field, m->top_logprobs, m->n_top_logprobs));
out:
    return st;
}

static base_status check_tokens(const pb_tokens *m)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, wire_check_i32s("tokens.ids", m->ids, m->n_ids));
    BASE_TRY(st, out, wire_check_text("tokens.text", m->text));
    if (m->n_logprobs > 0) {
        BASE_TRY(st, out, wire_check_same("tokens.logprobs", m->n_logprobs, m->n_ids));
    }
    for (size_t i = 0; i < m->n_logprobs; i++) {
        BASE_TRY(st, out, check_logprobs(m->logprobs[i], i));
    }
out:
    return st;
}

static base_status check_kv(const pb_kv *m)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, wire_check_text("finished.kv.policy", m->policy));
    BASE_TRY(st, out, wire_check_i32("finished.kv.ranks", m->ranks));
    BASE_TRY(st, out, wire_check_amount("finished.kv.k_bits_per_element", m->k_bits_per_element));
    BASE_TRY(st, out, wire_check_amount("finished.kv.v_bits_per_element", m->v_bits_per_element));
    BASE_TRY(st, out, wire_check_i64("finished.kv.bytes_per_token", m->bytes_per_token));
    BASE_TRY(st, out, wire_check_i64("finished.kv.bf16_bytes_per_token", m->bf16_bytes_per_token));
    BASE_TRY(st, out, wire_check_i64("finished.kv.bytes_per_rank_page", m->bytes_per_rank_page));
    BASE_TRY(
        st, out,
        wire_check_i32s("finished.kv.blocks_per_rank", m->blocks_per_rank, m->n_blocks_per_rank));
out:
    return st;
}

static base_status check_finished(const pb_finished *m)
{
    base_status st = BASE_OK;

    BASE_TRY(
        st, out,
        wire_check_int("finished.reason", (uint32_t)m->reason, 0, INFERENCE_FINISH_STOP_STRING));
    BASE_TRY(st, out, wire_check_text("finished.stop", m->stop));
    BASE_TRY(st, out, wire_check_i32("finished.stop_id", m->stop_id));
    if (m->usage != NULL) {
        BASE_TRY(st, out, wire_check_i64("finished.usage.prompt_tokens", m->usage->prompt_tokens));
        BASE_TRY(st, out, wire_check_i64("finished.usage.new_tokens", m->usage->new_tokens));
    }
    if (m->timing != NULL) {
        BASE_TRY(st, out, wire_check_amount("finished.timing.queue_ms", m->timing->queue_ms));
        BASE_TRY(st, out, wire_check_amount("finished.timing.ttft_ms", m->timing->ttft_ms));
        BASE_TRY(st, out, wire_check_amount("finished.timing.tpot_ms", m->timing->tpot_ms));
        BASE_TRY(st, out, wire_check_amount("finished.timing.total_ms", m->timing->total_ms));
    }
    if (m->kv != NULL) {
        BASE_TRY(st, out, check_kv(m->kv));
    }
out:
    return st;
}

static base_status check(const ProtobufCMessage *message)
{
    const pb_event *m = (const pb_event *)message;
    base_status st = BASE_OK;

    switch (m->event_case) {
    case ROPEWALK__V1__GENERATE_RESPONSE__EVENT_PREFILL:
        BASE_TRY(st, out, wire_check_i64("prefill.total", m->prefill->total));
        return wire_check_int("prefill.done", m->prefill->done, 0, m->prefill->total);
    case ROPEWALK__V1__GENERATE_RESPONSE__EVENT_TOKENS: return check_tokens(m->tokens);
    case ROPEWALK__V1__GENERATE_RESPONSE__EVENT_FINISHED: return check_finished(m->finished);
    default: return BASE_FAIL(BASE_BAD_INPUT, "field 'event' is missing or of a newer protocol");
    }
out:
    return st;
}

/* ---- bytes to struct ---- */

static void build_tokens(wire_block *block, const pb_tokens *m, inference_event *e)
{
    e->kind = INFERENCE_EVENT_TOKENS;
    e->n_ids = m->n_ids;
    e->ids = wire_copy(block, m->ids, m->n_ids * sizeof(int32_t));
    e->text = wire_copy_view(block, m->text);
    e->n_logprobs = m->n_logprobs;
    inference_token_logprobs *all = wire_take(block, m->n_logprobs * sizeof *all);
    for (size_t i = 0; i < m->n_logprobs; i++) {
        const pb_logprobs *from = m->logprobs[i];
        inference_token_logprobs to = {.logprob = from->logprob, .n_top = (int32_t)from->n_top_ids};
        to.top_ids = wire_copy(block, from->top_ids, from->n_top_ids * sizeof(int32_t));
        to.top_logprobs = wire_copy(block, from->top_logprobs, from->n_top_ids * sizeof(float));
        if (all != NULL) {
            all[i] = to;
        }
    }
    e->logprobs = all;
}

static void build_finished(wire_block *block, const pb_finished *m, inference_event *e)
{
    inference_finished *f = &e->finished;

    e->kind = INFERENCE_EVENT_FINISHED;
    f->reason = (inference_finish_reason)m->reason;
    f->stop = wire_copy_view(block, m->stop);
    f->stop_id = (int32_t)m->stop_id;
    if (m->usage != NULL) {
        f->prompt_tokens = (int64_t)m->usage->prompt_tokens;
        f->new_tokens = (int64_t)m->usage->new_tokens;
        f->seed = m->usage->seed;
    }
    if (m->timing != NULL) {
        f->queue_ms = m->timing->queue_ms;
        f->ttft_ms = m->timing->ttft_ms;
        f->tpot_ms = m->timing->tpot_ms;
        f->total_ms = m->timing->total_ms;
    }
    if (m->kv != NULL) {
        const pb_kv *kv = m->kv;
        f->kv = (inference_kv_usage){
            .policy = wire_copy_view(block, kv->policy),
            .ranks = (int32_t)kv->ranks,
            .k_bits_per_element = kv->k_bits_per_element,
            .v_bits_per_element = kv->v_bits_per_element,
            .bytes_per_token = (int64_t)kv->bytes_per_token,
            .bf16_bytes_per_token = (int64_t)kv->bf16_bytes_per_token,
            .bytes_per_page = (int64_t)kv->bytes_per_rank_page,
            .blocks_per_rank =
                wire_copy(block, kv->blocks_per_rank, kv->n_blocks_per_rank * sizeof(int32_t)),
            .n_blocks_per_rank = kv->n_blocks_per_rank,
        };
    }
}

static void build(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_event *m = (const pb_event *)message;
    inference_event e = {.kind = INFERENCE_EVENT_PREFILL};

    if (m->event_case == ROPEWALK__V1__GENERATE_RESPONSE__EVENT_TOKENS) {
        build_tokens(block, m->tokens, &e);
    } else if (m->event_case == ROPEWALK__V1__GENERATE_RESPONSE__EVENT_FINISHED) {
        build_finished(block, m->finished, &e);
    } else {
        e.prefill_done = (int64_t)m->prefill->done;
        e.prefill_total = (int64_t)m->prefill->total;
    }
    if (result != NULL) {
        *(inference_event *)result = e;
    }
}

base_status inference_event_decode(base_view bytes, const base_alloc *mem, inference_event **out)
{
    static const wire_codec codec = {&ropewalk__v1__generate_response__descriptor,
                                     sizeof(inference_event), check, build};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    *out = result;
out:
    return st;
}

void inference_event_free(inference_event *event, const base_alloc *mem)
{
    mem->put(mem->ctx, event);
}

/* ---- struct to bytes ---- */

static base_status encode_tokens(const inference_event *event, pb_event *m, base_bytes *out)
{
    base_status st = BASE_OK;
    const base_alloc mem = out->mem;
    pb_tokens tokens = ROPEWALK__V1__TOKENS__INIT;
    pb_logprobs *all = NULL;
    const size_t n = event->n_logprobs;

    tokens.n_ids = event->n_ids;
    tokens.ids = wire_u32s(event->ids);
    tokens.text = wire_bytes(event->text);
    tokens.n_logprobs = n;
    if (n > 0) {
        size_t n_bytes;
        if (base_checked_mul(n, sizeof *all + sizeof *tokens.logprobs, &n_bytes)) {
            all = mem.get(mem.ctx, n_bytes); /* [n], then [n] pointers to them */
        }
        if (all == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "log probabilities of %zu tokens", n);
            goto out;
        }
        tokens.logprobs = (pb_logprobs **)(void *)(all + n);
        for (size_t i = 0; i < n; i++) {
            const inference_token_logprobs *from = &event->logprobs[i];
            all[i] = (pb_logprobs)ROPEWALK__V1__TOKEN_LOGPROBS__INIT;
            all[i].logprob = from->logprob;
            all[i].n_top_ids = (size_t)from->n_top;
            all[i].top_ids = wire_u32s(from->top_ids);
            all[i].n_top_logprobs = (size_t)from->n_top;
            all[i].top_logprobs = wire_f32s(from->top_logprobs);
            tokens.logprobs[i] = &all[i];
        }
    }
    m->event_case = ROPEWALK__V1__GENERATE_RESPONSE__EVENT_TOKENS;
    m->tokens = &tokens;
    BASE_TRY(st, out, wire_encode(&m->base, out));
out:
    mem.put(mem.ctx, all);
    return st;
}

static base_status encode_finished(const inference_finished *f, pb_event *m, base_bytes *out)
{
    const inference_kv_usage *from = &f->kv;
    pb_finished finished = ROPEWALK__V1__FINISHED__INIT;
    pb_usage usage = ROPEWALK__V1__USAGE__INIT;
    pb_timing timing = ROPEWALK__V1__TIMING__INIT;
    pb_kv kv = ROPEWALK__V1__KV_USAGE__INIT;

    usage.prompt_tokens = (uint64_t)f->prompt_tokens;
    usage.new_tokens = (uint64_t)f->new_tokens;
    usage.seed = f->seed;

    timing.queue_ms = f->queue_ms;
    timing.ttft_ms = f->ttft_ms;
    timing.tpot_ms = f->tpot_ms;
    timing.total_ms = f->total_ms;

    kv.policy = wire_bytes(from->policy);
    kv.ranks = (uint32_t)from->ranks;
    kv.k_bits_per_element = from->k_bits_per_element;
    kv.v_bits_per_element = from->v_bits_per_element;
    kv.bytes_per_token = (uint64_t)from->bytes_per_token;
    kv.bf16_bytes_per_token = (uint64_t)from->bf16_bytes_per_token;
    kv.bytes_per_rank_page = (uint64_t)from->bytes_per_page;
    kv.n_blocks_per_rank = from->n_blocks_per_rank;
    kv.blocks_per_rank = wire_u32s(from->blocks_per_rank);

    finished.reason = (Ropewalk__V1__FinishReason)f->reason;
    finished.stop = wire_bytes(f->stop);
    finished.stop_id = (uint32_t)f->stop_id;
    finished.usage = &usage;
    finished.timing = &timing;
    finished.kv = &kv;
    m->event_case = ROPEWALK__V1__GENERATE_RESPONSE__EVENT_FINISHED;
    m->finished = &finished;
    return wire_encode(&m->base, out);
}

base_status inference_event_encode(const inference_event *event, base_bytes *out)
{
    pb_event m = ROPEWALK__V1__GENERATE_RESPONSE__INIT;
    Ropewalk__V1__Prefill prefill = ROPEWALK__V1__PREFILL__INIT;

    switch (event->kind) {
    case INFERENCE_EVENT_TOKENS: return encode_tokens(event, &m, out);
    case INFERENCE_EVENT_FINISHED: return encode_finished(&event->finished, &m, out);
    case INFERENCE_EVENT_PREFILL: break;
    }
    prefill.done = (uint64_t)event->prefill_done;
    prefill.total = (uint64_t)event->prefill_total;
    m.event_case = ROPEWALK__V1__GENERATE_RESPONSE__EVENT_PREFILL;
    m.prefill = &prefill;
    return wire_encode(&m.base, out);
}
