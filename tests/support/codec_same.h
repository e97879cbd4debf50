/* tests/support/codec_same.h - are two decoded messages equal, field by field and array by array? */
#ifndef TESTS_SUPPORT_CODEC_SAME_H
#define TESTS_SUPPORT_CODEC_SAME_H

#include "proto/group_codec.h"
#include "proto/inference_codec.h"

#include <string.h>

static inline bool same_array(const void *a, const void *b, size_t n, size_t elem_bytes)
{
    return n == 0 || memcmp(a, b, n * elem_bytes) == 0;
}

static inline bool same_floats(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) { /* -0 is 0: the wire drops both */
        if (a[i] != b[i]) {
            return false;
        }
    }
    return true;
}

static inline bool same_sampling(const inference_sampling *a, const inference_sampling *b)
{
    return a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p &&
           a->repetition_penalty == b->repetition_penalty && a->top_k == b->top_k &&
           a->seed == b->seed;
}

static inline bool same_request(const inference_generate_request *a,
                                const inference_generate_request *b)
{
    bool same = base_view_equal(a->request_id, b->request_id) &&
                base_view_equal(a->model, b->model) && a->has_text == b->has_text &&
                base_view_equal(a->text, b->text) && a->n_prompt_ids == b->n_prompt_ids &&
                same_array(a->prompt_ids, b->prompt_ids, a->n_prompt_ids, sizeof(int32_t)) &&
                a->given == b->given && same_sampling(&a->sampling, &b->sampling) &&
                a->max_new_tokens == b->max_new_tokens && a->n_stops == b->n_stops &&
                a->n_stop_ids == b->n_stop_ids &&
                same_array(a->stop_ids, b->stop_ids, a->n_stop_ids, sizeof(int32_t)) &&
                a->ignore_eos == b->ignore_eos && a->include_stop == b->include_stop &&
                a->logprobs == b->logprobs;
    for (size_t i = 0; same && i < a->n_stops; i++) {
        same = base_view_equal(a->stops[i], b->stops[i]);
    }
    return same;
}

static inline bool same_kv_usage(const inference_kv_usage *a, const inference_kv_usage *b)
{
    return base_view_equal(a->policy, b->policy) && a->ranks == b->ranks &&
           a->k_bits_per_element == b->k_bits_per_element &&
           a->v_bits_per_element == b->v_bits_per_element &&
           a->bytes_per_token == b->bytes_per_token &&
           a->bf16_bytes_per_token == b->bf16_bytes_per_token &&
           a->bytes_per_page == b->bytes_per_page && a->n_blocks_per_rank == b->n_blocks_per_rank &&
           same_array(a->blocks_per_rank, b->blocks_per_rank, a->n_blocks_per_rank,
                      sizeof(int32_t));
}

static inline bool same_finished(const inference_finished *a, const inference_finished *b)
{
    return a->reason == b->reason && base_view_equal(a->stop, b->stop) &&
           a->stop_id == b->stop_id && a->prompt_tokens == b->prompt_tokens &&
           a->new_tokens == b->new_tokens && a->seed == b->seed && a->queue_ms == b->queue_ms &&
           a->ttft_ms == b->ttft_ms && a->tpot_ms == b->tpot_ms && a->total_ms == b->total_ms &&
           same_kv_usage(&a->kv, &b->kv);
}

static inline bool same_event(const inference_event *a, const inference_event *b)
{
    bool same = a->kind == b->kind && a->prefill_done == b->prefill_done &&
                a->prefill_total == b->prefill_total && a->n_ids == b->n_ids &&
                same_array(a->ids, b->ids, a->n_ids, sizeof(int32_t)) &&
                base_view_equal(a->text, b->text) && a->n_logprobs == b->n_logprobs &&
                same_finished(&a->finished, &b->finished);
    for (size_t i = 0; same && i < a->n_logprobs; i++) {
        const inference_token_logprobs *p = &a->logprobs[i];
        const inference_token_logprobs *q = &b->logprobs[i];
        same = p->logprob == q->logprob && p->n_top == q->n_top &&
               same_array(p->top_ids, q->top_ids, (size_t)p->n_top, sizeof(int32_t)) &&
               same_floats(p->top_logprobs, q->top_logprobs, (size_t)p->n_top);
    }
    return same;
}

static inline bool same_info(const inference_model_info *a, const inference_model_info *b)
{
    return base_view_equal(a->model, b->model) && base_view_equal(a->model_hash, b->model_hash) &&
           base_view_equal(a->policy, b->policy) &&
           base_view_equal(a->policy_hash, b->policy_hash) && base_view_equal(a->build, b->build) &&
           a->vocab_size == b->vocab_size && a->max_context == b->max_context &&
           a->n_layers == b->n_layers && a->n_heads == b->n_heads &&
           a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->groups == b->groups &&
           a->ranks == b->ranks && a->block_tokens == b->block_tokens &&
           same_array(a->blocks_total_per_rank, b->blocks_total_per_rank, (size_t)a->ranks,
                      sizeof(int64_t)) &&
           same_array(a->blocks_free_per_rank, b->blocks_free_per_rank, (size_t)a->ranks,
                      sizeof(int64_t)) &&
           a->running == b->running && a->waiting == b->waiting &&
           a->requests_finished == b->requests_finished &&
           a->requests_cancelled == b->requests_cancelled &&
           a->requests_refused == b->requests_refused &&
           a->k_bits_per_element == b->k_bits_per_element &&
           a->v_bits_per_element == b->v_bits_per_element &&
           a->bytes_per_token == b->bytes_per_token && a->bytes_per_page == b->bytes_per_page &&
           same_array(a->weight_bytes_per_rank, b->weight_bytes_per_rank, (size_t)a->ranks,
                      sizeof(int64_t)) &&
           base_view_equal(a->exchange, b->exchange);
}

static inline bool same_hello(const group_hello *a, const group_hello *b)
{
    return a->protocol == b->protocol && a->page_format == b->page_format &&
           base_view_equal(a->build, b->build) && base_view_equal(a->model, b->model) &&
           base_view_equal(a->model_hash, b->model_hash) && base_view_equal(a->policy, b->policy) &&
           base_view_equal(a->policy_hash, b->policy_hash) && a->ranks == b->ranks &&
           a->max_context == b->max_context && a->max_batch == b->max_batch &&
           a->vocab_size == b->vocab_size && a->n_layers == b->n_layers &&
           a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
           a->head_dim == b->head_dim && a->k_bits_per_element == b->k_bits_per_element &&
           a->v_bits_per_element == b->v_bits_per_element &&
           a->bytes_per_token == b->bytes_per_token && a->bytes_per_page == b->bytes_per_page &&
           same_array(a->blocks_total_per_rank, b->blocks_total_per_rank, (size_t)a->ranks,
                      sizeof(int64_t)) &&
           same_array(a->weight_bytes_per_rank, b->weight_bytes_per_rank, (size_t)a->ranks,
                      sizeof(int64_t)) &&
           base_view_equal(a->exchange, b->exchange) &&
           base_view_equal(a->tokenizer_json, b->tokenizer_json) &&
           base_view_equal(a->tokenizer_sha256, b->tokenizer_sha256) &&
           base_view_equal(a->generation_config_json, b->generation_config_json) &&
           a->n_eos_ids == b->n_eos_ids &&
           same_array(a->eos_ids, b->eos_ids, a->n_eos_ids, sizeof(int32_t));
}

static inline bool same_up(const group_up *a, const group_up *b)
{
    const size_t n_tops = a->n_ids * (size_t)a->n_top;
    return a->kind == b->kind && a->seq == b->seq && same_hello(&a->hello, &b->hello) &&
           a->start_rank == b->start_rank && a->retry == b->retry && a->invalid == b->invalid &&
           base_view_equal(a->reason_text, b->reason_text) && a->done == b->done &&
           a->total == b->total && a->n_ids == b->n_ids && a->n_top == b->n_top &&
           same_array(a->ids, b->ids, a->n_ids, sizeof(int32_t)) &&
           (a->logprobs == NULL) == (b->logprobs == NULL) &&
           (a->logprobs == NULL || same_floats(a->logprobs, b->logprobs, a->n_ids)) &&
           same_array(a->top_ids, b->top_ids, n_tops, sizeof(int32_t)) &&
           same_floats(a->top_logprobs, b->top_logprobs, n_tops) && a->reason == b->reason &&
           a->stop_id == b->stop_id && a->n_blocks_per_rank == b->n_blocks_per_rank &&
           same_array(a->blocks_per_rank, b->blocks_per_rank, a->n_blocks_per_rank,
                      sizeof(int32_t)) &&
           a->running == b->running && a->waiting == b->waiting &&
           a->n_blocks_free == b->n_blocks_free &&
           same_array(a->blocks_free_per_rank, b->blocks_free_per_rank, a->n_blocks_free,
                      sizeof(int64_t)) &&
           a->steps == b->steps;
}

static inline bool same_down(const group_down *a, const group_down *b)
{
    const group_admit *p = &a->admit;
    const group_admit *q = &b->admit;
    return a->kind == b->kind && a->seq == b->seq && a->protocol == b->protocol &&
           base_view_equal(a->build, b->build) && a->credit == b->credit &&
           p->n_prompt == q->n_prompt &&
           same_array(p->prompt, q->prompt, p->n_prompt, sizeof(int32_t)) &&
           p->n_sent == q->n_sent && p->start_rank == q->start_rank &&
           same_sampling(&p->sampling, &q->sampling) && p->max_new_tokens == q->max_new_tokens &&
           p->n_stop_ids == q->n_stop_ids &&
           same_array(p->stop_ids, q->stop_ids, p->n_stop_ids, sizeof(int32_t)) &&
           p->n_eos_ids == q->n_eos_ids &&
           same_array(p->eos_ids, q->eos_ids, p->n_eos_ids, sizeof(int32_t)) &&
           p->logprobs == q->logprobs && p->credit == q->credit;
}

#endif /* TESTS_SUPPORT_CODEC_SAME_H */
