/* What decides which pairing a model really uses: rotate q by p + 37 and k by p; what a pair adds to the score must
 * not depend on p.  Here on q and k as the layers of every architecture make them, under every scaling. */
#include "tests/support/model_run.h"
#include "tests/support/rope_scalings.h"
#include "worker/model/rope.h"

#include <math.h>
#include <stdio.h>

#define FOLDER   "tests/golden/models/"
#define DISTANCE 37
#define N_PLACES 3
#define Q_ID     7
#define K_ID     11

static const int32_t places[N_PLACES] = {50, 1000, 4321};
#define N_TOKENS (4321 + DISTANCE + 1)

static const struct {
    model_arch arch;
    const char *folder;
} models[] = {
    {MODEL_ARCH_LLAMA, FOLDER "llama"},
    {MODEL_ARCH_QWEN2, FOLDER "qwen2"},
    {MODEL_ARCH_QWEN3, FOLDER "qwen3"},
    {MODEL_ARCH_MISTRAL, FOLDER "mistral"},
};
#define N_MODELS (sizeof models / sizeof models[0])

typedef struct vectors { /* of one query head, and its KV head */
    float q[N_PLACES][KERN_MAX_HEAD_DIM];
    float k[N_PLACES][KERN_MAX_HEAD_DIM];
    int32_t head_dim;
} vectors;

/* How far what elements a and b add to the score moves between the places. */
static double spread(const vectors *v, int32_t a, int32_t b)
{
    double low = INFINITY;
    double high = -INFINITY;
    for (size_t i = 0; i < N_PLACES; i++) {
        const double part =
            (double)v->q[i][a] * (double)v->k[i][a] + (double)v->q[i][b] * (double)v->k[i][b];
        low = fmin(low, part);
        high = fmax(high, part);
    }
    return high - low;
}

/* Of f32: the length of q and k, not of the part, which may be small by luck. */
static double tolerance(const vectors *v)
{
    double q2 = 0.0;
    double k2 = 0.0;
    for (int32_t d = 0; d < v->head_dim; d++) {
        q2 += pow((double)v->q[0][d], 2.0);
        k2 += pow((double)v->k[0][d], 2.0);
    }
    return 2e-6 * sqrt(q2 * k2);
}

static void check_pairs(const char *what, int32_t head, const vectors *v)
{
    const int32_t half = v->head_dim / 2;
    const double limit = tolerance(v);
    double worst_neighbours = 0.0;
    assert_true(limit > 0.0);
    for (int32_t pair = 0; pair < half; pair++) {
        if (!(spread(v, pair, pair + half) < limit)) {
            fail_msg("%s, head %d: pair (%d, %d) moves by %g, limit %g", what, head, pair,
                     pair + half, spread(v, pair, pair + half), limit);
        }
        worst_neighbours = fmax(worst_neighbours, spread(v, 2 * pair, 2 * pair + 1));
    }
    /* The other pairing is seen to be wrong, so the test can tell. */
    assert_true(worst_neighbours > 1000.0 * limit);
}

typedef struct looked_at {
    const model_config *config;
    char what[256];
    int32_t n_heads; /* checked so far */
} looked_at;

/* Looks at the first layer and ends the step: what follows is of no interest. */
static base_status look(void *ctx, const forward_observation *seen)
{
    looked_at *l = ctx;
    const model_config *c = l->config;
    const size_t d = (size_t)c->head_dim;
    assert_int_equal(seen->layer, 0);
    assert_int_equal(seen->n_tokens, N_TOKENS);
    for (int32_t head = 0; head < c->n_heads; head++) {
        vectors v = {.head_dim = c->head_dim};
        const size_t kv_head = (size_t)(head / (c->n_heads / c->n_kv_heads));
        for (size_t i = 0; i < N_PLACES; i++) {
            const size_t k_at = (size_t)places[i] * (size_t)c->n_kv_heads + kv_head;
            const size_t q_at = ((size_t)places[i] + DISTANCE) * (size_t)c->n_heads + (size_t)head;
            memcpy(v.q[i], seen->q + q_at * d, d * sizeof(float));
            memcpy(v.k[i], seen->k + k_at * d, d * sizeof(float));
        }
        check_pairs(l->what, head, &v);
        l->n_heads++;
    }
    return BASE_CANCELLED;
}

static void run(const char *folder, const char *scaling, model_arch arch)
{
    static int32_t ids[N_TOKENS];
    model *m = NULL;
    kern_ctx *ctx = NULL;
    comm *self = NULL;
    eval_run *r = NULL;
    kv_policy policy;
    const eval_run_options options = {
        .max_step_tokens = N_TOKENS, .max_samples = 1, .max_context = N_TOKENS, .n_slots = 1};
    for (int32_t i = 0; i < N_TOKENS; i++) {
        ids[i] = Q_ID;
    }
    for (size_t i = 0; i < N_PLACES; i++) {
        ids[places[i]] = K_ID;
    }
    const model_options scaled = {.rope_text = base_view_of(scaling)};
    CHECK_STATUS(model_open_with(folder, &scaled, &base_heap, &m), BASE_OK);
    assert_int_equal(m->config.arch, arch);
    CHECK_STATUS(kv_policy_parse("bf16", &policy), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    CHECK_STATUS(comm_self_create(&base_heap, &self), BASE_OK);
    CHECK_STATUS(eval_run_create(m, &policy, ctx, self, &options, &base_heap, &r), BASE_OK);
    looked_at l = {.config = &m->config};
    kv_step_seq seq = {.slot = 0, .n_tokens = N_TOKENS};
    (void)snprintf(l.what, sizeof l.what, "%s, %s", folder, scaling);
    forward_set_observer(r->forward, look, &l);
    CHECK_STATUS(eval_run_step(r, &seq, 1, ids, NULL, 0, NULL), BASE_CANCELLED);
    assert_int_equal(l.n_heads, m->config.n_heads);
    eval_run_destroy(r);
    comm_destroy(self);
    kern_ctx_destroy(ctx);
    model_close(m);
}

static void what_a_pair_adds_to_a_score_depends_on_the_distance_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS * N_ROPE_SCALINGS; i++) {
        run(models[i / N_ROPE_SCALINGS].folder, rope_scalings[i % N_ROPE_SCALINGS],
            models[i / N_ROPE_SCALINGS].arch);
    }
}

static void every_architecture_is_here(void **state)
{
    (void)state;
    static const model_arch all[] = {
#define X(NAME, impl, model_type, class_name) MODEL_ARCH_##NAME,
#include "worker/model/archs.def"
#undef X
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t k = 0;
        while (k < N_MODELS && models[k].arch != all[i]) {
            k++;
        }
        assert_true(k < N_MODELS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_pair_adds_to_a_score_depends_on_the_distance_alone),
        cmocka_unit_test(every_architecture_is_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
