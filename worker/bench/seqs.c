#include "worker/bench/seqs.h"

#include "base/clock.h"
#include "kvshard/owner.h"

kv_shard_options bench_seqs_options(int32_t batch, int32_t n_ranks, int64_t n_tokens,
                                    int32_t max_step_tokens)
{
    const int32_t n_blocks = (int32_t)kv_blocks_of_tokens(n_tokens);
    return (kv_shard_options){.n_pages = (n_blocks + n_ranks - 1) / n_ranks * batch,
                              .n_slots = batch,
                              .max_step_tokens = max_step_tokens,
                              .max_blocks_per_slot = n_blocks};
}

base_status bench_seqs_grow(bench_seqs *s, int32_t slot, int32_t n_tokens)
{
    base_status st = BASE_OK;
    const int32_t end = (int32_t)kv_blocks_of_tokens(s->positions[slot] + n_tokens);

    for (int32_t block = s->n_blocks[slot]; block < end && st == BASE_OK; block++) {
        if (block % s->n_ranks == s->rank) {
            const int32_t page = (block / s->n_ranks * s->batch + slot) % s->n_pages;
            st = kv_shard_add_page(s->shard, slot, block, page);
        }
    }
    s->n_blocks[slot] = end;
    return st;
}

void bench_seqs_clear(bench_seqs *s, int32_t slot)
{
    kv_shard_clear_slot(s->shard, slot);
    s->positions[slot] = 0;
    s->n_blocks[slot] = 0;
}

base_status bench_seqs_lay_out(bench_seqs *s, int64_t n_tokens, int32_t chunk)
{
    base_status st = BASE_OK;
    for (int32_t slot = 0; slot < s->batch; slot++) {
        for (int64_t at = 0; at < n_tokens; at += chunk) {
            const int32_t n = n_tokens - at < chunk ? (int32_t)(n_tokens - at) : chunk;
            const kv_step_seq seq = {slot, n, s->positions[slot]};
            const kv_step *step = NULL;
            BASE_TRY(st, out, bench_seqs_grow(s, slot, n));
            BASE_TRY(st, out, kv_shard_begin_step(s->shard, &seq, 1, &step));
            s->positions[slot] += n;
        }
    }
out:
    return st;
}

/* A step of all slots, which the tokens of the step before go into. */
static base_status begin(bench_seqs *s, forward *f)
{
    base_status st = BASE_OK;
    const kv_step *step = NULL;
    kv_step_seq seqs[BENCH_MAX_BATCH];
    forward_pick picks[BENCH_MAX_BATCH];
    int32_t ids[BENCH_MAX_BATCH];

    for (int32_t i = 0; i < s->batch; i++) {
        BASE_TRY(st, out, bench_seqs_grow(s, i, 1));
        seqs[i] = (kv_step_seq){i, 1, s->positions[i]++};
        picks[i] = (forward_pick){.token = i, .how = {.top_p = 1.0f, .penalty = 1.0f, .slot = i}};
        ids[i] = -1 - i;
    }
    BASE_TRY(st, out, kv_shard_begin_step(s->shard, seqs, s->batch, &step));
    st = forward_begin(f, s->shard, step, ids, picks, s->batch);
out:
    return st;
}

base_status bench_seqs_decode(bench_seqs *s, forward *f, int32_t n_steps, int32_t n_ahead,
                              double *us_out)
{
    base_status st = BASE_OK;
    int64_t ended = base_now_ns();
    int32_t n_begun = 0;
    forward_made made;

    for (int32_t i = 0; i < n_steps; i++) {
        for (; n_begun < n_steps && n_begun <= i + n_ahead; n_begun++) {
            BASE_TRY(st, out, begin(s, f));
        }
        BASE_TRY(st, out, forward_end(f, &made));
        const int64_t now = base_now_ns();
        us_out[i] = (double)(now - ended) * 1e-3;
        ended = now;
    }
out:
    return st;
}
