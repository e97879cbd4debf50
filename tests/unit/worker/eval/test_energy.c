/* The energies of the demo model, and the file that it ships. */
#include "worker/eval/energy.h"

#include "base/json.h"
#include "tests/support/model_run.h"
#include "tests/support/test.h"

#include <math.h>

#define MODEL    "models/demo"
#define N_TOKENS 600 /* two chunks */

enum { LAYERS = 6, HEADS = 4, KV_HEADS = 2, D = 128, BLOCKS = D / 2 };

static int32_t ids[N_TOKENS];

static int read_ids(void **state)
{
    (void)state;
    json_t *root = NULL;
    CHECK_STATUS(base_json_read("tests/golden/prompts.json", (size_t)1 << 22, &root), BASE_OK);
    const json_t *text = json_object_get(root, "text");
    assert_true(json_array_size(text) >= N_TOKENS);
    for (size_t i = 0; i < N_TOKENS; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(text, i));
    }
    base_json_free(root);
    return 0;
}

typedef struct sums {
    double q[LAYERS][KV_HEADS][BLOCKS];
    double k[LAYERS][KV_HEADS][BLOCKS];
    int32_t n_tokens;
} sums;

static double pair(const float *x, int32_t block)
{
    return pow((double)x[block], 2.0) + pow((double)x[block + BLOCKS], 2.0);
}

static base_status observe(void *ctx, const forward_observation *seen)
{
    const int32_t layer = seen->layer;
    const int32_t n_tokens = seen->n_tokens;
    const float *const q = seen->q;
    const float *const k = seen->k;
    sums *s = ctx;
    for (int32_t b = 0; b < BLOCKS; b++) {
        for (int32_t t = 0; t < n_tokens; t++) {
            s->q[layer][0][b] +=
                pair(q + (t * HEADS + 0) * D, b) + pair(q + (t * HEADS + 1) * D, b);
            s->q[layer][1][b] +=
                pair(q + (t * HEADS + 2) * D, b) + pair(q + (t * HEADS + 3) * D, b);
            s->k[layer][0][b] += pair(k + (t * KV_HEADS + 0) * D, b);
            s->k[layer][1][b] += pair(k + (t * KV_HEADS + 1) * D, b);
        }
    }
    s->n_tokens += layer == 0 ? n_tokens : 0;
    return BASE_OK;
}

typedef struct progress {
    int64_t last;
    int32_t n_calls;
} progress;

static void count_progress(void *ctx, int64_t n_done, int64_t n_total)
{
    progress *p = ctx;
    assert_int_equal(n_total, N_TOKENS * LAYERS);
    assert_true(p->n_calls == 0 ? n_done == 0 : n_done > p->last && n_done <= n_total);
    p->last = n_done;
    p->n_calls++;
}

/* Sums of my own, in chunks of one block. */
static void energies_are_means_over_queries_and_keys(void **state)
{
    (void)state;
    static sums s;
    comm *self = NULL;
    kv_calibration *c = NULL;
    progress last = {0, 0};
    CHECK_STATUS(comm_self_create(&base_heap, &self), BASE_OK);
    model_run r = model_run_open(MODEL, "bf16", self, 128, 1024);
    forward_set_observer(r.f, observe, &s);
    model_run_feed(&r, ids, N_TOKENS, 128, NULL);
    assert_int_equal(s.n_tokens, N_TOKENS);
    CHECK_STATUS(eval_energy_measure(r.m, ids, N_TOKENS, 2, count_progress, &last, &base_heap, &c),
                 BASE_OK);
    assert_int_equal(last.last, N_TOKENS * LAYERS);
    assert_int_equal(last.n_calls, 2 * LAYERS + 1);
    assert_int_equal(c->n_tokens, N_TOKENS);
    assert_true(base_hash_equal(c->model, r.m->hash));
    for (int32_t i = 0; i < LAYERS * KV_HEADS * BLOCKS; i++) {
        const float *got = kv_calibration_head(c, i / BLOCKS / KV_HEADS, i / BLOCKS % KV_HEADS);
        const double q = (&s.q[0][0][0])[i] / 2 / N_TOKENS;
        const double k = (&s.k[0][0][0])[i] / N_TOKENS;
        assert_true(fabs((double)got[i % BLOCKS] / q - 1.0) < 1e-3);
        assert_true(fabs((double)got[BLOCKS + i % BLOCKS] / k - 1.0) < 1e-3);
    }
    kv_calibration_destroy(c);
    model_run_close(&r);
    comm_destroy(self);
}

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    model *m = NULL;
    kv_calibration *c = NULL;
    const int32_t wrong = 4096;
    CHECK_STATUS(model_open(MODEL, &base_heap, &m), BASE_OK);
    CHECK_STATUS(eval_energy_measure(m, ids, 0, 1, NULL, NULL, &base_heap, &c), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("calibration over 0 tokens, allowed 1..131072");
    CHECK_STATUS(eval_energy_measure(m, &wrong, 1, 1, NULL, NULL, &base_heap, &c), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("id 4096, allowed 0..4095");
    assert_null(c);
    model_close(m);
}

/* Fails when the model, or what its hash covers, has changed: models/demo/README.md says how to make
 * the file again. */
static void the_demo_ships_the_calibration_of_its_model(void **state)
{
    (void)state;
    model *m = NULL;
    kv_calibration *c = NULL;
    CHECK_STATUS(model_open(MODEL, &base_heap, &m), BASE_OK);
    const kv_shape shape = {LAYERS, KV_HEADS, D};
    CHECK_STATUS(kv_calibration_open("block-gtq", MODEL, m->hash, &shape, &base_heap, &c), BASE_OK);
    assert_int_equal(c->n_tokens, 2048);
    kv_calibration_destroy(c);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(energies_are_means_over_queries_and_keys),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(the_demo_ships_the_calibration_of_its_model),
    };
    return cmocka_run_group_tests(tests, read_ids, NULL);
}
