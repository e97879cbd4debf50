/* tests/unit/coordinator/fixture.h - a real coordinator in this process, a scripted group that
 * attaches to it, and clients that call it, all through real rpc.
 *
 * Whoever waits does so for at most FIXTURE_WAIT_MS and then fails the test. */
#ifndef TESTS_UNIT_COORDINATOR_FIXTURE_H
#define TESTS_UNIT_COORDINATOR_FIXTURE_H

#include "coordinator/coordinator.h"
#include "proto/group_codec.h"
#include "proto/rpc.h"

#include <pthread.h>

#define FIXTURE_WAIT_MS     10000
#define FIXTURE_MAX_DOWNS   4096
#define FIXTURE_MAX_IDS     4096
#define FIXTURE_TOKENIZER   "models/demo/tokenizer.json"
#define FIXTURE_VOCAB       4096
#define FIXTURE_EOS         1
#define FIXTURE_MAX_CONTEXT 1024

/* ---- the coordinator ---- */

typedef struct fixture {
    coordinator *c;
    rpc_channel *clients;
    char attach[64]; /* address */
    char listen[64];
    char *tokenizer_json;
    size_t n_tokenizer_bytes;
} fixture;

void fixture_start(fixture *f, int32_t max_waiting, int64_t wait_for_group_ms);
void fixture_stop(fixture *f);

/* What ModelInfo says now; ended with base_heap.put. */
inference_model_info *fixture_info(fixture *f);
void fixture_wait_waiting(fixture *f, int32_t n_waiting); /* until so many wait in the queue */
/* "" through the health service. */
bool fixture_is_serving(fixture *f);

/* ---- the group ---- */

typedef struct fake_group {
    rpc_channel *channel;
    rpc_call *call;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    group_down *downs[FIXTURE_MAX_DOWNS]; /* all but pings */
    int n_downs;
    int n_read; /* by fake_next */
    int n_pings;
    bool ended;
    rpc_code code;
    char text[RPC_MAX_STATUS_BYTES + 1];
    int64_t ended_us;
} fake_group;

/* The Hello of a group of 2 ranks with 8 blocks each and max_batch sequences; change and send it. */
group_hello fake_hello(const fixture *f, int32_t max_batch);
/* Dials and sends hello; the Welcome or the refusal is awaited by the two below. */
void fake_attach(fake_group *g, const fixture *f, const group_hello *hello);
void fake_expect_welcome(fake_group *g);
void fake_expect_end(fake_group *g, rpc_code code, const char *text);
void fake_detach(fake_group *g); /* cancels the stream: the group is lost */

/* The next command, which must be of this kind; lives until fake_detach. */
const group_down *fake_next(fake_group *g, group_down_kind kind);
/* True if no command comes within quiet_ms. */
bool fake_is_quiet(fake_group *g, int quiet_ms);
void fake_send(fake_group *g, const group_up *up);
void fake_send_admitted(fake_group *g, uint64_t seq);
void fake_send_tokens(fake_group *g, uint64_t seq, const int32_t *ids, size_t n_ids);
void fake_send_ended(fake_group *g, uint64_t seq, group_end_reason reason, int32_t stop_id);
void fake_send_load(fake_group *g, int32_t running, int64_t free_per_rank);

/* ---- a client ---- */

typedef struct client {
    rpc_call *call;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    inference_event *finished; /* the event */
    size_t n_ids;              /* counts on when ids is full */
    size_t n_text;
    int32_t ids[FIXTURE_MAX_IDS];
    int n_progress;
    int n_finished;
    int n_logprobs;
    rpc_code code;
    bool paused; /* does not read */
    bool ended;
    char text[FIXTURE_MAX_IDS];
    char status[RPC_MAX_STATUS_BYTES + 1];
} client;

/* A request with text as its prompt, the way a client writes it. */
inference_generate_request client_request(const char *text);
void client_start(client *cl, rpc_channel *channel, const inference_generate_request *request,
                  int64_t timeout_ms);
void client_pause(client *cl, bool paused);
void client_wait_ids(client *cl, size_t n_ids);
void client_wait_progress(client *cl);
void client_expect_end(client *cl, rpc_code code, const char *text);
void client_free(client *cl);

#endif /* TESTS_UNIT_COORDINATOR_FIXTURE_H */
