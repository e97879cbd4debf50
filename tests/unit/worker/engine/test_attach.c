/* attach over real sockets of this machine, against a coordinator of a few lines. */
#include "worker/engine/attach.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc.h"
#include "tests/support/test.h"

#include <pthread.h>
#include <stdio.h>

#define PATIENCE_US 10000000

static const int64_t blocks[] = {10, 10};
static const char tokenizer[] = "{}";

static struct {
    pthread_mutex_t mutex; /* guards all below */
    rpc_call *call;        /* the stream, one reference */
    int32_t n_attached;
    bool mute;      /* says no Welcome */
    bool hasty;     /* sends an Admit right behind the Welcome */
    int32_t n_load; /* events of the latest stream */
    int32_t n_ended;
    int32_t n_tokens;
    uint64_t last_token_seq;
    char model[16];
} the = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void send_down(rpc_call *call, const group_down *down)
{
    base_bytes bytes;
    base_bytes_init(&bytes, 1 << 16, &base_heap);
    CHECK_STATUS(group_down_encode(down, &bytes), BASE_OK);
    const base_status st = rpc_call_send(call, base_bytes_view(&bytes));
    base_bytes_reset(&bytes);
    assert_true(st == BASE_OK || st == BASE_CANCELLED);
}

static const int32_t prompt[] = {1, 2, 3};

static void send_admit(rpc_call *call, uint64_t seq)
{
    const group_down down = {.kind = GROUP_DOWN_ADMIT,
                             .seq = seq,
                             .admit = {.prompt = prompt,
                                       .n_prompt = 3,
                                       .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                                       .max_new_tokens = 5,
                                       .credit = 5}};
    send_down(call, &down);
}

static void take_hello(rpc_call *call, const group_hello *hello)
{
    const group_down welcome = {
        .kind = GROUP_DOWN_WELCOME, .protocol = GROUP_PROTOCOL, .build = base_view_of("test")};
    if (the.call != NULL) {
        rpc_call_unref(the.call);
    }
    rpc_call_ref(call);
    the.call = call;
    the.n_attached++;
    the.n_load = the.n_ended = the.n_tokens = 0;
    (void)snprintf(the.model, sizeof the.model, "%.*s", (int)hello->model.n_bytes,
                   hello->model.data);
    if (!the.mute) {
        send_down(call, &welcome);
        if (the.hasty) {
            send_admit(call, 1);
        }
    }
}

static void on_message(void *ctx, rpc_call *call, base_view message)
{
    (void)ctx;
    group_up *up = NULL;
    if (group_up_decode(message, &base_heap, &up) != BASE_OK) {
        rpc_call_finish(call, RPC_INVALID_ARGUMENT, base_last_error());
        return;
    }
    (void)pthread_mutex_lock(&the.mutex);
    if (up->kind == GROUP_UP_HELLO) {
        take_hello(call, &up->hello);
    }
    the.n_load += up->kind == GROUP_UP_LOAD;
    the.n_ended += up->kind == GROUP_UP_ENDED;
    if (up->kind == GROUP_UP_TOKENS) {
        the.n_tokens++;
        the.last_token_seq = up->seq;
    }
    (void)pthread_mutex_unlock(&the.mutex);
    base_heap.put(base_heap.ctx, up);
}

static void on_half_close(void *ctx, rpc_call *call)
{
    (void)ctx;
    rpc_call_finish(call, RPC_OK, NULL);
}

static rpc_server *serve(const char *listen)
{
    rpc_server *server = NULL;
    const rpc_server_options options = {.listen = listen, .n_pollers = 2, .max_queued = 100};
    const rpc_method method = {.path = ATTACH_PATH,
                               .client_streams = true,
                               .on_message = on_message,
                               .on_half_close = on_half_close};
    CHECK_STATUS(rpc_server_create(&options, &method, 1, &server), BASE_OK);
    return server;
}

static attach *dial(const char *address)
{
    attach *a = NULL;
    base_hasher *hasher = NULL;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add(hasher, tokenizer, 2);
    const base_hash hash = base_hasher_end(hasher);
    char hex[BASE_HASH_TEXT_BYTES];
    base_hash_text(hash, hex);
    const group_hello hello = {.protocol = GROUP_PROTOCOL,
                               .page_format = 1,
                               .build = base_view_of("test"),
                               .model = base_view_of("tiny"),
                               .model_hash = base_view_of(hex),
                               .policy = base_view_of("bf16"),
                               .policy_hash = base_view_of(hex),
                               .ranks = 2,
                               .max_context = 1000,
                               .max_batch = 4,
                               .vocab_size = 100,
                               .n_layers = 1,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 64,
                               .k_bits_per_element = 16,
                               .v_bits_per_element = 16,
                               .bytes_per_token = 256,
                               .bytes_per_page = 32768,
                               .blocks_total_per_rank = blocks,
                               .weight_bytes_per_rank = blocks,
                               .exchange = base_view_of("mpi"),
                               .tokenizer_json = {tokenizer, 2},
                               .tokenizer_sha256 = {(const char *)hash.bytes, BASE_HASH_BYTES}};
    CHECK_STATUS(attach_create(address, &hello, &base_heap, &a), BASE_OK);
    return a;
}

static int32_t read_now(const int32_t *value)
{
    (void)pthread_mutex_lock(&the.mutex);
    const int32_t now = *value;
    (void)pthread_mutex_unlock(&the.mutex);
    return now;
}

/* Waits until *value, under the mutex, is at least `least`. */
static void wait_for(const int32_t *value, int32_t least, const char *what)
{
    const int64_t until_us = base_now_us() + PATIENCE_US;
    for (;;) {
        if (read_now(value) >= least) {
            return;
        }
        if (base_now_us() > until_us) {
            fail_msg("waited in vain for %s", what);
        }
        base_sleep_us(2000);
    }
}

static void check_next(const engine_io *io, group_down_kind kind, uint64_t seq)
{
    const group_down *down = NULL;
    CHECK_STATUS(io->next(io->ctx, PATIENCE_US, &down), BASE_OK);
    assert_non_null(down);
    assert_int_equal(down->kind, kind);
    assert_int_equal(down->seq, seq);
}

static void emit_kind(const engine_io *io, group_up_kind kind, uint64_t seq)
{
    static const int32_t id = 7;
    const group_up up = {.kind = kind,
                         .seq = seq,
                         .ids = &id,
                         .n_ids = 1,
                         .reason = GROUP_END_CANCELLED,
                         .blocks_free_per_rank = blocks,
                         .n_blocks_free = 2};
    io->emit(io->ctx, &up);
}

static rpc_call *stream(void)
{
    (void)pthread_mutex_lock(&the.mutex);
    rpc_call *call = the.call;
    (void)pthread_mutex_unlock(&the.mutex);
    return call;
}

static void reset(bool mute, bool hasty)
{
    (void)pthread_mutex_lock(&the.mutex);
    if (the.call != NULL) {
        rpc_call_unref(the.call);
    }
    the.call = NULL;
    the.n_attached = 0;
    the.mute = mute;
    the.hasty = hasty;
    (void)pthread_mutex_unlock(&the.mutex);
}

typedef struct fixture {
    rpc_server *server;
    attach *a;
    engine_io io;
    char address[64];
} fixture;

static fixture start(bool mute, bool hasty)
{
    fixture f;
    reset(mute, hasty);
    f.server = serve("127.0.0.1:0");
    (void)snprintf(f.address, sizeof f.address, "127.0.0.1:%d", rpc_server_port(f.server));
    f.a = dial(f.address);
    f.io = attach_io(f.a);
    return f;
}

static void stop(fixture *f)
{
    attach_destroy(f->a);
    reset(false, false);
    rpc_server_destroy(f->server, 0);
}

static void hello_goes_up_and_commands_come_down(void **state)
{
    (void)state;
    fixture f = start(false, false);
    emit_kind(&f.io, GROUP_UP_LOAD, 0); /* before the line is up: sent when it is */
    wait_for(&the.n_attached, 1, "the hello");
    wait_for(&the.n_load, 1, "the first load");
    assert_string_equal(the.model, "tiny");
    send_admit(stream(), 9);
    check_next(&f.io, GROUP_DOWN_ADMIT, 9);
    emit_kind(&f.io, GROUP_UP_TOKENS, 9);
    wait_for(&the.n_tokens, 1, "a token");
    emit_kind(&f.io, GROUP_UP_ENDED, 9);
    wait_for(&the.n_ended, 1, "the end");
    wait_for(&the.n_load, 4, "loads without the step loop's help");
    stop(&f);
}

static void an_admit_right_behind_the_welcome_arrives(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        fixture f = start(false, true);
        check_next(&f.io, GROUP_DOWN_ADMIT, 1);
        assert_int_equal(read_now(&the.n_attached), 1);
        stop(&f);
    }
}

static void next_comes_back_in_time_when_nothing_comes(void **state)
{
    (void)state;
    fixture f = start(false, false);
    const group_down *down = (const group_down *)&f;
    const int64_t start_us = base_now_us();
    CHECK_STATUS(f.io.next(f.io.ctx, 50000, &down), BASE_OK);
    assert_null(down);
    assert_in_range(base_now_us() - start_us, 50000, 2000000);
    stop(&f);
}

static void a_lost_stream_cancels_its_sequences_and_dials_again(void **state)
{
    (void)state;
    fixture f = start(false, false);
    wait_for(&the.n_attached, 1, "the hello");
    send_admit(stream(), 1);
    send_admit(stream(), 2);
    check_next(&f.io, GROUP_DOWN_ADMIT, 1);
    check_next(&f.io, GROUP_DOWN_ADMIT, 2);
    emit_kind(&f.io, GROUP_UP_ENDED, 2);
    wait_for(&the.n_ended, 1, "the end");
    rpc_call_finish(stream(), RPC_UNAVAILABLE, "gone");
    wait_for(&the.n_attached, 2, "another hello");
    send_admit(stream(), 1);              /* the number starts again */
    emit_kind(&f.io, GROUP_UP_TOKENS, 1); /* of the first stream: goes nowhere */
    check_next(&f.io, GROUP_DOWN_CANCEL, 1);
    emit_kind(&f.io, GROUP_UP_ENDED, 1);
    check_next(&f.io, GROUP_DOWN_ADMIT, 1);
    emit_kind(&f.io, GROUP_UP_TOKENS, 1);
    wait_for(&the.n_tokens, 1, "a token");
    base_sleep_us(50000);
    assert_int_equal(read_now(&the.n_tokens), 1);
    assert_int_equal(read_now(&the.n_ended), 0);
    stop(&f);
}

static void it_dials_until_the_coordinator_is_there(void **state)
{
    (void)state;
    fixture f = start(false, false);
    wait_for(&the.n_attached, 1, "the hello");
    rpc_server_destroy(f.server, 0);
    base_sleep_us(700000); /* a few attempts in vain */
    f.server = serve(f.address);
    wait_for(&the.n_attached, 2, "a hello to the new coordinator");
    stop(&f);
}

static void a_silent_coordinator_is_left(void **state)
{
    (void)state;
    fixture f = start(true, false);
    wait_for(&the.n_attached, 2, "a second hello, for the first was not answered");
    stop(&f);
}

static void what_is_emitted_last_still_arrives(void **state)
{
    (void)state;
    fixture f = start(false, false);
    wait_for(&the.n_attached, 1, "the hello");
    send_admit(stream(), 1);
    check_next(&f.io, GROUP_DOWN_ADMIT, 1);
    for (int i = 0; i < 50; i++) {
        emit_kind(&f.io, GROUP_UP_TOKENS, 1);
    }
    attach_destroy(f.a);
    f.a = NULL;
    wait_for(&the.n_tokens, 50, "all tokens");
    stop(&f);
}

static void a_bad_address_is_refused(void **state)
{
    (void)state;
    attach *a = NULL;
    const group_hello hello = {.protocol = 1};
    assert_int_not_equal(attach_create("nowhere", &hello, &base_heap, &a), BASE_OK);
    assert_null(a);
}

static int set_up(void **state)
{
    (void)state;
    rpc_init();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rpc_shutdown();
    return 0;
}

int main(void)
{
    base_log_init("test", BASE_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_goes_up_and_commands_come_down),
        cmocka_unit_test(an_admit_right_behind_the_welcome_arrives),
        cmocka_unit_test(next_comes_back_in_time_when_nothing_comes),
        cmocka_unit_test(a_lost_stream_cancels_its_sequences_and_dials_again),
        cmocka_unit_test(it_dials_until_the_coordinator_is_there),
        cmocka_unit_test(a_silent_coordinator_is_left),
        cmocka_unit_test(what_is_emitted_last_still_arrives),
        cmocka_unit_test(a_bad_address_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
