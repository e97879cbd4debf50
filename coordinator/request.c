#include "coordinator/request.h"

#include <inttypes.h>
#include <string.h>

#define FIRST_MADE 64 /* tokens of output to start with */

/* ---- making one ---- */

static base_status check_ids(const char *field, const int32_t *ids, size_t n_ids,
                             int32_t vocab_size)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= vocab_size) {
            return BASE_FAIL(BASE_BAD_INPUT, "%s[%zu] is %d, the vocabulary has %d ids", field, i,
                             (int)ids[i], (int)vocab_size);
        }
    }
    return BASE_OK;
}

/* What the request asks for, or what fits when it does not say. */
static base_status choose_max_new(const coord_model *model, const inference_generate_request *wire,
                                  size_t n_prompt, int64_t max_context, int32_t *max_new_out)
{
    const bool given = (wire->given & INFERENCE_GIVEN_MAX_NEW_TOKENS) != 0;
    const int64_t left = max_context - (int64_t)n_prompt;
    int64_t max_new = given ? wire->max_new_tokens : model->defaults.max_new_tokens;

    if (!given && max_new > left) {
        max_new = left > 1 ? left : 1;
    }
    if (max_new > left) {
        return BASE_FAIL(BASE_OUT_OF_RANGE,
                         "prompt of %zu tokens and max_new_tokens %" PRId64
                         " are above max_context %" PRId64,
                         n_prompt, max_new, max_context);
    }
    *max_new_out = (int32_t)max_new;
    return BASE_OK;
}

static int32_t *copy_ids(const int32_t *ids, size_t n_ids, const base_alloc *mem)
{
    int32_t *copy = mem->get(mem->ctx, (n_ids + 1) * sizeof *copy);
    if (copy != NULL && n_ids > 0) {
        memcpy(copy, ids, n_ids * sizeof *copy);
    }
    return copy;
}

static base_status copy_stops(coord_request *request, const inference_generate_request *wire)
{
    size_t n_bytes = 0;

    for (size_t i = 0; i < wire->n_stops; i++) {
        n_bytes += wire->stops[i].n_bytes; /* both bounded by the codec */
    }
    request->stop_texts = request->mem.get(request->mem.ctx, n_bytes + 1);
    if (request->stop_texts == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "stop strings of %zu bytes", n_bytes);
    }
    char *at = request->stop_texts;
    for (size_t i = 0; i < wire->n_stops; i++) {
        memcpy(at, wire->stops[i].data, wire->stops[i].n_bytes);
        request->stops[i] = (base_view){at, wire->stops[i].n_bytes};
        at += wire->stops[i].n_bytes;
    }
    request->n_stops = wire->n_stops;
    return BASE_OK;
}

base_status coord_request_create(const coord_model *model, const inference_generate_request *wire,
                                 const int32_t *prompt, size_t n_prompt, int64_t max_context,
                                 uint64_t drawn_seed, int64_t now_us, const base_alloc *mem,
                                 coord_request **request_out)
{
    base_status st = BASE_OK;
    coord_request *request = NULL;
    int32_t max_new_tokens = 0;

    if (n_prompt == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "prompt has 0 tokens, allowed 1 and more");
        goto out;
    }
    BASE_TRY(st, out, check_ids("prompt.token_ids", prompt, n_prompt, model->vocab_size));
    BASE_TRY(
        st, out,
        check_ids("stopping.stop_token_ids", wire->stop_ids, wire->n_stop_ids, model->vocab_size));
    BASE_TRY(st, out, choose_max_new(model, wire, n_prompt, max_context, &max_new_tokens));

    request = mem->get(mem->ctx, sizeof *request);
    if (request == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "request");
        goto out;
    }
    request->mem = *mem;
    request->model = model;
    request->prompt = copy_ids(prompt, n_prompt, mem);
    request->stop_ids = copy_ids(wire->stop_ids, wire->n_stop_ids, mem);
    if (request->prompt == NULL || request->stop_ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "prompt of %zu tokens", n_prompt);
        goto out;
    }
    request->n_prompt = n_prompt;
    request->n_stop_ids = wire->n_stop_ids;
    BASE_TRY(st, out, copy_stops(request, wire));
    if (model->tokenizer != NULL) {
        BASE_TRY(st, out,
                 text_stream_create(model->tokenizer, request->stops, request->n_stops,
                                    wire->include_stop, mem, &request->text));
    } else if (request->n_stops > 0) {
        BASE_TRY(st, out, coord_model_check_text(model, "stopping.stop"));
    }
    request->sampling = coord_defaults_apply(&model->defaults, wire);
    if ((wire->given & INFERENCE_GIVEN_SEED) == 0) {
        request->sampling.seed = drawn_seed;
    }
    request->max_new_tokens = max_new_tokens;
    request->ignore_eos = wire->ignore_eos;
    request->logprobs = wire->logprobs;
    request->stop = -1;
    request->arrived_us = now_us;
    request->ticket.n_tokens = (int64_t)n_prompt + max_new_tokens;
    request->ticket.deadline_us = INT64_MAX;
    *request_out = request;
    request = NULL;

out:
    coord_request_destroy(request);
    return st;
}

void coord_request_destroy(coord_request *request)
{
    if (request == NULL) {
        return;
    }
    const base_alloc mem = request->mem;
    if (request->call != NULL) {
        rpc_call_unref(request->call);
    }
    text_stream_destroy(request->text);
    mem.put(mem.ctx, request->prompt);
    mem.put(mem.ctx, request->made);
    mem.put(mem.ctx, request->stop_ids);
    mem.put(mem.ctx, request->stop_texts);
    mem.put(mem.ctx, request);
}

/* ---- to the group ---- */

base_status coord_request_encode_admit(coord_request *request, uint64_t seq, int32_t start_rank,
                                       base_bytes *out)
{
    base_status st = BASE_OK;
    const base_alloc *mem = &request->mem;
    const coord_defaults *defaults = &request->model->defaults;
    const size_t n_all = request->n_prompt + request->n_made;
    int32_t *all = mem->get(mem->ctx, n_all * sizeof *all);

    if (all == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "prompt of %zu tokens", n_all);
        goto out;
    }
    memcpy(all, request->prompt, request->n_prompt * sizeof *all);
    if (request->n_made > 0) {
        memcpy(all + request->n_prompt, request->made, request->n_made * sizeof *all);
    }
    /* What still lies in the client's queue stays counted: a replay brings no second window. */
    const int32_t window = COORD_WINDOW - request->in_flight;
    const group_down down = {
        .kind = GROUP_DOWN_ADMIT,
        .seq = seq,
        .admit = {.prompt = all,
                  .n_prompt = n_all,
                  .n_sent = (int32_t)request->n_made,
                  .start_rank = start_rank,
                  .sampling = request->sampling,
                  .max_new_tokens = request->max_new_tokens,
                  .stop_ids = request->stop_ids,
                  .n_stop_ids = request->n_stop_ids,
                  .eos_ids = defaults->eos_ids,
                  .n_eos_ids = request->ignore_eos ? 0 : defaults->n_eos_ids,
                  .logprobs = request->logprobs,
                  .credit = window},
    };
    BASE_TRY(st, out, group_down_encode(&down, out));
    request->window = window;
    request->returnable = 0;

out:
    mem->put(mem->ctx, all);
    return st;
}

int32_t coord_request_take_drained(coord_request *request)
{
    request->returnable += request->in_flight;
    request->in_flight = 0;
    const bool at_group =
        request->state == COORD_REQUEST_ADMITTED || request->state == COORD_REQUEST_RUNNING;
    if (!at_group || request->returnable < COORD_CREDIT_LEAST) {
        return 0;
    }
    const int32_t credit = request->returnable;
    request->window += credit;
    request->returnable = 0;
    return credit;
}

/* ---- to the client ---- */

static base_status reserve_made(coord_request *request, size_t n_more)
{
    const size_t need = request->n_made + n_more;
    size_t capacity = request->made_capacity < FIRST_MADE ? FIRST_MADE : request->made_capacity;

    if (need <= request->made_capacity) {
        return BASE_OK;
    }
    while (capacity < need) {
        capacity *= 2; /* need is bounded by INFERENCE_MAX_NEW_TOKENS */
    }
    int32_t *grown = request->mem.get(request->mem.ctx, capacity * sizeof *grown);
    if (grown == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "output of %zu tokens", capacity);
    }
    if (request->n_made > 0) {
        memcpy(grown, request->made, request->n_made * sizeof *grown);
    }
    request->mem.put(request->mem.ctx, request->made);
    request->made = grown;
    request->made_capacity = capacity;
    return BASE_OK;
}

static base_status check_tokens(const coord_request *request, const group_up *up)
{
    if (up->n_ids > (size_t)request->window) {
        return BASE_FAIL(BASE_BAD_INPUT, "the group sent %zu tokens, its credit is %d", up->n_ids,
                         (int)request->window);
    }
    if (up->n_ids > (size_t)request->max_new_tokens - request->n_made) {
        return BASE_FAIL(BASE_BAD_INPUT, "the group sent more than max_new_tokens %d",
                         (int)request->max_new_tokens);
    }
    return check_ids("tokens.ids", up->ids, up->n_ids, request->model->vocab_size);
}

/* The logprobs of the first n tokens, as far as they were asked for and came. */
static size_t view_logprobs(const coord_request *request, const group_up *up, size_t n,
                            inference_token_logprobs out[COORD_WINDOW])
{
    if (request->logprobs == 0 || up->logprobs == NULL) {
        return 0;
    }
    const int32_t n_top = up->n_top < request->logprobs ? up->n_top : request->logprobs;
    for (size_t i = 0; i < n; i++) {
        out[i] = (inference_token_logprobs){.logprob = up->logprobs[i]};
        if (n_top > 0 && up->top_ids != NULL && up->top_logprobs != NULL) {
            out[i].n_top = n_top;
            out[i].top_ids = up->top_ids + i * (size_t)up->n_top;
            out[i].top_logprobs = up->top_logprobs + i * (size_t)up->n_top;
        }
    }
    return n;
}

base_status coord_request_take_tokens(coord_request *request, const group_up *up, int64_t now_us,
                                      base_bytes *event_out, int32_t *n_taken_out)
{
    base_status st = BASE_OK;
    size_t n_taken = 0;
    base_bytes text;
    inference_token_logprobs logprobs[COORD_WINDOW];

    base_bytes_init(&text, COORD_MAX_EVENT, &request->mem);
    BASE_TRY(st, out, check_tokens(request, up));
    BASE_TRY(st, out, reserve_made(request, up->n_ids));
    const text_tokenizer *tokenizer = request->model->tokenizer;
    const int32_t n_known = tokenizer == NULL ? 0 : text_tokenizer_vocab_size(tokenizer);
    while (n_taken < up->n_ids && request->stop < 0) {
        const int32_t id = up->ids[n_taken++];
        request->made[request->n_made++] = id;
        if (id < n_known) { /* a padded embedding has ids without text */
            BASE_TRY(st, out, text_stream_add(request->text, id, &text, &request->stop));
        }
    }
    const inference_event event = {
        .kind = INFERENCE_EVENT_TOKENS,
        .ids = up->ids,
        .n_ids = n_taken,
        .text = base_bytes_view(&text),
        .logprobs = logprobs,
        .n_logprobs = view_logprobs(request, up, n_taken, logprobs),
    };
    BASE_TRY(st, out, inference_event_encode(&event, event_out));
    request->window -= (int32_t)up->n_ids;
    request->in_flight += (int32_t)n_taken;
    request->n_placements = 0;
    if (n_taken > 0) {
        request->first_token_us = request->first_token_us == 0 ? now_us : request->first_token_us;
        request->last_token_us = now_us;
    }
    *n_taken_out = (int32_t)n_taken;

out:
    base_bytes_reset(&text);
    return st;
}

static bool holds(const int32_t *ids, size_t n_ids, int32_t id)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

inference_finish_reason coord_request_is_complete(const coord_request *request,
                                                  int32_t *stop_id_out)
{
    const coord_defaults *defaults = &request->model->defaults;

    if (request->n_made == 0) {
        return INFERENCE_FINISH_UNSPECIFIED;
    }
    const int32_t last = request->made[request->n_made - 1];
    if (!request->ignore_eos && holds(defaults->eos_ids, defaults->n_eos_ids, last)) {
        *stop_id_out = last;
        return INFERENCE_FINISH_EOS;
    }
    if (holds(request->stop_ids, request->n_stop_ids, last)) {
        *stop_id_out = last;
        return INFERENCE_FINISH_STOP_TOKEN;
    }
    return request->n_made >= (size_t)request->max_new_tokens ? INFERENCE_FINISH_LENGTH
                                                              : INFERENCE_FINISH_UNSPECIFIED;
}

base_status coord_request_encode_rest(coord_request *request, base_bytes *event_out)
{
    base_status st = BASE_OK;
    base_bytes text;

    base_bytes_init(&text, COORD_MAX_EVENT, &request->mem);
    if (request->stop < 0 && request->text != NULL) {
        BASE_TRY(st, out, text_stream_finish(request->text, &text));
    }
    if (text.n_bytes > 0) {
        const inference_event event = {.kind = INFERENCE_EVENT_TOKENS,
                                       .text = base_bytes_view(&text)};
        BASE_TRY(st, out, inference_event_encode(&event, event_out));
    }

out:
    base_bytes_reset(&text);
    return st;
}

static double ms(int64_t from_us, int64_t to_us)
{
    return from_us == 0 || to_us < from_us ? 0 : (double)(to_us - from_us) / 1000;
}

base_status coord_request_encode_finished(const coord_request *request,
                                          inference_finish_reason reason, int32_t stop_id,
                                          int32_t ranks, const int32_t *blocks_per_rank,
                                          size_t n_blocks_per_rank, int64_t now_us,
                                          base_bytes *event_out)
{
    const coord_model *model = request->model;
    const int64_t bf16_bytes = (int64_t)model->n_layers * model->n_kv_heads * model->head_dim *
                               2 /* K and V */ * 2 /* bytes */;
    const size_t n_gaps = request->n_made > 1 ? request->n_made - 1 : 0;
    const inference_event event = {
        .kind = INFERENCE_EVENT_FINISHED,
        .finished =
            {
                .reason = reason,
                .stop = reason == INFERENCE_FINISH_STOP_STRING ? request->stops[request->stop]
                                                               : (base_view){NULL, 0},
                .stop_id = stop_id,
                .prompt_tokens = (int64_t)request->n_prompt,
                .new_tokens = (int64_t)request->n_made,
                .seed = request->sampling.seed,
                .queue_ms = ms(request->arrived_us, request->admitted_us),
                .ttft_ms = ms(request->arrived_us, request->first_token_us),
                .tpot_ms = n_gaps == 0 ? 0
                                       : ms(request->first_token_us, request->last_token_us) /
                                             (double)n_gaps,
                .total_ms = ms(request->arrived_us, now_us),
                .kv = {.policy = model->policy,
                       .ranks = ranks,
                       .k_bits_per_element = model->k_bits_per_element,
                       .v_bits_per_element = model->v_bits_per_element,
                       .bytes_per_token = model->bytes_per_token,
                       .bf16_bytes_per_token = bf16_bytes,
                       .bytes_per_page = model->bytes_per_page,
                       .blocks_per_rank = blocks_per_rank,
                       .n_blocks_per_rank = n_blocks_per_rank},
            },
    };
    return inference_event_encode(&event, event_out);
}
