#include "coordinator/model.h"

#include <string.h>

static base_status copy_text(base_view text, const base_alloc *mem, base_view *copy_out)
{
    char *copy = mem->get(mem->ctx, text.n_bytes + 1);
    if (copy == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "text of %zu bytes", text.n_bytes);
    }
    if (text.n_bytes > 0) {
        memcpy(copy, text.data, text.n_bytes);
    }
    *copy_out = (base_view){copy, text.n_bytes};
    return BASE_OK;
}

#define MAX_SHAPE (1 << 16) /* of each factor: products of three stay in 64 bits */

static base_status check_shape(const group_hello *hello)
{
    const struct {
        const char *name;
        int32_t value;
    } factors[] = {{"n_layers", hello->n_layers},
                   {"n_heads", hello->n_heads},
                   {"n_kv_heads", hello->n_kv_heads},
                   {"head_dim", hello->head_dim}};
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        if (factors[i].value < 0 || factors[i].value > MAX_SHAPE) {
            return BASE_FAIL(BASE_BAD_INPUT, "hello.%s %d, allowed 0..%d", factors[i].name,
                             (int)factors[i].value, MAX_SHAPE);
        }
    }
    return BASE_OK;
}

base_status coord_model_create(const group_hello *hello, const base_alloc *mem,
                               coord_model **model_out)
{
    base_status st = BASE_OK;
    coord_model *model = NULL;

    BASE_TRY(st, out, check_shape(hello));
    model = mem->get(mem->ctx, sizeof *model);
    if (model == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "served model");
        goto out;
    }
    model->mem = *mem;
    BASE_TRY(st, out, copy_text(hello->model, mem, &model->name));
    BASE_TRY(st, out, copy_text(hello->model_hash, mem, &model->model_hash));
    BASE_TRY(st, out, copy_text(hello->policy, mem, &model->policy));
    BASE_TRY(st, out, copy_text(hello->policy_hash, mem, &model->policy_hash));
    BASE_TRY(st, out, copy_text(hello->build, mem, &model->build));
    model->page_format = hello->page_format;
    model->vocab_size = hello->vocab_size;
    model->n_layers = hello->n_layers;
    model->n_heads = hello->n_heads;
    model->n_kv_heads = hello->n_kv_heads;
    model->head_dim = hello->head_dim;
    model->k_bits_per_element = hello->k_bits_per_element;
    model->v_bits_per_element = hello->v_bits_per_element;
    model->bytes_per_token = hello->bytes_per_token;
    model->bytes_per_page = hello->bytes_per_page;
    if (hello->tokenizer_sha256.n_bytes > 0) {
        memcpy(model->tokenizer_sha256, hello->tokenizer_sha256.data,
               sizeof model->tokenizer_sha256); /* the decoder has checked the length */
    }
    BASE_TRY(
        st, out,
        coord_defaults_parse(hello->generation_config_json, hello->vocab_size, &model->defaults));
    BASE_TRY(st, out, coord_defaults_add_eos(&model->defaults, hello->eos_ids, hello->n_eos_ids));
    if (hello->tokenizer_json.n_bytes > 0) {
        BASE_TRY(st, out, text_tokenizer_create(hello->tokenizer_json, mem, &model->tokenizer));
    }
    *model_out = model;
    model = NULL;

out:
    coord_model_destroy(model);
    return st;
}

void coord_model_destroy(coord_model *model)
{
    if (model == NULL) {
        return;
    }
    const base_alloc mem = model->mem;
    const base_view texts[] = {model->name, model->model_hash, model->policy, model->policy_hash,
                               model->build};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mem.put(mem.ctx, (char *)texts[i].data);
    }
    text_tokenizer_destroy(model->tokenizer);
    mem.put(mem.ctx, model);
}

base_status coord_model_check_text(const coord_model *model, const char *field)
{
    if (model->tokenizer == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "%s: model '%s' has no tokenizer; only token ids can be sent", field,
                         model->name.data);
    }
    return BASE_OK;
}

base_status coord_model_check_protocol(const group_hello *hello)
{
    if (hello->protocol != GROUP_PROTOCOL) {
        return BASE_FAIL(BASE_BAD_INPUT, "protocol %d of the group, %d here; use equal builds",
                         (int)hello->protocol, GROUP_PROTOCOL);
    }
    return BASE_OK;
}

static base_status check_text(const char *field, base_view served, base_view own)
{
    if (base_view_equal(served, own)) {
        return BASE_OK;
    }
    const int n_served = served.n_bytes < 128 ? (int)served.n_bytes : 128;
    const int n_own = own.n_bytes < 128 ? (int)own.n_bytes : 128;
    return BASE_FAIL(BASE_BAD_INPUT, "%s '%.*s' of the group, '%.*s' is served", field, n_own,
                     n_own > 0 ? own.data : "", n_served, n_served > 0 ? served.data : "");
}

base_status coord_model_check_same(const coord_model *model, const group_hello *hello)
{
    base_status st = BASE_OK;
    const base_view tokenizer_sha256 = {model->tokenizer_sha256, sizeof model->tokenizer_sha256};

    BASE_TRY(st, out, check_text("model_hash", model->model_hash, hello->model_hash));
    BASE_TRY(st, out, check_text("policy", model->policy, hello->policy));
    BASE_TRY(st, out, check_text("policy_hash", model->policy_hash, hello->policy_hash));
    if (hello->page_format != model->page_format) {
        st = BASE_FAIL(BASE_BAD_INPUT, "page_format %d of the group, %d is served",
                       (int)hello->page_format, (int)model->page_format);
        goto out;
    }
    if (hello->vocab_size != model->vocab_size) {
        st = BASE_FAIL(BASE_BAD_INPUT, "vocab_size %d of the group, %d is served",
                       (int)hello->vocab_size, (int)model->vocab_size);
        goto out;
    }
    if (model->tokenizer == NULL ? hello->tokenizer_json.n_bytes > 0
                                 : !base_view_equal(tokenizer_sha256, hello->tokenizer_sha256)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "tokenizer_json of the group is not the one that is served");
    }

out:
    return st;
}
