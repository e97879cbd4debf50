#include "launch/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define MAX_COLLECTED ((size_t)256 << 20)

void report_init(report *r, bool stream_text, bool progress, bool terminal)
{
    *r = (report){.stream_text = stream_text,
                  .progress = progress,
                  .terminal = terminal,
                  .shown_progress = -1};
    base_bytes *const buffers[] = {&r->text, &r->ids, &r->stop, &r->policy, &r->blocks};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        base_bytes_init(buffers[i], MAX_COLLECTED, &base_heap);
    }
}

void report_reset(report *r)
{
    base_bytes_reset(&r->text);
    base_bytes_reset(&r->ids);
    base_bytes_reset(&r->stop);
    base_bytes_reset(&r->policy);
    base_bytes_reset(&r->blocks);
}

static void collect(report *r, base_bytes *into, const void *data, size_t n_bytes)
{
    if (base_bytes_add(into, data, n_bytes) != BASE_OK) {
        r->failed = true;
    }
}

static void show_progress(report *r, int64_t done, int64_t total)
{
    if (!r->progress || done == r->shown_progress || total <= 0) {
        return;
    }
    r->shown_progress = done;
    (void)fprintf(stderr, "%sprefill %" PRId64 " / %" PRId64 " tokens (%d %%)%s",
                  r->terminal ? "\r" : "", done, total, (int)(100 * done / total),
                  r->terminal && done < total ? "" : "\n");
    (void)fflush(stderr);
}

static void take_finished(report *r, const inference_finished *f)
{
    r->finished = *f;
    collect(r, &r->stop, f->stop.data, f->stop.n_bytes);
    collect(r, &r->policy, f->kv.policy.data, f->kv.policy.n_bytes);
    collect(r, &r->blocks, f->kv.blocks_per_rank, f->kv.n_blocks_per_rank * sizeof(int32_t));
    r->finished.stop = base_bytes_view(&r->stop);
    r->finished.kv.policy = base_bytes_view(&r->policy);
    r->finished.kv.blocks_per_rank = (const int32_t *)(const void *)r->blocks.data;
    r->finished.kv.n_blocks_per_rank = r->blocks.n_bytes / sizeof(int32_t);
    r->has_finished = true;
}

void report_take(void *ctx, const inference_event *event)
{
    report *r = ctx;
    switch (event->kind) {
    case INFERENCE_EVENT_PREFILL:
        show_progress(r, event->prefill_done, event->prefill_total);
        break;
    case INFERENCE_EVENT_TOKENS:
        collect(r, &r->text, event->text.data, event->text.n_bytes);
        collect(r, &r->ids, event->ids, event->n_ids * sizeof(int32_t));
        if (r->stream_text && event->text.n_bytes > 0) {
            (void)fwrite(event->text.data, 1, event->text.n_bytes, stdout);
            (void)fflush(stdout);
        }
        break;
    case INFERENCE_EVENT_FINISHED: take_finished(r, &event->finished); break;
    }
}

static double megabytes(double bytes)
{
    return bytes / 1e6;
}

void report_print_table(const report *r)
{
    const inference_finished *f = &r->finished;
    const inference_kv_usage *kv = &f->kv;
    const int32_t *blocks = kv->blocks_per_rank;
    const double n_tokens = (double)(f->prompt_tokens + f->new_tokens);
    int64_t n_blocks = 0;

    (void)fprintf(stderr, "\n  context            %" PRId64 " prompt + %" PRId64 " new tokens\n",
                  f->prompt_tokens, f->new_tokens);
    (void)fprintf(stderr, "  finished by        %s\n", inference_finish_reason_name(f->reason));
    (void)fprintf(stderr, "  ranks              %d\n  blocks per rank   ", kv->ranks);
    for (size_t i = 0; i < kv->n_blocks_per_rank; i++) {
        (void)fprintf(stderr, " %d", blocks[i]);
        n_blocks += blocks[i];
    }
    (void)fprintf(stderr, "\n  policy             %.*s\n", (int)kv->policy.n_bytes,
                  kv->policy.data);
    (void)fprintf(stderr, "  bits per element   K %.3f, V %.3f (codes and metadata)\n",
                  kv->k_bits_per_element, kv->v_bits_per_element);
    const double bf16_bytes = n_tokens * (double)kv->bf16_bytes_per_token;
    const double packed_bytes = (double)n_blocks * (double)kv->bytes_per_page;
    (void)fprintf(stderr,
                  "  KV bytes           %.2f MB in whole pages (%" PRId64
                  " a token), bf16 %.2f MB: %.2f times smaller\n",
                  megabytes(packed_bytes), kv->bytes_per_token, megabytes(bf16_bytes),
                  (double)kv->bf16_bytes_per_token / (double)kv->bytes_per_token);
    (void)fprintf(stderr, "  TTFT               %.0f ms (%.0f prompt tokens/s)\n", f->ttft_ms,
                  f->ttft_ms > 0 ? 1000.0 * (double)f->prompt_tokens / f->ttft_ms : 0.0);
    (void)fprintf(stderr, "  TPOT               %.2f ms\n", f->tpot_ms);
}

base_status report_print_json(const report *r)
{
    const inference_finished *f = &r->finished;
    const inference_kv_usage *kv = &f->kv;
    const int32_t *ids = (const int32_t *)(const void *)r->ids.data;
    json_t *tokens = json_array();
    json_t *blocks = json_array();
    json_t *bytes = json_array();

    for (size_t i = 0; i < r->ids.n_bytes / sizeof(int32_t); i++) {
        (void)json_array_append_new(tokens, json_integer(ids[i]));
    }
    for (size_t i = 0; i < kv->n_blocks_per_rank; i++) {
        (void)json_array_append_new(blocks, json_integer(kv->blocks_per_rank[i]));
        (void)json_array_append_new(bytes,
                                    json_integer(kv->blocks_per_rank[i] * kv->bytes_per_page));
    }
    json_t *root = json_pack(
        "{s:I, s:o, s:s%, s:s, s:s%, s:i, s:I, s:{s:s%, s:{s:f, s:f}, s:I, s:I, s:o, s:o},"
        " s:{s:f, s:f, s:f, s:f}}",
        "prompt_tokens", (json_int_t)f->prompt_tokens, "tokens", tokens, "text",
        r->text.data != NULL ? r->text.data : "", (int)r->text.n_bytes, "finish_reason",
        inference_finish_reason_name(f->reason), "stop", r->stop.data != NULL ? r->stop.data : "",
        (int)r->stop.n_bytes, "ranks", kv->ranks, "seed", (json_int_t)f->seed, "kv", "policy",
        r->policy.data != NULL ? r->policy.data : "", (int)r->policy.n_bytes, "bits_per_element",
        "k", kv->k_bits_per_element, "v", kv->v_bits_per_element, "bytes_per_token",
        (json_int_t)kv->bytes_per_token, "bf16_bytes_per_token",
        (json_int_t)kv->bf16_bytes_per_token, "bytes_per_rank", bytes, "blocks_per_rank", blocks,
        "timing", "queue_ms", f->queue_ms, "ttft_ms", f->ttft_ms, "tpot_ms", f->tpot_ms, "total_ms",
        f->total_ms);
    if (root == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "JSON of the result");
    }
    const int rc = json_dumpf(root, stdout, JSON_REAL_PRECISION(6));
    json_decref(root);
    (void)printf("\n");
    return rc == 0 ? BASE_OK : BASE_FAIL(BASE_IO, "cannot write to stdout");
}
