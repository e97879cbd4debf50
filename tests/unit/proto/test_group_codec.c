#include "base/hash.h"
#include "proto/group_codec.h"
#include "tests/support/codec_same.h"
#include "tests/support/codec_test.h"

#include <math.h>
#include <stdlib.h>

#define N_RANDOM 200
#define MAX_IDS  12

CODEC(up, group_up, group_up_decode(bytes, mem, &got), mem->put(mem->ctx, decoded),
      group_up_encode(value, out), same_up(a, b));
CODEC(down, group_down, group_down_decode(bytes, mem, &got), mem->put(mem->ctx, decoded),
      group_down_encode(value, out), same_down(a, b));

/* ---- contents ---- */

typedef struct up_parts {
    char model[40], build[20], reason[100], tokenizer[200], config[50];
    base_hash hash;
    int64_t blocks[16], weights[16];
    int32_t blocks_used[16];
    int32_t eos_ids[GROUP_MAX_EOS_IDS + 1];
    int32_t ids[MAX_IDS];
    float logprobs[MAX_IDS];
    int32_t top_ids[MAX_IDS * INFERENCE_MAX_LOGPROBS];
    float top_logprobs[MAX_IDS * INFERENCE_MAX_LOGPROBS];
} up_parts;

static base_view hash_of(base_view bytes, base_hash *hash)
{
    base_hasher *hasher = NULL;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add(hasher, bytes.data, bytes.n_bytes);
    *hash = base_hasher_end(hasher);
    return (base_view){(const char *)hash->bytes, BASE_HASH_BYTES};
}

static group_up random_hello(codec_random *r, up_parts *p)
{
    group_up u = {.kind = GROUP_UP_HELLO};
    u.hello = (group_hello){
        .protocol = GROUP_PROTOCOL,
        .page_format = draw_i32(r),
        .build = draw_text(r, p->build, sizeof p->build),
        .model = draw_text(r, p->model, sizeof p->model),
        .model_hash = base_view_of("00ff"),
        .policy = base_view_of("kivi:k=2,v=2,g=32"),
        .policy_hash = base_view_of("abcd"),
        .ranks = 1 + (int32_t)draw(r, 16),
        .max_context = 1 + draw_i64(r) / 2,
        .max_batch = 1 + draw_i32(r) / 2,
        .vocab_size = 1 + draw_i32(r) / 2,
        .n_layers = draw_i32(r),
        .n_heads = draw_i32(r),
        .n_kv_heads = draw_i32(r),
        .head_dim = draw_i32(r),
        .k_bits_per_element = 3.125,
        .v_bits_per_element = (double)draw_unit(r),
        .bytes_per_token = draw_i64(r),
        .bytes_per_page = draw_i64(r),
        .blocks_total_per_rank = p->blocks,
        .weight_bytes_per_rank = p->weights,
        .exchange = base_view_of("lsa"),
        .tokenizer_json = draw_text(r, p->tokenizer, sizeof p->tokenizer),
        .generation_config_json = draw_text(r, p->config, sizeof p->config),
        .eos_ids = p->eos_ids,
        .n_eos_ids = draw_i32s(r, p->eos_ids, draw(r, GROUP_MAX_EOS_IDS + 1)),
    };
    for (int32_t i = 0; i < u.hello.ranks; i++) {
        p->blocks[i] = draw_i64(r);
        p->weights[i] = draw_i64(r);
    }
    u.hello.tokenizer_sha256 = hash_of(u.hello.tokenizer_json, &p->hash);
    return u;
}

static group_up random_tokens(codec_random *r, up_parts *p, size_t n_ids, int32_t n_top)
{
    group_up u = {.kind = GROUP_UP_TOKENS, .seq = draw(r, UINT64_MAX), .n_top = n_top};
    const size_t n_tops = n_ids * (size_t)n_top;
    u.ids = p->ids;
    u.n_ids = draw_i32s(r, p->ids, n_ids);
    if (n_ids > 0 && draw(r, 2) == 1) {
        draw_logprobs(r, p->logprobs, n_ids);
        u.logprobs = p->logprobs;
    }
    (void)draw_i32s(r, p->top_ids, n_tops);
    draw_logprobs(r, p->top_logprobs, n_tops);
    u.top_ids = p->top_ids;
    u.top_logprobs = p->top_logprobs;
    return u;
}

static group_up random_up(codec_random *r, up_parts *p, group_up_kind kind)
{
    group_up u = {.kind = kind};

    if (kind == GROUP_UP_HELLO) {
        return random_hello(r, p);
    }
    if (kind == GROUP_UP_TOKENS) {
        const size_t n_ids = draw(r, MAX_IDS + 1);
        return random_tokens(r, p, n_ids, (int32_t)draw(r, INFERENCE_MAX_LOGPROBS + 1));
    }
    if (kind == GROUP_UP_LOAD) {
        u.running = draw_i32(r);
        u.waiting = draw_i32(r);
        u.steps = draw(r, UINT64_MAX);
        u.blocks_free_per_rank = p->blocks;
        u.n_blocks_free = draw(r, 17);
        for (size_t i = 0; i < u.n_blocks_free; i++) {
            p->blocks[i] = draw_i64(r);
        }
        return u;
    }
    u.seq = draw(r, UINT64_MAX);
    if (kind == GROUP_UP_ADMITTED) {
        u.start_rank = (int32_t)draw(r, GROUP_MAX_RANKS);
    } else if (kind == GROUP_UP_REFUSED) {
        u.retry = draw(r, 2) == 1;
        u.invalid = draw(r, 2) == 1;
        u.reason_text = draw_text(r, p->reason, sizeof p->reason);
    } else if (kind == GROUP_UP_PROGRESS) {
        u.total = draw_i64(r);
        u.done = (int64_t)draw(r, (uint64_t)u.total + 1);
    } else {
        u.reason = (group_end_reason)(1 + draw(r, 4));
        u.stop_id = draw_i32(r);
        u.blocks_per_rank = p->blocks_used;
        u.n_blocks_per_rank = draw_i32s(r, p->blocks_used, draw(r, 17));
    }
    return u;
}

typedef struct down_parts {
    char build[50];
    int32_t prompt[100];
    int32_t stop_ids[INFERENCE_MAX_STOP_IDS + 1];
    int32_t eos_ids[GROUP_MAX_EOS_IDS + 1];
} down_parts;

static group_down random_down(codec_random *r, down_parts *p, group_down_kind kind)
{
    group_down d = {.kind = kind};

    switch (kind) {
    case GROUP_DOWN_WELCOME:
        d.protocol = draw_i32(r);
        d.build = draw_text(r, p->build, sizeof p->build);
        break;
    case GROUP_DOWN_ADMIT:
        d.seq = draw(r, UINT64_MAX);
        d.admit = (group_admit){
            .prompt = p->prompt,
            .n_prompt = draw_i32s(r, p->prompt, 1 + draw(r, 100)),
            .start_rank = (int32_t)draw(r, GROUP_MAX_RANKS),
            .sampling = {.temperature = 100 * draw_unit(r),
                         .top_p = 1 - draw_unit(r) / 2,
                         .min_p = draw_unit(r),
                         .repetition_penalty = 100 - 99 * draw_unit(r),
                         .top_k = draw_i32(r),
                         .seed = draw(r, UINT64_MAX)},
            .max_new_tokens = 1 + (int32_t)draw(r, INFERENCE_MAX_NEW_TOKENS),
            .stop_ids = p->stop_ids,
            .n_stop_ids = draw_i32s(r, p->stop_ids, draw(r, INFERENCE_MAX_STOP_IDS + 1)),
            .eos_ids = p->eos_ids,
            .n_eos_ids = draw_i32s(r, p->eos_ids, draw(r, GROUP_MAX_EOS_IDS + 1)),
            .logprobs = (int32_t)draw(r, INFERENCE_MAX_LOGPROBS + 1),
            .credit = draw_i32(r),
        };
        d.admit.n_sent = (int32_t)draw(r, d.admit.n_prompt);
        break;
    case GROUP_DOWN_CREDIT: d.credit = 1 + draw_i32(r) / 2; /* fallthrough */
    case GROUP_DOWN_CANCEL: d.seq = draw(r, UINT64_MAX); break;
    case GROUP_DOWN_DRAIN:
    case GROUP_DOWN_PING: break;
    }
    return d;
}

/* ---- round trips ---- */

static void every_message_comes_back_as_it_went(void **state)
{
    (void)state;
    codec_random r = {.seed = 1};
    up_parts upp;
    down_parts dp;

    for (int i = 0; i < N_RANDOM; i++) {
        for (group_up_kind k = GROUP_UP_HELLO; k <= GROUP_UP_LOAD; k++) {
            const group_up u = random_up(&r, &upp, k);
            codec_check_round_trip(&up, &u);
        }
        for (group_down_kind k = GROUP_DOWN_WELCOME; k <= GROUP_DOWN_PING; k++) {
            const group_down d = random_down(&r, &dp, k);
            codec_check_round_trip(&down, &d);
        }
    }
}

static void limits_themselves_are_allowed(void **state)
{
    (void)state;
    codec_random r = {.seed = 2};
    up_parts p;
    static int64_t blocks[GROUP_MAX_RANKS] = {INT64_MAX};
    group_up hello = random_hello(&r, &p);
    hello.hello.ranks = GROUP_MAX_RANKS;
    hello.hello.blocks_total_per_rank = blocks;
    hello.hello.weight_bytes_per_rank = blocks;
    hello.hello.n_eos_ids = draw_i32s(&r, p.eos_ids, GROUP_MAX_EOS_IDS);
    const group_up tokens = random_tokens(&r, &p, MAX_IDS, INFERENCE_MAX_LOGPROBS);
    codec_check_round_trip(&up, &hello);
    codec_check_round_trip(&up, &tokens);

    int32_t prompt[] = {INT32_MAX, 0};
    const group_down d = {.kind = GROUP_DOWN_ADMIT,
                          .admit = {.prompt = prompt,
                                    .n_prompt = 2,
                                    .n_sent = 1,
                                    .start_rank = GROUP_MAX_RANKS - 1,
                                    .sampling = {.top_p = 1, .repetition_penalty = 100},
                                    .max_new_tokens = INFERENCE_MAX_NEW_TOKENS,
                                    .logprobs = INFERENCE_MAX_LOGPROBS,
                                    .credit = INT32_MAX}};
    codec_check_round_trip(&down, &d);
}

static void a_group_may_have_no_tokenizer(void **state)
{
    (void)state;
    codec_random r = {.seed = 3};
    up_parts p;
    group_up u = random_hello(&r, &p);
    u.hello.tokenizer_json = (base_view){NULL, 0};
    u.hello.tokenizer_sha256 = (base_view){NULL, 0};
    codec_check_round_trip(&up, &u);
}

static void tokens_without_top_lists_have_none(void **state)
{
    (void)state;
    static const char bytes[] = "\x2a\x05\x08\x07\x12\x01\x09"; /* seq 7, ids [9] */
    group_up *u = NULL;
    CHECK_STATUS(group_up_decode((base_view){bytes, sizeof bytes - 1}, &base_heap, &u), BASE_OK);
    assert_int_equal(u->kind, GROUP_UP_TOKENS);
    assert_int_equal(u->seq, 7);
    assert_int_equal(u->n_ids, 1);
    assert_int_equal(u->ids[0], 9);
    assert_null(u->logprobs);
    assert_null(u->top_ids);
    assert_null(u->top_logprobs);
    base_heap.put(base_heap.ctx, u);
}

/* ---- refusals ---- */

static void a_hello_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    codec_random r = {.seed = 4};
    up_parts p;
    group_up u = random_hello(&r, &p);
    static int64_t many_blocks[GROUP_MAX_RANKS + 1];
    int64_t negative_blocks[16] = {0, -1};
    int32_t negative[] = {-1};
    base_hash other;
    const base_view wrong_hash = hash_of(base_view_of("other bytes"), &other);
    u.hello.ranks = 2;

    codec_check_round_trip(&up, &u);
    REFUSED(up, u, x->hello.protocol = -1, "field 'hello.protocol' is 4294967295");
    REFUSED(up, u, x->hello.page_format = -1, "field 'hello.page_format' is");
    REFUSED(up, u, x->hello.build = base_view_of("\xff"),
            "field 'hello.build' is not valid UTF-8 at byte 0");
    REFUSED(up, u, x->hello.model = base_view_of("\xff"), "field 'hello.model' is not");
    REFUSED(up, u, x->hello.model_hash = base_view_of("\xff"), "field 'hello.model_hash' is not");
    REFUSED(up, u, x->hello.policy = base_view_of("\xff"), "field 'hello.policy' is not");
    REFUSED(up, u, x->hello.policy_hash = base_view_of("\xff"), "field 'hello.policy_hash' is not");
    REFUSED(up, u, x->hello.ranks = 0, "field 'hello.ranks' is 0, allowed 1..1024");
    REFUSED(up, u,
            (x->hello.ranks = 1025, x->hello.blocks_total_per_rank = many_blocks,
             x->hello.weight_bytes_per_rank = many_blocks),
            "field 'hello.ranks' is 1025, allowed 1..1024");
    REFUSED(up, u, x->hello.max_context = 0,
            "field 'hello.max_context' is 0, allowed 1..9223372036854775807");
    REFUSED(up, u, x->hello.max_context = -1, "field 'hello.max_context' is 18446744073709551615");
    REFUSED(up, u, x->hello.max_batch = 0, "field 'hello.max_batch' is 0");
    REFUSED(up, u, x->hello.vocab_size = 0, "field 'hello.vocab_size' is 0");
    REFUSED(up, u, x->hello.n_layers = -1, "field 'hello.n_layers' is");
    REFUSED(up, u, x->hello.n_heads = -1, "field 'hello.n_heads' is");
    REFUSED(up, u, x->hello.n_kv_heads = -1, "field 'hello.n_kv_heads' is");
    REFUSED(up, u, x->hello.head_dim = -1, "field 'hello.head_dim' is");
    REFUSED(up, u, x->hello.k_bits_per_element = NAN, "field 'hello.k_bits_per_element' is nan");
    REFUSED(up, u, x->hello.v_bits_per_element = INFINITY,
            "field 'hello.v_bits_per_element' is inf");
    REFUSED(up, u, x->hello.bytes_per_token = -1, "field 'hello.bytes_per_token' is");
    REFUSED(up, u, x->hello.bytes_per_page = -1, "field 'hello.bytes_per_page' is");
    REFUSED(up, u, x->hello.blocks_total_per_rank = negative_blocks,
            "field 'hello.blocks_total_per_rank[1]' is 18446744073709551615");
    REFUSED(up, u, x->hello.weight_bytes_per_rank = negative_blocks,
            "field 'hello.weight_bytes_per_rank[1]' is 18446744073709551615");
    REFUSED(up, u, x->hello.exchange = base_view_of("\xff"), "field 'hello.exchange' is not");
    REFUSED(up, u, x->hello.n_eos_ids = 65, "field 'hello.eos_ids' has 65 entries, allowed 0..64");
    REFUSED(up, u, (x->hello.eos_ids = negative, x->hello.n_eos_ids = 1),
            "field 'hello.eos_ids[0]' is 4294967295");
    REFUSED(up, u, x->hello.tokenizer_sha256 = wrong_hash,
            "field 'hello.tokenizer_sha256' is not the hash");
    REFUSED(up, u, x->hello.tokenizer_sha256.n_bytes = 15,
            "field 'hello.tokenizer_sha256' has 15 bytes, allowed 16");
    REFUSED(up, u, x->hello.tokenizer_sha256.n_bytes = 0,
            "field 'hello.tokenizer_sha256' has 0 bytes, allowed 16");
}

static void an_event_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    codec_random r = {.seed = 5};
    up_parts p;
    group_up admitted = {.kind = GROUP_UP_ADMITTED, .start_rank = GROUP_MAX_RANKS - 1};
    group_up refused = {.kind = GROUP_UP_REFUSED, .reason_text = base_view_of("no blocks")};
    group_up progress = {.kind = GROUP_UP_PROGRESS, .done = 4, .total = 4};
    group_up tokens = random_tokens(&r, &p, 3, 2);
    group_up ended = random_up(&r, &p, GROUP_UP_ENDED);
    group_up load = random_up(&r, &p, GROUP_UP_LOAD);
    int32_t negative[6] = {1, 2, -1};
    float nans[6] = {0, 0, NAN};
    static int32_t many[GROUP_MAX_RANKS + 1];
    int64_t negative_blocks[] = {-1};
    static int64_t many_blocks[GROUP_MAX_RANKS + 1];

    codec_check_round_trip(&up, &admitted);
    codec_check_round_trip(&up, &progress);
    REFUSED(up, admitted, x->start_rank = 1024,
            "field 'admitted.start_rank' is 1024, allowed 0..1023");
    REFUSED(up, refused, x->reason_text = base_view_of("a\xff"),
            "field 'refused.reason' is not valid UTF-8 at byte 1");
    REFUSED(up, progress, x->done = 5, "field 'progress.done' is 5, allowed 0..4");
    REFUSED(up, progress, x->total = -1, "field 'progress.total' is");
    REFUSED(up, tokens, x->ids = negative, "field 'tokens.ids[2]' is 4294967295");
    REFUSED(up, tokens, x->logprobs = nans, "field 'tokens.logprobs[2]' is nan");
    REFUSED(up, tokens, x->top_ids = negative, "field 'tokens.top_ids[2]' is 4294967295");
    REFUSED(up, tokens, x->top_logprobs = nans, "field 'tokens.top_logprobs[2]' is nan");
    REFUSED(up, tokens, x->n_top = 21, "field 'tokens.n_top' is 21, allowed 0..20");
    REFUSED(up, ended, x->reason = GROUP_END_UNSPECIFIED,
            "field 'ended.reason' is 0, allowed 1..4");
    REFUSED(up, ended, x->reason = (group_end_reason)5, "field 'ended.reason' is 5, allowed 1..4");
    REFUSED(up, ended, x->stop_id = -1, "field 'ended.stop_id' is");
    REFUSED(up, ended, (x->blocks_per_rank = many, x->n_blocks_per_rank = 1025),
            "field 'ended.blocks_per_rank' has 1025 entries, allowed 0..1024");
    REFUSED(up, ended, (x->blocks_per_rank = negative, x->n_blocks_per_rank = 3),
            "field 'ended.blocks_per_rank[2]' is");
    REFUSED(up, load, x->running = -1, "field 'load.running' is");
    REFUSED(up, load, x->waiting = -1, "field 'load.waiting' is");
    REFUSED(up, load, (x->blocks_free_per_rank = many_blocks, x->n_blocks_free = 1025),
            "field 'load.blocks_free_per_rank' has 1025 entries");
    REFUSED(up, load, (x->blocks_free_per_rank = negative_blocks, x->n_blocks_free = 1),
            "field 'load.blocks_free_per_rank[0]' is");
}

/* Arrays that disagree, which our encoder cannot write. */
static void arrays_of_other_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        const char *error;
    } table[] = {
        {"\x2a\x0a\x12\x02\x01\x02\x1a\x04\0\0\0\0", 12,
         "field 'tokens.logprobs' has 1 entries, allowed 2"},
        {"\x2a\x08\x12\x01\x01\x20\x02\x2a\x01\x05", 10,
         "field 'tokens.top_ids' has 1 entries, allowed 2"},
        {"\x2a\x09\x12\x01\x01\x20\x02\x2a\x02\x05\x06", 11,
         "field 'tokens.top_logprobs' has 0 entries, allowed 2"},
        {"\x2a\x03\x2a\x01\x05", 5, "field 'tokens.top_ids' has 1 entries, allowed 0"},
        {"\x0a\x09\x40\x01\x48\x01\x50\x01\x58\x01", 10, "no FromGroup"},
        {"\x0a\x08\x40\x01\x48\x01\x50\x01\x58\x01", 10,
         "field 'hello.blocks_total_per_rank' has 0 entries, allowed 1"},
        {"\x0a\x0c\x40\x01\x48\x01\x50\x01\x58\x01\xa2\x01\x01\x05", 14,
         "field 'hello.weight_bytes_per_rank' has 0 entries, allowed 1"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        group_up *u = NULL;
        CHECK_STATUS(group_up_decode((base_view){table[i].bytes, table[i].n_bytes}, &base_heap, &u),
                     BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(table[i].error);
        assert_null(u);
    }
}

static void an_order_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    codec_random r = {.seed = 6};
    down_parts p;
    group_down welcome = {.kind = GROUP_DOWN_WELCOME, .protocol = 1};
    group_down credit = {.kind = GROUP_DOWN_CREDIT, .credit = 1};
    group_down a = random_down(&r, &p, GROUP_DOWN_ADMIT);
    a.admit.n_prompt = 3;
    a.admit.n_sent = 2;
    int32_t negative[] = {0, 0, -1};

    codec_check_round_trip(&down, &welcome);
    codec_check_round_trip(&down, &credit);
    codec_check_round_trip(&down, &a);
    REFUSED(down, welcome, x->protocol = -1, "field 'welcome.protocol' is");
    REFUSED(down, welcome, x->build = base_view_of("\xff"), "field 'welcome.build' is not valid");
    REFUSED(down, credit, x->credit = 0, "field 'credit.tokens' is 0, allowed 1..2147483647");
    REFUSED(down, credit, x->credit = -1, "field 'credit.tokens' is 4294967295");
    REFUSED(down, a, (x->admit.n_prompt = 0, x->admit.n_sent = 0),
            "field 'admit.prompt' has 0 entries, allowed 1..");
    REFUSED(down, a, x->admit.prompt = negative, "field 'admit.prompt[2]' is 4294967295");
    REFUSED(down, a, x->admit.n_sent = 3, "field 'admit.n_sent' is 3, allowed 0..2");
    REFUSED(down, a, x->admit.start_rank = 1024,
            "field 'admit.start_rank' is 1024, allowed 0..1023");
    REFUSED(down, a, x->admit.sampling.temperature = 101,
            "field 'admit.temperature' is 101, allowed [0, 100]");
    REFUSED(down, a, x->admit.sampling.top_p = 0, "field 'admit.top_p' is 0, allowed (0, 1]");
    REFUSED(down, a, x->admit.sampling.min_p = NAN, "field 'admit.min_p' is nan");
    REFUSED(down, a, x->admit.sampling.repetition_penalty = 0,
            "field 'admit.repetition_penalty' is 0");
    REFUSED(down, a, x->admit.sampling.top_k = -1, "field 'admit.top_k' is");
    REFUSED(down, a, x->admit.max_new_tokens = 0,
            "field 'admit.max_new_tokens' is 0, allowed 1..16777216");
    REFUSED(down, a, x->admit.max_new_tokens = INFERENCE_MAX_NEW_TOKENS + 1,
            "field 'admit.max_new_tokens' is 16777217");
    REFUSED(down, a, x->admit.n_stop_ids = 65,
            "field 'admit.stop_ids' has 65 entries, allowed 0..64");
    REFUSED(down, a, (x->admit.stop_ids = negative, x->admit.n_stop_ids = 3),
            "field 'admit.stop_ids[2]' is");
    REFUSED(down, a, x->admit.n_eos_ids = 65,
            "field 'admit.eos_ids' has 65 entries, allowed 0..64");
    REFUSED(down, a, (x->admit.eos_ids = negative, x->admit.n_eos_ids = 3),
            "field 'admit.eos_ids[2]' is");
    REFUSED(down, a, x->admit.logprobs = 21, "field 'admit.logprobs' is 21, allowed 0..20");
    REFUSED(down, a, x->admit.credit = -1, "field 'admit.credit' is");
}

static void a_message_of_no_kind_is_refused(void **state)
{
    (void)state;
    group_up *u = NULL;
    group_down *d = NULL;
    CHECK_STATUS(group_up_decode((base_view){NULL, 0}, &base_heap, &u), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'event' is missing");
    CHECK_STATUS(group_down_decode((base_view){"\x7a\x00", 2}, &base_heap, &d), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'event' is missing");
    assert_null(u);
    assert_null(d);
}

/* ---- damage ---- */

typedef void (*codec_check)(const codec_under_test *codec, base_view bytes);

static void over_samples(codec_check check)
{
    codec_random r = {.seed = 7};
    up_parts upp;
    down_parts dp;
    base_bytes bytes;
    base_bytes_init(&bytes, 100000, &base_heap);

    for (group_up_kind k = GROUP_UP_HELLO; k <= GROUP_UP_LOAD; k++) {
        const group_up u =
            k == GROUP_UP_TOKENS ? random_tokens(&r, &upp, 3, 2) : random_up(&r, &upp, k);
        CHECK_STATUS(group_up_encode(&u, &bytes), BASE_OK);
        check(&up, base_bytes_view(&bytes));
        base_bytes_reset(&bytes);
    }
    for (group_down_kind k = GROUP_DOWN_WELCOME; k <= GROUP_DOWN_PING; k++) {
        const group_down d = random_down(&r, &dp, k);
        CHECK_STATUS(group_down_encode(&d, &bytes), BASE_OK);
        check(&down, base_bytes_view(&bytes));
        base_bytes_reset(&bytes);
    }
}

static void a_message_cut_anywhere_does_no_harm(void **state)
{
    (void)state;
    over_samples(codec_check_cuts);
}

static void fields_of_a_later_version_are_ignored(void **state)
{
    (void)state;
    over_samples(codec_check_unknown_fields);
}

static void decoding_survives_every_failed_allocation(void **state)
{
    (void)state;
    over_samples(codec_check_decode_without_memory);
}

static void encoding_is_all_or_nothing(void **state)
{
    (void)state;
    codec_random r = {.seed = 8};
    up_parts upp;
    down_parts dp;
    const group_up hello = random_hello(&r, &upp);
    const group_up tokens = random_tokens(&r, &upp, MAX_IDS, 5);
    const group_down admit = random_down(&r, &dp, GROUP_DOWN_ADMIT);
    codec_check_encode_fails_whole(&up, &hello);
    codec_check_encode_fails_whole(&up, &tokens);
    codec_check_encode_fails_whole(&down, &admit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_went),
        cmocka_unit_test(limits_themselves_are_allowed),
        cmocka_unit_test(a_group_may_have_no_tokenizer),
        cmocka_unit_test(tokens_without_top_lists_have_none),
        cmocka_unit_test(a_hello_past_a_limit_is_refused_by_name),
        cmocka_unit_test(an_event_past_a_limit_is_refused_by_name),
        cmocka_unit_test(arrays_of_other_lengths_are_refused),
        cmocka_unit_test(an_order_past_a_limit_is_refused_by_name),
        cmocka_unit_test(a_message_of_no_kind_is_refused),
        cmocka_unit_test(a_message_cut_anywhere_does_no_harm),
        cmocka_unit_test(fields_of_a_later_version_are_ignored),
        cmocka_unit_test(decoding_survives_every_failed_allocation),
        cmocka_unit_test(encoding_is_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
