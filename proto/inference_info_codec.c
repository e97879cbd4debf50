/* Tokenize, Detokenize and ModelInfo: the calls that no sequence comes of. */
#include "proto/inference.pb-c.h"
#include "proto/inference_codec.h"
#include "proto/wire.h"

typedef Ropewalk__V1__TokenizeRequest pb_tokenize;
typedef Ropewalk__V1__DetokenizeRequest pb_detokenize;
typedef Ropewalk__V1__ModelInfoResponse pb_info;

/* ---- Tokenize ---- */

static base_status check_tokenize(const ProtobufCMessage *message)
{
    return wire_check_text("text", ((const pb_tokenize *)message)->text);
}

static void build_tokenize(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_tokenize *m = (const pb_tokenize *)message;
    const inference_tokenize_request r = {
        .text = wire_copy_view(block, m->text),
        .add_special = m->add_special != 0,
        .parse_special = m->parse_special != 0,
    };
    if (result != NULL) {
        *(inference_tokenize_request *)result = r;
    }
}

base_status inference_tokenize_request_decode(base_view bytes, const base_alloc *mem,
                                              inference_tokenize_request **out)
{
    static const wire_codec codec = {&ropewalk__v1__tokenize_request__descriptor,
                                     sizeof(inference_tokenize_request), check_tokenize,
                                     build_tokenize};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    inference_tokenize_request *request = result;
    request->mem = *mem;
    *out = request;
out:
    return st;
}

void inference_tokenize_request_free(inference_tokenize_request *request)
{
    if (request != NULL) {
        const base_alloc mem = request->mem;
        mem.put(mem.ctx, request);
    }
}

base_status inference_tokenize_response_encode(const int32_t *ids, size_t n_ids, base_bytes *out)
{
    Ropewalk__V1__TokenizeResponse m = ROPEWALK__V1__TOKENIZE_RESPONSE__INIT;
    m.n_ids = n_ids;
    m.ids = wire_u32s(ids);
    return wire_encode(&m.base, out);
}

/* ---- Detokenize ---- */

static base_status check_detokenize(const ProtobufCMessage *message)
{
    const pb_detokenize *m = (const pb_detokenize *)message;
    return wire_check_i32s("ids", m->ids, m->n_ids);
}

static void build_detokenize(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_detokenize *m = (const pb_detokenize *)message;
    const inference_detokenize_request r = {
        .ids = wire_copy(block, m->ids, m->n_ids * sizeof(int32_t)),
        .n_ids = m->n_ids,
        .skip_special = m->skip_special != 0,
    };
    if (result != NULL) {
        *(inference_detokenize_request *)result = r;
    }
}

base_status inference_detokenize_request_decode(base_view bytes, const base_alloc *mem,
                                                inference_detokenize_request **out)
{
    static const wire_codec codec = {&ropewalk__v1__detokenize_request__descriptor,
                                     sizeof(inference_detokenize_request), check_detokenize,
                                     build_detokenize};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    inference_detokenize_request *request = result;
    request->mem = *mem;
    *out = request;
out:
    return st;
}

void inference_detokenize_request_free(inference_detokenize_request *request)
{
    if (request != NULL) {
        const base_alloc mem = request->mem;
        mem.put(mem.ctx, request);
    }
}

base_status inference_detokenize_response_encode(base_view text, base_bytes *out)
{
    Ropewalk__V1__DetokenizeResponse m = ROPEWALK__V1__DETOKENIZE_RESPONSE__INIT;
    m.text = wire_bytes(text);
    return wire_encode(&m.base, out);
}

/* ---- ModelInfo ---- */

/* X(field): what is the same in message and struct but for its sign, by type. */
#define INFO_TEXTS(X) X(model) X(model_hash) X(policy) X(policy_hash) X(build) X(exchange)
#define INFO_SHAPES(X) \
    X(vocab_size) X(n_layers) X(n_heads) X(n_kv_heads) X(head_dim) X(block_tokens)
#define INFO_COUNTS(X)  X(groups) X(ranks) X(running) X(waiting)
#define INFO_TOTALS(X)  X(requests_finished) X(requests_cancelled) X(requests_refused)
#define INFO_LENGTHS(X) X(max_context) X(bytes_per_token) X(bytes_per_page)

static base_status check_info(const ProtobufCMessage *message)
{
    const pb_info *m = (const pb_info *)message;
    base_status st = BASE_OK;

#define CHECK(field) BASE_TRY(st, out, wire_check_text(#field, m->field));
    INFO_TEXTS(CHECK)
#undef CHECK
#define CHECK(field) BASE_TRY(st, out, wire_check_i32(#field, m->field));
    INFO_SHAPES(CHECK)
    INFO_COUNTS(CHECK)
#undef CHECK
#define CHECK(field) BASE_TRY(st, out, wire_check_i64(#field, m->field));
    INFO_TOTALS(CHECK)
    INFO_LENGTHS(CHECK)
#undef CHECK
    BASE_TRY(st, out, wire_check_amount("k_bits_per_element", m->k_bits_per_element));
    BASE_TRY(st, out, wire_check_amount("v_bits_per_element", m->v_bits_per_element));
    BASE_TRY(st, out,
             wire_check_same("blocks_total_per_rank", m->n_blocks_total_per_rank, m->ranks));
    BASE_TRY(st, out, wire_check_same("blocks_free_per_rank", m->n_blocks_free_per_rank, m->ranks));
    BASE_TRY(st, out, wire_check_i64s("blocks_total_per_rank", m->blocks_total_per_rank, m->ranks));
    BASE_TRY(st, out, wire_check_i64s("blocks_free_per_rank", m->blocks_free_per_rank, m->ranks));
    BASE_TRY(st, out,
             wire_check_same("weight_bytes_per_rank", m->n_weight_bytes_per_rank, m->ranks));
    BASE_TRY(st, out, wire_check_i64s("weight_bytes_per_rank", m->weight_bytes_per_rank, m->ranks));
out:
    return st;
}

static void build_info(wire_block *block, const ProtobufCMessage *message, void *result)
{
    const pb_info *m = (const pb_info *)message;
    inference_model_info info = {
        .k_bits_per_element = m->k_bits_per_element,
        .v_bits_per_element = m->v_bits_per_element,
        .blocks_total_per_rank =
            wire_copy(block, m->blocks_total_per_rank, m->ranks * sizeof(int64_t)),
        .blocks_free_per_rank =
            wire_copy(block, m->blocks_free_per_rank, m->ranks * sizeof(int64_t)),
        .weight_bytes_per_rank =
            wire_copy(block, m->weight_bytes_per_rank, m->ranks * sizeof(int64_t)),
    };

#define BUILD(field) info.field = wire_copy_view(block, m->field);
    INFO_TEXTS(BUILD)
#undef BUILD
#define BUILD(field) info.field = (int32_t)m->field;
    INFO_SHAPES(BUILD)
    INFO_COUNTS(BUILD)
#undef BUILD
#define BUILD(field) info.field = (int64_t)m->field;
    INFO_TOTALS(BUILD)
    INFO_LENGTHS(BUILD)
#undef BUILD
    if (result != NULL) {
        *(inference_model_info *)result = info;
    }
}

base_status inference_model_info_decode(base_view bytes, const base_alloc *mem,
                                        inference_model_info **out)
{
    static const wire_codec codec = {&ropewalk__v1__model_info_response__descriptor,
                                     sizeof(inference_model_info), check_info, build_info};
    base_status st = BASE_OK;
    void *result;

    BASE_TRY(st, out, wire_decode(&codec, bytes, mem, &result));
    *out = result;
out:
    return st;
}

base_status inference_model_info_encode(const inference_model_info *info, base_bytes *out)
{
    pb_info m = ROPEWALK__V1__MODEL_INFO_RESPONSE__INIT;

#define ENCODE(field) m.field = wire_bytes(info->field);
    INFO_TEXTS(ENCODE)
#undef ENCODE
#define ENCODE(field) m.field = (uint32_t)info->field;
    INFO_SHAPES(ENCODE)
    INFO_COUNTS(ENCODE)
#undef ENCODE
#define ENCODE(field) m.field = (uint64_t)info->field;
    INFO_TOTALS(ENCODE)
    INFO_LENGTHS(ENCODE)
#undef ENCODE
    m.k_bits_per_element = info->k_bits_per_element;
    m.v_bits_per_element = info->v_bits_per_element;
    m.n_blocks_total_per_rank = (size_t)info->ranks;
    m.blocks_total_per_rank = wire_u64s(info->blocks_total_per_rank);
    m.n_blocks_free_per_rank = (size_t)info->ranks;
    m.blocks_free_per_rank = wire_u64s(info->blocks_free_per_rank);
    m.n_weight_bytes_per_rank = (size_t)info->ranks;
    m.weight_bytes_per_rank = wire_u64s(info->weight_bytes_per_rank);
    return wire_encode(&m.base, out);
}
