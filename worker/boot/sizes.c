#include "worker/boot/sizes.h"

#include "kvshard/owner.h"
#include "kvshard/pool.h"
#include "kvshard/shard.h"
#include "worker/model/rows.h"

/* --max-context or the model's. */
static base_status longest(const worker_options *options, const model_config *config,
                           int64_t *tokens_out)
{
    if (options->max_context > config->max_context) {
        return BASE_FAIL(BASE_OUT_OF_RANGE,
                         "--max-context %lld, the model's limit is %lld; --rope-scaling changes it",
                         (long long)options->max_context, (long long)config->max_context);
    }
    *tokens_out = options->max_context > 0 ? options->max_context : config->max_context;
    return BASE_OK;
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Whose exchanges are not too long, with sequences that decode beside it. */
static base_status check_chunk(const worker_options *options, const model_config *config,
                               const model_split *split, int32_t n_ranks)
{
    const int32_t longest = model_rows_longest(config, split, n_ranks);
    const int32_t most = (longest - options->max_batch) / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
    if (options->prefill_chunk > most) {
        return BASE_FAIL(BASE_OUT_OF_RANGE,
                         "--prefill-chunk %d, at most %d: with --max-batch %d a step has up to %d "
                         "tokens, and of this model %d ranks exchange those of %d at once",
                         options->prefill_chunk, most, options->max_batch,
                         options->prefill_chunk + options->max_batch, n_ranks, longest);
    }
    return BASE_OK;
}

/* What engine_create takes with so many pages. */
static int64_t engine_bytes(const worker_options *options, const model_config *config,
                            const model_split *split, const kv_format *format, int32_t n_ranks,
                            int64_t max_context, int32_t n_pages)
{
    const engine_options e = {.max_batch = options->max_batch,
                              .prefill_chunk = options->prefill_chunk,
                              .max_context = max_context,
                              .n_pages = n_pages};
    kv_shard_options shard;
    forward_limits limits;
    engine_limits(&e, &shard, &limits);
    const int64_t shard_bytes = kv_shard_bytes(format, &shard);
    const int64_t scratch_bytes = forward_scratch_bytes(config, split, &limits, n_ranks);
    return shard_bytes > INT64_MAX - scratch_bytes ? INT64_MAX : shard_bytes + scratch_bytes;
}

base_status sizes_pages(const worker_options *options, const model_config *config,
                        const model_split *split, const kv_format *format, int32_t n_ranks,
                        int64_t memory_bytes, int32_t *n_pages_out)
{
    base_status st = BASE_OK;
    int64_t max_context = 0;

    BASE_TRY(st, out, longest(options, config, &max_context));
    BASE_TRY(st, out, check_chunk(options, config, split, n_ranks));
    if (options->n_pages > 0) {
        *n_pages_out = options->n_pages;
        goto out;
    }
    const int64_t fixed = engine_bytes(options, config, split, format, n_ranks, max_context, 1);
    if (fixed > memory_bytes) {
        st = BASE_FAIL(BASE_OUT_OF_RANGE,
                       "a rank may take %lld MB, tails and scratch alone need %lld MB: lower "
                       "--max-batch or --prefill-chunk, or raise --kv-memory-fraction",
                       (long long)(memory_bytes >> 20), (long long)(fixed >> 20));
        goto out;
    }
    const int64_t by_memory = 1 + (memory_bytes - fixed) / format->page_bytes;
    const int64_t blocks = kv_blocks_of_tokens(max_context) * options->max_batch;
    const int64_t of_use = (blocks + n_ranks - 1) / n_ranks + options->max_batch;
    *n_pages_out = (int32_t)min_i64(min_i64(by_memory, of_use), KV_MAX_PAGES);

out:
    return st;
}

int64_t sizes_least(const worker_options *options, const model_config *config,
                    const model_split *split, const kv_format *format, int32_t n_ranks)
{
    const int64_t tokens = options->max_context > 0
                               ? options->max_context
                               : min_i64(config->max_context, SIZES_LEAST_TOKENS);
    const int64_t n_blocks = kv_blocks_of_tokens(tokens);
    const int64_t n_pages =
        options->n_pages > 0 ? options->n_pages : (n_blocks + n_ranks - 1) / n_ranks;
    return engine_bytes(options, config, split, format, n_ranks, tokens,
                        (int32_t)min_i64(n_pages, KV_MAX_PAGES));
}

base_status sizes_engine(const worker_options *options, const model_config *config, int32_t n_ranks,
                         int32_t n_pages, engine_options *engine_out)
{
    base_status st = BASE_OK;
    int64_t max_context = 0;
    const int64_t held = (int64_t)n_pages * n_ranks * KERN_BLOCK_TOKENS;

    BASE_TRY(st, out, longest(options, config, &max_context));
    if (options->max_context > held) {
        st = BASE_FAIL(BASE_OUT_OF_RANGE,
                       "--max-context %lld, but %d pages on each of %d ranks hold %lld tokens",
                       (long long)options->max_context, n_pages, n_ranks, (long long)held);
        goto out;
    }
    *engine_out = (engine_options){.max_batch = options->max_batch,
                                   .prefill_chunk = options->prefill_chunk,
                                   .max_context = min_i64(max_context, held),
                                   .n_pages = n_pages,
                                   .step_goal_ms = ENGINE_STEP_GOAL_MS};

out:
    return st;
}
