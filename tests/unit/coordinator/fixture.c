#include "tests/unit/coordinator/fixture.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <time.h>

/* ---- waiting ---- */

static void init_lock(pthread_mutex_t *mutex, pthread_cond_t *changed)
{
    pthread_condattr_t monotonic;
    (void)pthread_mutex_init(mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
}

/* One wait until until_us; false when that time has come.  The mutex is held. */
static bool wait_change(pthread_mutex_t *mutex, pthread_cond_t *changed, int64_t until_us)
{
    if (base_now_us() >= until_us) {
        return false;
    }
    const struct timespec at = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    (void)pthread_cond_timedwait(changed, mutex, &at);
    return true;
}

static int64_t until(int64_t wait_ms)
{
    return base_now_us() + wait_ms * 1000;
}

/* ---- the coordinator ---- */

void fixture_start(fixture *f, int32_t max_waiting, int64_t wait_for_group_ms)
{
    const coord_options options = {.listen = "127.0.0.1:0",
                                   .attach = "127.0.0.1:0",
                                   .max_waiting = max_waiting,
                                   .wait_for_group_ms = wait_for_group_ms};
    *f = (fixture){.c = NULL};
    rpc_init();
    CHECK_STATUS(coordinator_create(&options, &base_heap, &f->c), BASE_OK);
    (void)snprintf(f->listen, sizeof f->listen, "127.0.0.1:%d", coordinator_listen_port(f->c));
    (void)snprintf(f->attach, sizeof f->attach, "127.0.0.1:%d", coordinator_attach_port(f->c));
    CHECK_STATUS(rpc_channel_create(f->listen, &f->clients), BASE_OK);
    CHECK_STATUS(base_file_read(FIXTURE_TOKENIZER, (size_t)16 << 20, &base_heap, &f->tokenizer_json,
                                &f->n_tokenizer_bytes),
                 BASE_OK);
}

void fixture_stop(fixture *f)
{
    rpc_channel_destroy(f->clients);
    coordinator_destroy(f->c);
    base_heap.put(base_heap.ctx, f->tokenizer_json);
    rpc_shutdown();
}

static void unary(fixture *f, const char *path, base_bytes *reply)
{
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1];
    base_bytes_init(reply, RPC_MAX_MESSAGE_BYTES, &base_heap);
    CHECK_STATUS(rpc_client_unary(f->clients, path, (base_view){NULL, 0}, FIXTURE_WAIT_MS, reply,
                                  &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_OK);
}

inference_model_info *fixture_info(fixture *f)
{
    base_bytes reply;
    inference_model_info *info = NULL;
    unary(f, "/ropewalk.v1.Inference/ModelInfo", &reply);
    CHECK_STATUS(inference_model_info_decode(base_bytes_view(&reply), &base_heap, &info), BASE_OK);
    base_bytes_reset(&reply);
    return info;
}

void fixture_wait_waiting(fixture *f, int32_t n_waiting)
{
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    int32_t n_now = -1;
    while (n_now != n_waiting && base_now_us() < until_us) {
        inference_model_info *info = fixture_info(f);
        n_now = info->waiting;
        base_heap.put(base_heap.ctx, info);
        base_sleep_us(2000);
    }
    assert_int_equal(n_now, n_waiting);
}

bool fixture_is_serving(fixture *f)
{
    base_bytes reply;
    unary(f, "/grpc.health.v1.Health/Check", &reply);
    assert_int_equal(reply.n_bytes, 2); /* field 1, one varint: 1 is SERVING, 2 is NOT_SERVING */
    const bool serving = reply.data[1] == 1;
    base_bytes_reset(&reply);
    return serving;
}

/* ---- the group ---- */

static void on_down(void *ctx, rpc_call *call, base_view message)
{
    fake_group *g = ctx;
    group_down *down = NULL;
    (void)call;
    const base_status st = group_down_decode(message, &base_heap, &down);
    (void)pthread_mutex_lock(&g->mutex);
    if (st == BASE_OK && down->kind != GROUP_DOWN_PING && g->n_downs < FIXTURE_MAX_DOWNS) {
        g->downs[g->n_downs++] = down;
        down = NULL;
    }
    g->n_pings += down != NULL;
    (void)pthread_cond_broadcast(&g->changed);
    (void)pthread_mutex_unlock(&g->mutex);
    base_heap.put(base_heap.ctx, down);
}

static void on_group_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    fake_group *g = ctx;
    (void)call;
    (void)pthread_mutex_lock(&g->mutex);
    g->ended = true;
    g->code = code;
    g->ended_us = base_now_us();
    (void)snprintf(g->text, sizeof g->text, "%s", text);
    (void)pthread_cond_broadcast(&g->changed);
    (void)pthread_mutex_unlock(&g->mutex);
}

static const int64_t blocks_total[] = {8, 8};
static const int64_t weight_bytes[] = {5, 6};
static const int32_t eos_ids[] = {FIXTURE_EOS};

group_hello fake_hello(const fixture *f, int32_t max_batch)
{
    static base_hash hash; /* the last tokenizer's; all fixtures use the same one */
    base_hasher *hasher = NULL;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add(hasher, f->tokenizer_json, f->n_tokenizer_bytes);
    hash = base_hasher_end(hasher);
    return (group_hello){
        .protocol = GROUP_PROTOCOL,
        .page_format = 1,
        .build = base_view_of("test"),
        .model = base_view_of("demo"),
        .model_hash = base_view_of("00112233445566778899aabbccddeeff"),
        .policy = base_view_of("tq:k=4,v=4"),
        .policy_hash = base_view_of("ffeeddccbbaa99887766554433221100"),
        .ranks = 2,
        .max_context = FIXTURE_MAX_CONTEXT,
        .max_batch = max_batch,
        .vocab_size = FIXTURE_VOCAB,
        .n_layers = 6,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 128,
        .k_bits_per_element = 4.125,
        .v_bits_per_element = 4.125,
        .bytes_per_token = 1584,
        .bytes_per_page = 202752,
        .blocks_total_per_rank = blocks_total,
        .weight_bytes_per_rank = weight_bytes,
        .exchange = base_view_of("mpi"),
        .tokenizer_json = {f->tokenizer_json, f->n_tokenizer_bytes},
        .tokenizer_sha256 = {(const char *)hash.bytes, BASE_HASH_BYTES},
        .eos_ids = eos_ids,
        .n_eos_ids = 1,
    };
}

void fake_send(fake_group *g, const group_up *up)
{
    base_bytes bytes;
    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &base_heap);
    CHECK_STATUS(group_up_encode(up, &bytes), BASE_OK);
    CHECK_STATUS(rpc_call_send(g->call, base_bytes_view(&bytes)), BASE_OK);
    base_bytes_reset(&bytes);
}

void fake_attach(fake_group *g, const fixture *f, const group_hello *hello)
{
    const rpc_client_handlers handlers = {
        .ctx = g, .on_message = on_down, .on_status = on_group_status};
    const group_up up = {.kind = GROUP_UP_HELLO, .hello = *hello};

    memset(g, 0, sizeof *g);
    init_lock(&g->mutex, &g->changed);
    CHECK_STATUS(rpc_channel_create(f->attach, &g->channel), BASE_OK);
    CHECK_STATUS(rpc_client_start(g->channel, "/ropewalk.v1.Group/Attach", INT64_MAX, 65536,
                                  &handlers, &g->call),
                 BASE_OK);
    fake_send(g, &up);
}

void fake_expect_welcome(fake_group *g)
{
    const group_down *down = fake_next(g, GROUP_DOWN_WELCOME);
    assert_int_equal(down->protocol, GROUP_PROTOCOL);
}

void fake_expect_end(fake_group *g, rpc_code code, const char *text)
{
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    (void)pthread_mutex_lock(&g->mutex);
    while (!g->ended && wait_change(&g->mutex, &g->changed, until_us)) {
    }
    (void)pthread_mutex_unlock(&g->mutex);
    assert_true(g->ended);
    if (g->code != code || strstr(g->text, text) == NULL) {
        fail_msg("the stream ended with %s '%s', want %s and '%s'", rpc_code_name(g->code), g->text,
                 rpc_code_name(code), text);
    }
}

void fake_detach(fake_group *g)
{
    rpc_channel_destroy(g->channel); /* cancels the call and waits for its end */
    rpc_call_unref(g->call);
    for (int i = 0; i < g->n_downs; i++) {
        base_heap.put(base_heap.ctx, g->downs[i]);
    }
    (void)pthread_cond_destroy(&g->changed);
    (void)pthread_mutex_destroy(&g->mutex);
}

static const group_down *next_within(fake_group *g, int64_t wait_ms)
{
    const group_down *down = NULL;
    const int64_t until_us = until(wait_ms);
    (void)pthread_mutex_lock(&g->mutex);
    while (g->n_read == g->n_downs && !g->ended && wait_change(&g->mutex, &g->changed, until_us)) {
    }
    if (g->n_read < g->n_downs) {
        down = g->downs[g->n_read++];
    }
    (void)pthread_mutex_unlock(&g->mutex);
    return down;
}

const group_down *fake_next(fake_group *g, group_down_kind kind)
{
    const group_down *down = next_within(g, FIXTURE_WAIT_MS);
    if (down == NULL) {
        fail_msg("no command came; want kind %d (%s)", kind, g->text);
    } else if (down->kind != kind) {
        fail_msg("command of kind %d, want %d", down->kind, kind);
    }
    return down;
}

bool fake_is_quiet(fake_group *g, int quiet_ms)
{
    return next_within(g, quiet_ms) == NULL;
}

void fake_send_admitted(fake_group *g, uint64_t seq)
{
    fake_send(g, &(group_up){.kind = GROUP_UP_ADMITTED, .seq = seq});
}

void fake_send_tokens(fake_group *g, uint64_t seq, const int32_t *ids, size_t n_ids)
{
    fake_send(g, &(group_up){.kind = GROUP_UP_TOKENS, .seq = seq, .ids = ids, .n_ids = n_ids});
}

void fake_send_ended(fake_group *g, uint64_t seq, group_end_reason reason, int32_t stop_id)
{
    static const int32_t blocks[] = {1, 0};
    fake_send(g, &(group_up){.kind = GROUP_UP_ENDED,
                             .seq = seq,
                             .reason = reason,
                             .stop_id = stop_id,
                             .blocks_per_rank = blocks,
                             .n_blocks_per_rank = 2});
}

void fake_send_load(fake_group *g, int32_t running, int64_t free_per_rank)
{
    const int64_t free_blocks[] = {free_per_rank, free_per_rank};
    fake_send(g, &(group_up){.kind = GROUP_UP_LOAD,
                             .running = running,
                             .blocks_free_per_rank = free_blocks,
                             .n_blocks_free = 2});
}

/* ---- a client ---- */

static void keep(client *cl, const inference_event *event)
{
    switch (event->kind) {
    case INFERENCE_EVENT_PREFILL: cl->n_progress++; break;
    case INFERENCE_EVENT_TOKENS:
        for (size_t i = 0; i < event->n_ids; i++, cl->n_ids++) {
            if (cl->n_ids < FIXTURE_MAX_IDS) {
                cl->ids[cl->n_ids] = event->ids[i];
            }
        }
        if (event->text.n_bytes > 0 && cl->n_text + event->text.n_bytes < sizeof cl->text) {
            memcpy(cl->text + cl->n_text, event->text.data, event->text.n_bytes);
            cl->n_text += event->text.n_bytes;
        }
        cl->n_logprobs += (int)event->n_logprobs;
        break;
    case INFERENCE_EVENT_FINISHED: break;
    }
}

static void on_event(void *ctx, rpc_call *call, base_view message)
{
    client *cl = ctx;
    inference_event *event = NULL;
    (void)call;
    const base_status st = inference_event_decode(message, &base_heap, &event);
    (void)pthread_mutex_lock(&cl->mutex);
    while (cl->paused) {
        (void)pthread_cond_wait(&cl->changed, &cl->mutex);
    }
    if (st == BASE_OK) {
        keep(cl, event);
        if (event->kind == INFERENCE_EVENT_FINISHED && cl->n_finished++ == 0) {
            cl->finished = event;
            event = NULL;
        }
    }
    (void)pthread_cond_broadcast(&cl->changed);
    (void)pthread_mutex_unlock(&cl->mutex);
    inference_event_free(event, &base_heap);
}

static void on_client_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    client *cl = ctx;
    (void)call;
    (void)pthread_mutex_lock(&cl->mutex);
    cl->ended = true;
    cl->code = code;
    (void)snprintf(cl->status, sizeof cl->status, "%s", text);
    (void)pthread_cond_broadcast(&cl->changed);
    (void)pthread_mutex_unlock(&cl->mutex);
}

inference_generate_request client_request(const char *text)
{
    return (inference_generate_request){
        .has_text = true,
        .text = base_view_of(text),
        .given = INFERENCE_GIVEN_MAX_NEW_TOKENS | INFERENCE_GIVEN_SEED,
        .sampling = {.top_p = 1, .repetition_penalty = 1, .seed = 7},
        .max_new_tokens = 32};
}

void client_start(client *cl, rpc_channel *channel, const inference_generate_request *request,
                  int64_t timeout_ms)
{
    const rpc_client_handlers handlers = {
        .ctx = cl, .on_message = on_event, .on_status = on_client_status};
    base_bytes bytes;

    memset(cl, 0, sizeof *cl);
    init_lock(&cl->mutex, &cl->changed);
    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &base_heap);
    CHECK_STATUS(inference_generate_request_encode(request, &bytes), BASE_OK);
    CHECK_STATUS(rpc_client_start(channel, "/ropewalk.v1.Inference/Generate", timeout_ms, 4,
                                  &handlers, &cl->call),
                 BASE_OK);
    CHECK_STATUS(rpc_call_send(cl->call, base_bytes_view(&bytes)), BASE_OK);
    rpc_client_half_close(cl->call);
    base_bytes_reset(&bytes);
}

void client_pause(client *cl, bool paused)
{
    (void)pthread_mutex_lock(&cl->mutex);
    cl->paused = paused;
    (void)pthread_cond_broadcast(&cl->changed);
    (void)pthread_mutex_unlock(&cl->mutex);
}

void client_wait_ids(client *cl, size_t n_ids)
{
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    (void)pthread_mutex_lock(&cl->mutex);
    while (cl->n_ids < n_ids && !cl->ended && wait_change(&cl->mutex, &cl->changed, until_us)) {
    }
    const size_t got = cl->n_ids;
    (void)pthread_mutex_unlock(&cl->mutex);
    if (got < n_ids) {
        fail_msg("the client got %zu tokens, want %zu (%s)", got, n_ids, cl->status);
    }
}

void client_wait_progress(client *cl)
{
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    (void)pthread_mutex_lock(&cl->mutex);
    while (cl->n_progress == 0 && !cl->ended && wait_change(&cl->mutex, &cl->changed, until_us)) {
    }
    assert_int_not_equal(cl->n_progress, 0);
    (void)pthread_mutex_unlock(&cl->mutex);
}

void client_expect_end(client *cl, rpc_code code, const char *text)
{
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    (void)pthread_mutex_lock(&cl->mutex);
    while (!cl->ended && wait_change(&cl->mutex, &cl->changed, until_us)) {
    }
    (void)pthread_mutex_unlock(&cl->mutex);
    if (!cl->ended || cl->code != code || strstr(cl->status, text) == NULL) {
        fail_msg("the call %s with %s '%s', want %s and '%s'", cl->ended ? "ended" : "goes on",
                 rpc_code_name(cl->code), cl->status, rpc_code_name(code), text);
    }
    assert_int_equal(cl->n_finished, code == RPC_OK);
}

void client_free(client *cl)
{
    client_pause(cl, false);
    rpc_client_cancel(cl->call);
    const int64_t until_us = until(FIXTURE_WAIT_MS);
    (void)pthread_mutex_lock(&cl->mutex);
    while (!cl->ended && wait_change(&cl->mutex, &cl->changed, until_us)) {
    }
    (void)pthread_mutex_unlock(&cl->mutex);
    assert_true(cl->ended);
    rpc_call_unref(cl->call);
    inference_event_free(cl->finished, &base_heap);
    (void)pthread_cond_destroy(&cl->changed);
    (void)pthread_mutex_destroy(&cl->mutex);
}
