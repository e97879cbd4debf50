/* The first byte selects the decoder.  What decodes must keep its promises, and must encode and
 * decode to an equal struct. */
#include "base/utf8.h"
#include "proto/inference_codec.h"
#include "tests/support/codec_same.h"

#include <stdlib.h>

#define N_DECODERS 5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void must(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void must_be_ids(const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        must(ids[i] >= 0);
    }
}

static void request(base_view bytes)
{
    inference_generate_request *a = NULL;
    inference_generate_request *b = NULL;
    base_bytes again;

    if (inference_generate_request_decode(bytes, &base_heap, &a) != BASE_OK) {
        must(a == NULL);
        return;
    }
    must(a->request_id.n_bytes <= INFERENCE_MAX_REQUEST_ID_BYTES);
    must(a->has_text || a->n_prompt_ids > 0);
    must(base_utf8_valid(a->text, NULL) && base_utf8_valid(a->model, NULL));
    must_be_ids(a->prompt_ids, a->n_prompt_ids);
    must_be_ids(a->stop_ids, a->n_stop_ids);
    must(a->n_stops <= INFERENCE_MAX_STOPS && a->n_stop_ids <= INFERENCE_MAX_STOP_IDS);
    must(a->sampling.top_p > 0 && a->sampling.top_p <= 1);
    base_bytes_init(&again, SIZE_MAX / 2, &base_heap);
    must(inference_generate_request_encode(a, &again) == BASE_OK);
    must(inference_generate_request_decode(base_bytes_view(&again), &base_heap, &b) == BASE_OK);
    must(same_request(a, b));
    inference_generate_request_free(a);
    inference_generate_request_free(b);
    base_bytes_reset(&again);
}

static void event(base_view bytes)
{
    inference_event *a = NULL;
    inference_event *b = NULL;
    base_bytes again;

    if (inference_event_decode(bytes, &base_heap, &a) != BASE_OK) {
        must(a == NULL);
        return;
    }
    must(a->n_logprobs == 0 || a->n_logprobs == a->n_ids);
    must(a->prefill_done <= a->prefill_total);
    must_be_ids(a->ids, a->n_ids);
    base_bytes_init(&again, SIZE_MAX / 2, &base_heap);
    must(inference_event_encode(a, &again) == BASE_OK);
    must(inference_event_decode(base_bytes_view(&again), &base_heap, &b) == BASE_OK);
    must(same_event(a, b));
    inference_event_free(a, &base_heap);
    inference_event_free(b, &base_heap);
    base_bytes_reset(&again);
}

static void info(base_view bytes)
{
    inference_model_info *a = NULL;
    inference_model_info *b = NULL;
    base_bytes again;

    if (inference_model_info_decode(bytes, &base_heap, &a) != BASE_OK) {
        must(a == NULL);
        return;
    }
    base_bytes_init(&again, SIZE_MAX / 2, &base_heap);
    must(inference_model_info_encode(a, &again) == BASE_OK);
    must(inference_model_info_decode(base_bytes_view(&again), &base_heap, &b) == BASE_OK);
    must(same_info(a, b));
    base_heap.put(base_heap.ctx, a);
    base_heap.put(base_heap.ctx, b);
    base_bytes_reset(&again);
}

static void tokenize(base_view bytes)
{
    inference_tokenize_request *r = NULL;
    if (inference_tokenize_request_decode(bytes, &base_heap, &r) == BASE_OK) {
        must(base_utf8_valid(r->text, NULL));
    }
    inference_tokenize_request_free(r);
}

static void detokenize(base_view bytes)
{
    inference_detokenize_request *r = NULL;
    if (inference_detokenize_request_decode(bytes, &base_heap, &r) == BASE_OK) {
        must_be_ids(r->ids, r->n_ids);
    }
    inference_detokenize_request_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static void (*const decoders[N_DECODERS])(base_view) = {request, event, info, tokenize,
                                                            detokenize};
    if (n_bytes > 0) {
        decoders[data[0] % N_DECODERS]((base_view){(const char *)data + 1, n_bytes - 1});
    }
    return 0;
}
