#include "worker/rank.h"

#include "base/log.h"
#include "kernels/comm/comm_lsa.h"
#include "kernels/device.h"
#include "worker/boot/room.h"
#include "worker/boot/sizes.h"
#include "worker/engine/plan.h"
#include "worker/model/resident.h"

#include <math.h>

/* What else must be equal on all ranks. */
static base_status hash_sizes(const engine_options *sizes, base_hash *hash_out)
{
    base_hasher *hasher = NULL;
    const base_status st = base_hasher_create(&hasher);
    if (st == BASE_OK) {
        base_hasher_add_u64(hasher, (uint64_t)sizes->max_batch);
        base_hasher_add_u64(hasher, (uint64_t)sizes->prefill_chunk);
        base_hasher_add_u64(hasher, (uint64_t)sizes->max_context);
        base_hasher_add_u64(hasher, (uint64_t)sizes->n_ahead);
        *hash_out = base_hasher_end(hasher);
    }
    return st;
}

/* Of the host's memory, or of the GPU's beside the weights, which the engine will put there. */
static base_status choose_sizes(rank *r, const worker_options *options)
{
    base_status st = BASE_OK;
    const member *m = &r->m;
    const bool on_gpu = m->seat.device == KERN_DEVICE_CUDA;
    room memory;
    int64_t least = 0;
    int32_t n_pages = 0;
    base_hash hash;

    BASE_TRY(st, out, room_measure(&m->seat, &m->world, options->kv_memory_fraction, &memory));
    BASE_TRY(st, out,
             sizes_pages(options, &m->model->config, &m->model->split, r->format, m->world.n_ranks,
                         room_beside(&memory, on_gpu ? resident_bytes(m->model) : 0), &n_pages));
    BASE_TRY(st, out, boot_least(m->ranks, n_pages, &least));
    BASE_TRY(st, out,
             sizes_engine(options, &m->model->config, m->world.n_ranks, (int32_t)least, &r->sizes));
    r->sizes.n_ahead = on_gpu;
    BASE_TRY(st, out, hash_sizes(&r->sizes, &hash));
    BASE_TRY(st, out, boot_compare(m->ranks, "command line", hash));

out:
    return st;
}

/* The policy's, for the model that has been read. */
static base_status make_format(rank *r, const worker_options *options)
{
    base_status st = BASE_OK;
    const model_config *c = &r->m.model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};

    BASE_TRY(st, out,
             kv_calibration_open(options->policy_text, options->model, r->m.model->hash, &shape,
                                 &base_heap, &r->calibration));
    BASE_TRY(st, out,
             kv_format_create_calibrated(&options->policy, &shape, r->calibration, &base_heap,
                                         &r->format));
    st = boot_compare(r->m.ranks, "kv policy", r->format->policy_hash);
out:
    return st;
}

base_status rank_make(rank *r, const boot_world *world, const worker_options *wished)
{
    base_status st = BASE_OK;
    worker_options settled = *wished;
    const worker_options *const options = &settled;
    member *m = &r->m;
    const seat_wishes wishes = {.device = options->device,
                                .merge = options->merge,
                                .weights = options->weights,
                                .share_gpu = options->share_gpu};
    const member_lines lines = {.n_threads = options->n_threads,
                                .max_rows = COMM_LSA_MAX_ROWS,
                                .max_words = PLAN_MAX_SEQS,
                                .limit_ms = ENGINE_STEP_MS,
                                .shared_gpu = options->share_gpu,
                                .or_less = true};

    BASE_TRY(st, out, member_meet(m, world, &wishes));
    worker_options_settle(&settled, m->seat.device);
    BASE_TRY(st, out, member_read(m, options->model, base_view_of(options->rope_scaling)));
    BASE_TRY(st, out, make_format(r, options));
    const int64_t cache_bytes =
        sizes_least(options, &m->model->config, &m->model->split, r->format, world->n_ranks);
    BASE_TRY(st, out, member_load(m, cache_bytes, options->kv_memory_fraction));
    BASE_TRY(st, out, member_connect(m, &lines));
    BASE_TRY(st, out, choose_sizes(r, options));
    const engine_comms comms = {.plans = m->ranks, .tensors = m->tensors};
    BASE_TRY(st, out,
             engine_create(m->model, r->format, m->ctx, &comms, &r->sizes, &base_heap, &r->engine));
    r->weight_bytes =
        base_heap.get(base_heap.ctx, (size_t)m->world.n_ranks * sizeof *r->weight_bytes);
    if (r->weight_bytes == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d ranks", m->world.n_ranks);
        goto out;
    }
    BASE_TRY(st, out, boot_gather(m->ranks, resident_bytes(m->model), r->weight_bytes));
    BASE_INFO("ready: %s, %lld MB of weights%s, %s, %s, exchange by %s, %d threads, %d pages of "
              "%lld bytes, %d sequences of %lld tokens",
              m->model->name, (long long)(resident_bytes(m->model) >> 20),
              model_is_split(&m->model->split) ? ", split" : "", kern_device_name(m->seat.device),
              m->seat.who, comm_name(m->tensors), m->n_threads, r->sizes.n_pages,
              (long long)r->format->page_bytes, r->sizes.max_batch,
              (long long)r->sizes.max_context);

out:
    return st;
}

void rank_end(rank *r)
{
    engine_destroy(r->engine);
    member_end(&r->m);
    kv_format_destroy(r->format);
    kv_calibration_destroy(r->calibration);
    base_heap.put(base_heap.ctx, r->weight_bytes);
}

base_status rank_attach(const rank *r, const char *coordinator, attach **attach_out)
{
    const model_config *c = &r->m.model->config;
    char model_hash[BASE_HASH_TEXT_BYTES];
    char policy_hash[BASE_HASH_TEXT_BYTES];
    char policy[KV_MAX_POLICY_TEXT];
    int64_t blocks[GROUP_MAX_RANKS];
    base_hash tokenizer;
    base_hasher *hasher = NULL;

    base_status st = base_hasher_create(&hasher);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add(hasher, r->m.model->tokenizer_json.data, r->m.model->tokenizer_json.n_bytes);
    tokenizer = base_hasher_end(hasher);
    base_hash_text(r->m.model->hash, model_hash);
    base_hash_text(r->format->policy_hash, policy_hash);
    kv_policy_text(&r->format->policy, policy);
    for (int32_t i = 0; i < r->m.world.n_ranks; i++) {
        blocks[i] = r->sizes.n_pages;
    }
    const group_hello hello = {
        .protocol = GROUP_PROTOCOL,
        .page_format = KV_PAGE_FORMAT_VERSION,
        .build = base_view_of(ROPEWALK_BUILD),
        .model = base_view_of(r->m.model->name),
        .model_hash = base_view_of(model_hash),
        .policy = base_view_of(policy),
        .policy_hash = base_view_of(policy_hash),
        .ranks = r->m.world.n_ranks,
        .max_context = r->sizes.max_context,
        .max_batch = r->sizes.max_batch,
        .vocab_size = c->n_vocab,
        .n_layers = c->n_layers,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .k_bits_per_element = r->format->k_bits_per_element,
        .v_bits_per_element = r->format->v_bits_per_element,
        .bytes_per_token = llround(kv_format_bytes_per_token(r->format)),
        .bytes_per_page = r->format->page_bytes,
        .blocks_total_per_rank = blocks,
        .weight_bytes_per_rank = r->weight_bytes,
        .exchange = base_view_of(comm_name(r->m.tensors)),
        .tokenizer_json = r->m.model->tokenizer_json,
        .tokenizer_sha256 = {(const char *)tokenizer.bytes, sizeof tokenizer.bytes},
        .generation_config_json = r->m.model->generation_config_json,
        .eos_ids = c->eos_ids,
        .n_eos_ids = (size_t)c->n_eos_ids,
    };
    return attach_create(coordinator, &hello, &base_heap, attach_out);
}
