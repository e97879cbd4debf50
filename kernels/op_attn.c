#include "kernels/op_attn.h"

#include "kernels/backend.h"
#include "kernels/format_check.h"

#include <stdbool.h>

#define MAX_GROUP 16
/* So that blocks fit int32_t. */
#define MAX_POSITION ((int64_t)INT32_MAX * KERN_BLOCK_TOKENS)

static bool range_fits(int32_t first, int32_t n, int32_t n_all)
{
    return first >= 0 && n >= 0 && first <= n_all - n;
}

/* Every token belongs to exactly one sequence: none twice, and as many as there are. */
static bool tokens_are_covered(const kern_attn_args *a)
{
    int64_t n = 0;
    bool in_order = true;

    for (int32_t s = 0; s < a->n_seqs; s++) {
        in_order = in_order && a->seqs[s].first_token == n;
        n += a->seqs[s].n_tokens;
    }
    for (int32_t s = 0; s < a->n_seqs && !in_order; s++) {
        const int32_t begin = a->seqs[s].first_token;
        const int32_t end = begin + a->seqs[s].n_tokens;
        for (int32_t other = 0; other < s; other++) {
            const int32_t other_begin = a->seqs[other].first_token;
            if (begin < other_begin + a->seqs[other].n_tokens && other_begin < end) {
                return false;
            }
        }
    }
    return n == a->n_tokens;
}

static base_status check_seq(const kern_attn_args *a, int32_t s)
{
    const kern_attn_seq *seq = &a->seqs[s];

    if (!range_fits(seq->first_token, seq->n_tokens, a->n_tokens) ||
        !range_fits(seq->first_page, seq->n_pages, a->n_page_list) ||
        !range_fits(seq->first_open, seq->n_opens, a->n_opens)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "attn: sequence %d: tokens %d+%d of %d, pages %d+%d of %d, opens %d+%d "
                         "of %d",
                         s, seq->first_token, seq->n_tokens, a->n_tokens, seq->first_page,
                         seq->n_pages, a->n_page_list, seq->first_open, seq->n_opens, a->n_opens);
    }
    if (seq->position < 0 || seq->position > MAX_POSITION - seq->n_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "attn: sequence %d at position %lld", s,
                         (long long)seq->position);
    }
    int32_t before = -1;
    for (int32_t i = seq->first_page; i < seq->first_page + seq->n_pages; i++) {
        const kern_attn_page *p = &a->page_list[i];
        if (p->block <= before || p->page < 0 || p->page >= a->n_pages_total) {
            return BASE_FAIL(BASE_BAD_INPUT, "attn: sequence %d: block %d after %d, page %d of %d",
                             s, p->block, before, p->page, a->n_pages_total);
        }
        before = p->block;
    }
    for (int32_t i = seq->first_open; i < seq->first_open + seq->n_opens; i++) {
        if (a->opens[i].block < 0 || a->opens[i].rows == NULL) {
            return BASE_FAIL(BASE_BAD_INPUT, "attn: sequence %d: open block %d", s,
                             a->opens[i].block);
        }
    }
    return BASE_OK;
}

base_status kern_attn_check(const kern_attn_args *args)
{
    base_status st = BASE_OK;

    if (args->n_kv_heads < 1 || args->n_heads < 1 || args->n_heads % args->n_kv_heads != 0 ||
        args->n_heads / args->n_kv_heads > MAX_GROUP) {
        return BASE_FAIL(BASE_BAD_INPUT, "attn: %d heads over %d KV heads, groups 1..%d",
                         args->n_heads, args->n_kv_heads, MAX_GROUP);
    }
    if (args->n_tokens < 0 || args->n_seqs < 0 || args->n_page_list < 0 || args->n_opens < 0 ||
        args->n_pages_total < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "attn: %d tokens, %d sequences, %d pages, %d opens",
                         args->n_tokens, args->n_seqs, args->n_page_list, args->n_opens);
    }
    if (args->window_blocks < 0 || args->window_blocks > KERN_MAX_ROW_BLOCKS ||
        args->sink_blocks < 0 || args->sink_blocks > KERN_MAX_ROW_BLOCKS) {
        return BASE_FAIL(BASE_BAD_INPUT, "attn: window of %d blocks, %d sink blocks, allowed 0..%d",
                         args->window_blocks, args->sink_blocks, KERN_MAX_ROW_BLOCKS);
    }
    BASE_TRY(st, out,
             kern_formats_check_pages("attn", args->formats, args->n_kv_heads, args->head_dim,
                                      args->page_stride));
    for (int32_t s = 0; s < args->n_seqs; s++) {
        BASE_TRY(st, out, check_seq(args, s));
    }
    if (!tokens_are_covered(args)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "attn: %d sequences do not cover %d tokens once each",
                       args->n_seqs, args->n_tokens);
    }
out:
    return st;
}

base_status kern_attn(struct kern_ctx *ctx, const kern_attn_args *args)
{
    const base_status st = kern_attn_check(args);
    return st == BASE_OK ? ctx->backend->attn(ctx, args) : st;
}

/* Rows of an open block that some query of the sequence sees. */
static int64_t visible_rows(const kern_attn_args *args, const kern_attn_seq *seq, int32_t block)
{
    const int64_t begin = (int64_t)block * KERN_BLOCK_TOKENS;
    const int64_t end = (int64_t)kern_attn_page_from(args, block) * KERN_BLOCK_TOKENS;
    const int64_t n_rows = seq->position + seq->n_tokens - begin;

    if (n_rows <= 0 || seq->position >= end) {
        return 0;
    }
    return n_rows < KERN_BLOCK_TOKENS ? n_rows : KERN_BLOCK_TOKENS;
}

int64_t kern_attn_bytes(const kern_attn_args *args)
{
    const int64_t row_bytes =
        (int64_t)args->n_kv_heads * 2 * args->head_dim * (int64_t)sizeof(uint16_t);
    int64_t block_bytes = 0;
    int64_t n_bytes = 0;

    for (int32_t h = 0; h < args->n_kv_heads; h++) {
        block_bytes += args->formats[h].head_page_bytes;
    }
    for (int32_t s = 0; s < args->n_seqs; s++) {
        const kern_attn_seq *seq = &args->seqs[s];
        if (seq->n_tokens == 0) {
            continue;
        }
        const int64_t last = (seq->position + seq->n_tokens - 1) / KERN_BLOCK_TOKENS;
        for (int32_t i = seq->first_page; i < seq->first_page + seq->n_pages; i++) {
            n_bytes +=
                kern_attn_page_from(args, args->page_list[i].block) <= last ? block_bytes : 0;
        }
        for (int32_t i = seq->first_open; i < seq->first_open + seq->n_opens; i++) {
            n_bytes += visible_rows(args, seq, args->opens[i].block) * row_bytes;
        }
    }
    return n_bytes;
}
