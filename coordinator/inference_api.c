/* ropewalk.v1.Inference: Generate, Tokenize, Detokenize, ModelInfo. */
#include "coordinator/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define MAX_TOKENIZE_IDS ((size_t)1 << 24) /* of one reply: at most 48 MiB */

/* ---- what all of them need ---- */

static void refuse(coordinator *c, rpc_call *call, rpc_code code, const char *text)
{
    coord_lock(c);
    c->n_ended[COORD_END_REFUSED]++;
    coord_unlock(c);
    rpc_call_finish(call, code, text);
}

static void refuse_status(coordinator *c, rpc_call *call, base_status st)
{
    refuse(c, call, rpc_code_of(st), base_last_error());
}

/* NULL until a group has brought it.  It stays for good, so no lock is needed afterwards. */
static const coord_model *find_model(coordinator *c)
{
    coord_lock(c);
    const coord_model *model = c->model;
    coord_unlock(c);
    return model;
}

static base_status no_group(void)
{
    return BASE_FAIL(BASE_UNAVAILABLE, "no worker group is attached");
}

static void reply(coordinator *c, rpc_call *call, base_status st, const base_bytes *bytes)
{
    if (st == BASE_OK) {
        st = rpc_call_send(call, base_bytes_view(bytes));
        if (st == BASE_CANCELLED) {
            return;
        }
    }
    if (st == BASE_OK) {
        rpc_call_finish(call, RPC_OK, NULL);
    } else {
        refuse_status(c, call, st);
    }
}

/* ---- Generate ---- */

/* Is there any hope for a new request?  Mutex held. */
static base_status check_open(const coordinator *c)
{
    if (c->draining) {
        return BASE_FAIL(BASE_UNAVAILABLE, "the coordinator is shutting down");
    }
    if (c->n_groups == 0) {
        return no_group();
    }
    if (c->queue.n_waiting >= c->queue.max_waiting) {
        return BASE_FAIL(BASE_EXHAUSTED, "%d requests wait, the limit is %d",
                         (int)c->queue.n_waiting, (int)c->queue.max_waiting);
    }
    return BASE_OK;
}

static base_status look(coordinator *c, const coord_model **model_out, int64_t *max_context_out)
{
    coord_lock(c);
    const base_status st = check_open(c);
    if (st == BASE_OK) {
        int64_t longest = 0;
        for (const coord_group *g = c->groups; g != NULL; g = g->next) {
            longest = g->max_context > longest ? g->max_context : longest;
        }
        *model_out = c->model;
        *max_context_out = longest;
    }
    coord_unlock(c);
    return st;
}

static base_status check_name(const coord_model *model, base_view name)
{
    if (name.n_bytes == 0 || base_view_equal(name, model->name)) {
        return BASE_OK;
    }
    const int n = name.n_bytes < 128 ? (int)name.n_bytes : 128;
    return BASE_FAIL(BASE_NOT_FOUND, "model '%.*s' is not served here; '%s' is", n, name.data,
                     model->name.data);
}

static base_status tokenise(const coord_model *model, const inference_generate_request *wire,
                            int64_t max_context, text_ids *ids)
{
    const text_encode_options options = {
        .add_special = true,
        .parse_special = true,
        .max_ids = (size_t)max_context,
    };
    base_status st = coord_model_check_text(model, "prompt.text");
    if (st != BASE_OK) {
        return st;
    }
    st = text_encode(model->tokenizer, wire->text, options, ids);
    if (st == BASE_OUT_OF_RANGE) {
        return BASE_FAIL(BASE_OUT_OF_RANGE,
                         "prompt.text has more than max_context %" PRId64 " tokens", max_context);
    }
    return st;
}

static base_status draw_seed(uint64_t *seed_out)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        return BASE_FAIL(BASE_IO, "no random seed from the system");
    }
    *seed_out = seed;
    return BASE_OK;
}

/* Puts the request in the queue; from then on the coordinator owns it. */
static base_status enqueue(coordinator *c, rpc_call *call, coord_request *request)
{
    const int64_t now_us = base_now_us();
    const int64_t left_us = rpc_call_time_left_us(call);

    rpc_call_ref(call);
    request->call = call;
    request->ticket.deadline_us = left_us == INT64_MAX ? INT64_MAX : now_us + left_us;
    coord_lock(c);
    base_status st = check_open(c); /* again: tokenising took its time */
    if (st == BASE_OK) {
        st = coord_queue_add(&c->queue, &request->ticket, now_us);
    }
    if (st == BASE_OK) {
        c->n_live++;
        rpc_call_set_user(call, request);
        coord_dispatch(c);
    }
    coord_unlock(c);
    return st;
}

static void on_generate(void *ctx, rpc_call *call, base_view message)
{
    base_status st = BASE_OK;
    coordinator *c = ctx;
    const int64_t arrived_us = base_now_us();
    inference_generate_request *wire = NULL;
    coord_request *request = NULL;
    const coord_model *model = NULL;
    int64_t max_context = 0;
    uint64_t seed = 0;
    text_ids ids;

    text_ids_init(&ids, &c->mem);
    BASE_TRY(st, out, inference_generate_request_decode(message, &c->mem, &wire));
    BASE_TRY(st, out, look(c, &model, &max_context));
    BASE_TRY(st, out, check_name(model, wire->model));
    BASE_TRY(st, out, draw_seed(&seed));
    if (wire->has_text) {
        BASE_TRY(st, out, tokenise(model, wire, max_context, &ids));
    }
    BASE_TRY(st, out,
             coord_request_create(model, wire, wire->has_text ? ids.ids : wire->prompt_ids,
                                  wire->has_text ? ids.n_ids : wire->n_prompt_ids, max_context,
                                  seed, arrived_us, &c->mem, &request));
    BASE_TRY(st, out, enqueue(c, call, request));
    request = NULL;

out:
    if (st != BASE_OK) {
        refuse_status(c, call, st);
    }
    coord_request_destroy(request);
    text_ids_reset(&ids);
    inference_generate_request_free(wire);
}

static void on_generate_drained(void *ctx, rpc_call *call)
{
    coordinator *c = ctx;

    coord_lock(c);
    coord_request *request = rpc_call_user(call);
    if (request != NULL) {
        coord_take_drained(c, request);
    }
    coord_unlock(c);
}

static void on_generate_close(void *ctx, rpc_call *call)
{
    coordinator *c = ctx;

    coord_lock(c);
    coord_request *request = rpc_call_user(call);
    if (request != NULL) {
        coord_end_request(c, request, COORD_END_CANCELLED, RPC_CANCELLED, NULL);
        coord_dispatch(c);
    }
    coord_unlock(c);
}

/* ---- the others ---- */

static void on_tokenize(void *ctx, rpc_call *call, base_view message)
{
    base_status st = BASE_OK;
    coordinator *c = ctx;
    inference_tokenize_request *wire = NULL;
    const coord_model *model = NULL;
    text_ids ids;
    base_bytes bytes;

    text_ids_init(&ids, &c->mem);
    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &c->mem);
    BASE_TRY(st, out, inference_tokenize_request_decode(message, &c->mem, &wire));
    model = find_model(c);
    if (model == NULL) {
        st = no_group();
        goto out;
    }
    const text_encode_options options = {.add_special = wire->add_special,
                                         .parse_special = wire->parse_special,
                                         .max_ids = MAX_TOKENIZE_IDS};
    BASE_TRY(st, out, coord_model_check_text(model, "text"));
    st = text_encode(model->tokenizer, wire->text, options, &ids);
    if (st == BASE_OUT_OF_RANGE) {
        st = BASE_FAIL(BASE_OUT_OF_RANGE, "text has more than %zu tokens", MAX_TOKENIZE_IDS);
    }
    if (st == BASE_OK) {
        st = inference_tokenize_response_encode(ids.ids, ids.n_ids, &bytes);
    }

out:
    reply(c, call, st, &bytes);
    base_bytes_reset(&bytes);
    text_ids_reset(&ids);
    inference_tokenize_request_free(wire);
}

static void on_detokenize(void *ctx, rpc_call *call, base_view message)
{
    base_status st = BASE_OK;
    coordinator *c = ctx;
    inference_detokenize_request *wire = NULL;
    const coord_model *model = NULL;
    base_bytes text;
    base_bytes bytes;

    base_bytes_init(&text, RPC_MAX_MESSAGE_BYTES, &c->mem);
    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &c->mem);
    BASE_TRY(st, out, inference_detokenize_request_decode(message, &c->mem, &wire));
    model = find_model(c);
    if (model == NULL) {
        st = no_group();
        goto out;
    }
    BASE_TRY(st, out, coord_model_check_text(model, "token_ids"));
    BASE_TRY(
        st, out,
        text_decode_shown(model->tokenizer, wire->ids, wire->n_ids, wire->skip_special, &text));
    BASE_TRY(st, out, inference_detokenize_response_encode(base_bytes_view(&text), &bytes));

out:
    reply(c, call, st, &bytes);
    base_bytes_reset(&text);
    base_bytes_reset(&bytes);
    inference_detokenize_request_free(wire);
}

/* Mutex held. */
static base_status encode_info(const coordinator *c, base_bytes *bytes)
{
    const coord_model *model = c->model;
    const coord_group *first = c->groups;

    if (model == NULL) {
        return no_group();
    }
    const inference_model_info info = {
        .model = model->name,
        .model_hash = model->model_hash,
        .policy = model->policy,
        .policy_hash = model->policy_hash,
        .build = model->build,
        .vocab_size = model->vocab_size,
        .max_context = first == NULL ? 0 : first->max_context,
        .n_layers = model->n_layers,
        .n_heads = model->n_heads,
        .n_kv_heads = model->n_kv_heads,
        .head_dim = model->head_dim,
        .groups = c->n_groups,
        .ranks = first == NULL ? 0 : first->ranks,
        .block_tokens = COORD_BLOCK_TOKENS,
        .blocks_total_per_rank = first == NULL ? NULL : first->blocks_total,
        .blocks_free_per_rank = first == NULL ? NULL : first->blocks_said,
        .running = c->n_live - c->queue.n_waiting,
        .waiting = c->queue.n_waiting,
        .requests_finished = c->n_ended[COORD_END_FINISHED],
        .requests_cancelled = c->n_ended[COORD_END_CANCELLED],
        .requests_refused = c->n_ended[COORD_END_REFUSED],
        .k_bits_per_element = model->k_bits_per_element,
        .v_bits_per_element = model->v_bits_per_element,
        .bytes_per_token = model->bytes_per_token,
        .bytes_per_page = model->bytes_per_page,
        .weight_bytes_per_rank = first == NULL ? NULL : first->weight_bytes,
        .exchange = base_view_of(first == NULL ? NULL : first->exchange),
    };
    return inference_model_info_encode(&info, bytes);
}

static void on_model_info(void *ctx, rpc_call *call, base_view message)
{
    coordinator *c = ctx;
    base_bytes bytes;

    (void)message; /* the request has no fields */
    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &c->mem);
    coord_lock(c);
    const base_status st = encode_info(c, &bytes);
    coord_unlock(c);
    reply(c, call, st, &bytes);
    base_bytes_reset(&bytes);
}

void coord_inference_methods(coordinator *c, rpc_method methods_out[COORD_N_INFERENCE_METHODS])
{
    methods_out[0] = (rpc_method){.path = "/ropewalk.v1.Inference/Generate",
                                  .ctx = c,
                                  .on_message = on_generate,
                                  .on_drained = on_generate_drained,
                                  .on_close = on_generate_close};
    methods_out[1] = (rpc_method){
        .path = "/ropewalk.v1.Inference/Tokenize", .ctx = c, .on_message = on_tokenize};
    methods_out[2] = (rpc_method){
        .path = "/ropewalk.v1.Inference/Detokenize", .ctx = c, .on_message = on_detokenize};
    methods_out[3] = (rpc_method){
        .path = "/ropewalk.v1.Inference/ModelInfo", .ctx = c, .on_message = on_model_info};
}
