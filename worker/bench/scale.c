/* ropewalk-bench-scale: one rank of `ropewalk bench scale`, started by mpirun.  Decode steps of one group over contexts and
 * policies, and prompts as long; rank 0 writes what was found. */
#include "kernels/comm/comm_merge.h"
#include "kvshard/calibration.h"
#include "worker/bench/group.h"
#include "worker/bench/prefill.h"
#include "worker/bench/program.h"
#include "worker/bench/seqs.h"

#include <stdlib.h>

#define LAY_OUT_CHUNK 512
#define WARM_STEPS    4 /* one of them opens a block, which has launches of its own */
#define N_STEPS       32
#define MAX_CONTEXT   ((int64_t)1 << 26)
#define MAX_BLOCKS    ((int64_t)1 << 24)

typedef struct settings {
    const char *out, *model;
    const char **policies, **contexts;
    seat_wishes wishes;
    int32_t batch, n_threads, prefill_chunk;
    bool prefill, whole, parts;
} settings;

static const base_option table[] = {
    {"out", 0, "FILE", "where rank 0 writes its JSON", BASE_OPTION_TEXT(settings, out),
     .needed = true},
    {"model", 0, "DIR", "model folder, or random:SHAPE", BASE_OPTION_TEXT(settings, model),
     .needed = true},
    {"kv", 0, "POLICY", "a cache policy; may be given again", BASE_OPTION_LIST(settings, policies),
     .needed = true},
    {"context", 0, "N", "positions of a sequence; may be given again",
     BASE_OPTION_LIST(settings, contexts), .needed = true},
    {"batch", 0, "B", "sequences of a step", BASE_OPTION_I32(settings, batch, 1, BENCH_MAX_BATCH)},
    {"prefill", 0, NULL, "prompts of as many positions, too", BASE_OPTION_FLAG(settings, prefill)},
    {"whole", 0, NULL, "of a prompt all chunks, too, beside those that are timed",
     BASE_OPTION_FLAG(settings, whole)},
    {"parts", 0, NULL, "of a chunk that is timed each part, too",
     BASE_OPTION_FLAG(settings, parts)},
    {"prefill-chunk", 0, "C", "tokens of a step of a prompt",
     BASE_OPTION_I32(settings, prefill_chunk, KERN_BLOCK_TOKENS, BENCH_MAX_CHUNK)},
    {"device", 0, "DEVICE", "cpu or cuda (GPUs where each rank has one for itself)",
     BASE_OPTION_CHOICE(settings, wishes.device, "cpu, cuda")},
    {"merge", 0, "TRANSPORT", "how ranks exchange partials (what the device has)",
     BASE_OPTION_CHOICE(settings, wishes.merge, COMM_MERGE_CHOICES)},
    {"weights", 0, "HOW", "replicated, or split: each rank holds a part of the model",
     BASE_OPTION_CHOICE(settings, wishes.weights, "auto, replicated, split")},
    {"share-gpu", 0, NULL, "ranks may share a GPU: for tests, times say nothing",
     BASE_OPTION_FLAG(settings, wishes.share_gpu)},
    {"threads", 0, "N", "per rank (cores / ranks of the host)",
     BASE_OPTION_I32(settings, n_threads, 1, KERN_MAX_THREADS)},
};
static const base_command command = {"ropewalk-bench-scale",
                                     "--out FILE --model DIR --kv POLICY --context N [options]",
                                     BASE_OPTIONS(table)};

typedef struct sweep {
    const settings *s;
    bench_group g;
    json_t *policies, *rows, *prompts;
} sweep;

typedef struct sizes { /* of a rank in a row */
    kv_shard_options shard;
    forward_limits forward;
    int64_t n_bytes; /* that both take */
} sizes;

static sizes sizes_of(const sweep *w, const kv_format *format, int64_t context)
{
    const int32_t batch = w->s->batch;
    const int32_t n_ranks = w->g.m.world.n_ranks;
    const int32_t chunk = batch > LAY_OUT_CHUNK ? batch : LAY_OUT_CHUNK;
    sizes s = {
        .shard = bench_seqs_options(batch, n_ranks, context + WARM_STEPS + N_STEPS, chunk),
        .forward = {.max_step_tokens = batch,
                    .max_samples = batch,
                    .timeout_ms = BENCH_TIMEOUT_MS,
                    .n_slots = batch},
    };
    s.n_bytes =
        kv_shard_bytes(format, &s.shard) +
        forward_scratch_bytes(&w->g.m.model->config, &w->g.m.model->split, &s.forward, n_ranks);
    return s;
}

/* The longest context, in whole blocks, for which the ranks have room; 0: none. */
static int64_t largest_context(const sweep *w, const kv_format *format)
{
    int64_t fits = 0;
    int64_t too_many = MAX_BLOCKS / w->s->batch;
    while (fits + 1 < too_many) {
        const int64_t n = (fits + too_many) / 2;
        if (sizes_of(w, format, n * KERN_BLOCK_TOKENS).n_bytes <= w->g.room_bytes) {
            fits = n;
        } else {
            too_many = n;
        }
    }
    return fits * KERN_BLOCK_TOKENS;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { P10, P50, P90, N_TIMES };

/* A cache of this size, laid out, and steps over it: ms_out [N_TIMES], each the largest of all ranks. */
static base_status time_steps(sweep *w, const kv_format *format, const sizes *size, int64_t context,
                              double *ms_out)
{
    base_status st = BASE_OK;
    const bench_group *g = &w->g;
    const int32_t n_ahead = g->m.seat.device == KERN_DEVICE_CUDA;
    kv_shard *shard = NULL;
    forward *f = NULL;
    double us[N_STEPS];

    BASE_TRY(st, out, kv_shard_create(format, &size->shard, g->m.ctx, &base_heap, &shard));
    BASE_TRY(
        st, out,
        forward_create(g->m.model, format, g->m.ctx, g->m.tensors, &size->forward, &base_heap, &f));
    bench_seqs seqs = {.shard = shard,
                       .n_pages = size->shard.n_pages,
                       .rank = g->m.world.rank,
                       .n_ranks = g->m.world.n_ranks,
                       .batch = w->s->batch};
    BASE_TRY(st, out, bench_seqs_lay_out(&seqs, context, LAY_OUT_CHUNK));
    BASE_TRY(st, out, bench_seqs_decode(&seqs, f, WARM_STEPS, n_ahead, us));
    BASE_TRY(st, out, bench_seqs_decode(&seqs, f, N_STEPS, n_ahead, us));
    qsort(us, N_STEPS, sizeof *us, by_size);
    ms_out[P10] = us[N_STEPS / 10] * 1e-3;
    ms_out[P50] = us[N_STEPS / 2] * 1e-3;
    ms_out[P90] = us[N_STEPS - 1 - N_STEPS / 10] * 1e-3;
    st = bench_group_largest(g, ms_out, N_TIMES);
out:
    forward_destroy(f);
    kv_shard_destroy(shard);
    return st;
}

/* Bytes of weights that a step reads: of the embedding only where it is the head too. */
static int64_t weights_read(const bench_group *g)
{
    const model_tensor *e = &g->m.model->embedding;
    const bool tied = g->m.model->head.data == e->data;
    return g->weight_bytes - (tied ? 0 : e->n_elems * (int64_t)base_dtype_bytes(e->dtype));
}

static base_status add_row(sweep *w, const kv_format *format, const char *policy, int64_t context)
{
    base_status st = BASE_OK;
    const bench_group *g = &w->g;
    const sizes size = sizes_of(w, format, context);
    const int32_t n_ranks = g->m.world.n_ranks;
    const int64_t n_blocks = (context / KERN_BLOCK_TOKENS + n_ranks - 1) / n_ranks;
    const int64_t page_bytes = n_blocks * w->s->batch * format->page_bytes;
    const bool fits = size.n_bytes <= g->room_bytes;
    double ms[N_TIMES] = {0};
    json_t *row = json_pack("{s:s, s:I, s:b, s:I, s:I}", "policy", policy, "context",
                            (json_int_t)context, "fits", fits, "page_bytes", (json_int_t)page_bytes,
                            "cache_bytes", (json_int_t)size.n_bytes);

    if (fits) {
        BASE_TRY(st, out, time_steps(w, format, &size, context, ms));
        const double read_gb = (double)(weights_read(g) + page_bytes) * 1e-6 / ms[P50];
        json_t *times =
            json_pack("{s:f, s:f, s:f, s:f, s:f}", "step_ms", ms[P50], "p10_ms", ms[P10], "p90_ms",
                      ms[P90], "tokens_per_s_per_rank", w->s->batch * 1e3 / (ms[P50] * n_ranks),
                      "read_share", g->read_gb > 0.0 ? read_gb / g->read_gb : 0.0);
        (void)json_object_update(row, times);
        json_decref(times);
    }
out:
    (void)json_array_append_new(w->rows, row);
    return st;
}

/* Of the chunks that are timed; parts [n_timed][BENCH_N_PARTS], or NULL. */
static json_t *describe_timed(const bench_chunks *c, const double *ms, const double *parts)
{
    json_t *timed = json_array();
    for (int32_t i = 0; i < c->n_timed; i++) {
        json_t *one = json_pack("{s:I, s:i, s:f}", "position", (json_int_t)c->begins[i], "tokens",
                                bench_chunks_tokens(c, i), "ms", ms[i]);
        for (int32_t k = 0; k < BENCH_N_PARTS && parts != NULL; k++) {
            (void)json_object_set_new(one, bench_part_name((bench_part)k),
                                      json_real(parts[i * BENCH_N_PARTS + k]));
        }
        (void)json_array_append_new(timed, one);
    }
    return timed;
}

/* A prompt that fits. */
static base_status time_prompt(const sweep *w, const bench_prompt *p, json_t *row)
{
    base_status st = BASE_OK;
    double ms[BENCH_MAX_TIMED];
    double parts[BENCH_MAX_TIMED * BENCH_N_PARTS];

    BASE_TRY(st, out, bench_prompt_time(p, ms));
    if (w->s->parts) {
        BASE_TRY(st, out, bench_prompt_time_parts(p, parts));
    }
    const double all_ms = bench_chunks_total(p->chunks, ms);
    const double per_s = (double)p->chunks->n_tokens * 1e3 / all_ms;
    json_t *times = json_pack("{s:f, s:f, s:f, s:o}", "prefill_ms", all_ms, "tokens_per_s", per_s,
                              "tokens_per_s_per_rank", per_s / w->g.m.world.n_ranks, "timed",
                              describe_timed(p->chunks, ms, w->s->parts ? parts : NULL));
    (void)json_object_update(row, times);
    json_decref(times);
    if (w->s->whole) {
        double whole_ms = 0.0;
        BASE_TRY(st, out, bench_prompt_time_whole(p, &whole_ms));
        (void)json_object_set_new(row, "whole_ms", json_real(whole_ms));
    }
out:
    return st;
}

/* A prompt of one sequence. */
static base_status add_prompt(sweep *w, const kv_format *format, const char *policy,
                              int64_t context)
{
    const bench_chunks chunks = bench_chunks_of(context, w->s->prefill_chunk);
    const bench_prompt prompt = {&w->g, format, &chunks};
    const int64_t n_bytes = bench_prompt_bytes(&prompt);
    const bool fits = n_bytes <= w->g.room_bytes;
    json_t *row = json_pack("{s:s, s:I, s:b, s:I}", "policy", policy, "context",
                            (json_int_t)context, "fits", fits, "cache_bytes", (json_int_t)n_bytes);

    (void)json_array_append_new(w->prompts, row);
    return fits ? time_prompt(w, &prompt, row) : BASE_OK;
}

/* All contexts with one policy. */
static base_status add_policy(sweep *w, const char *text)
{
    base_status st = BASE_OK;
    const bench_group *g = &w->g;
    const model_config *c = &g->m.model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    kv_policy policy;
    kv_calibration *calibration = NULL;
    kv_format *format = NULL;

    BASE_TRY(st, out, kv_policy_parse(text, &policy));
    BASE_TRY(
        st, out,
        kv_calibration_open(text, w->s->model, g->m.model->hash, &shape, &base_heap, &calibration));
    BASE_TRY(st, out,
             kv_format_create_calibrated(&policy, &shape, calibration, &base_heap, &format));
    BASE_TRY(st, out, boot_compare(g->m.ranks, "kv policy", format->policy_hash));
    (void)json_array_append_new(w->policies,
                                json_pack("{s:s, s:f, s:I}", "policy", text, "bytes_per_token",
                                          kv_format_bytes_per_token(format), "largest_context",
                                          (json_int_t)largest_context(w, format)));
    for (const char **at = w->s->contexts; *at != NULL; at++) {
        int64_t context = 0;
        BASE_TRY(st, out,
                 base_option_number("--context", *at, KERN_BLOCK_TOKENS, MAX_CONTEXT, &context));
        BASE_TRY(st, out, add_row(w, format, text, context));
        if (w->s->prefill) {
            BASE_TRY(st, out, add_prompt(w, format, text, context));
        }
    }
out:
    kv_format_destroy(format);
    kv_calibration_destroy(calibration);
    return st;
}

static base_status sweep_all(sweep *w, const boot_world *world)
{
    base_status st = BASE_OK;
    const settings *s = w->s;
    const bench_group_options options = {
        .model = s->model, .wishes = s->wishes, .batch = s->batch, .n_threads = s->n_threads};

    BASE_TRY(st, out, bench_chunks_check(s->prefill_chunk));
    BASE_TRY(st, out, bench_group_open(&options, world, &w->g));
    for (const char **at = s->policies; *at != NULL; at++) {
        BASE_TRY(st, out, add_policy(w, *at));
    }
out:
    return st;
}

static base_status run(void *settings_of, const boot_world *world, json_t **json_out)
{
    sweep w = {
        .s = settings_of, .policies = json_array(), .rows = json_array(), .prompts = json_array()};
    const base_status st = sweep_all(&w, world);

    if (st == BASE_OK) {
        const bench_group *g = &w.g;
        *json_out = json_pack(
            "{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:I, s:I, s:O, s:O, s:i, s:O}",
            "bench", "scale", "device", kern_device_name(g->m.seat.device), "gpu", g->gpu, "model",
            g->m.model->name, "weights", g->m.splits ? "split" : "replicated", "merge",
            comm_name(g->m.tensors), "ranks", world->n_ranks, "batch", w.s->batch, "steps", N_STEPS,
            "read_gb_per_s", g->read_gb, "weight_bytes", (json_int_t)g->weight_bytes, "room_bytes",
            (json_int_t)g->room_bytes, "policies", w.policies, "rows", w.rows, "prefill_chunk",
            w.s->prefill_chunk, "prefill", w.prompts);
        bench_group_close(&w.g);
    }
    json_decref(w.policies);
    json_decref(w.rows);
    json_decref(w.prompts);
    return st;
}

int main(int argc, char **argv)
{
    static const bench_program program = {&command, "bench scale", run};
    settings s = {
        .batch = 1, .prefill_chunk = 512, .wishes = {.merge = "auto", .weights = "replicated"}};
    return bench_program_run(&program, argc, argv, &s, &s.out);
}
