/* Tiny random models of every architecture and RoPE scaling against transformers in float32
 * (tests/golden/models, written by make_models.py). */
#include "base/file.h"
#include "base/json.h"
#include "tests/support/model_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FOLDER  "tests/golden/models/"
#define MAX_IDS 1024
#define VOCAB   256
/* Against the reference as it is: the cache rounds K and V to bf16, which moves the reference's own
 * logits (of size 3 to 4) by up to 0.05 (make_models.py prints it). */
#define LOGIT_TOLERANCE 0.1
/* Against the reference with K and V rounded: f32 sums in another order may turn a rounding. */
#define ROUNDED_TOLERANCE 0.005

static const char *const models[] = {"llama", "llama-llama3", "llama-yarn",
                                     "qwen2", "qwen3",        "mistral"};

typedef struct golden {
    int32_t ids[MAX_IDS];
    int32_t n_ids;
    int32_t greedy[MAX_IDS];
    int32_t n_greedy;
    double logits[VOCAB];
    double rounded[VOCAB]; /* with K and V as the cache keeps them */
} golden;

static int32_t ids_read(const json_t *list, int32_t *ids_out)
{
    const size_t n = json_array_size(list);
    assert_in_range(n, 1, MAX_IDS);
    for (size_t i = 0; i < n; i++) {
        ids_out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return (int32_t)n;
}

static void logits_read(const json_t *list, double *logits_out)
{
    assert_int_equal(json_array_size(list), VOCAB);
    for (size_t i = 0; i < VOCAB; i++) {
        logits_out[i] = json_number_value(json_array_get(list, i));
    }
}

static void golden_read(const char *name, golden *g)
{
    char path[128];
    json_t *root = NULL;
    snprintf(path, sizeof path, FOLDER "%s/golden.json", name);
    CHECK_STATUS(base_json_read(path, (size_t)1 << 20, &root), BASE_OK);
    g->n_ids = ids_read(json_object_get(root, "prompt_ids"), g->ids);
    g->n_greedy = ids_read(json_object_get(root, "greedy_ids"), g->greedy);
    logits_read(json_object_get(root, "logits"), g->logits);
    logits_read(json_object_get(root, "logits_bf16_cache"), g->rounded);
    base_json_free(root);
}

static double worst_of(const double *want, const float *logits)
{
    double worst = 0.0;
    for (int32_t i = 0; i < VOCAB; i++) {
        const double off = fabs((double)logits[i] - want[i]);
        worst = !(off <= worst) ? off : worst; /* NaN is the worst */
    }
    return worst;
}

static void every_model_gives_the_golden_logits_and_tokens(void **state)
{
    (void)state;
    comm *ranks = NULL;
    CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        static golden g;
        char folder[128];
        float logits[VOCAB];
        golden_read(models[i], &g);
        snprintf(folder, sizeof folder, FOLDER "%s", models[i]);
        model_run r = model_run_open(folder, "bf16", ranks, 128, MAX_IDS);
        assert_int_equal(r.m->config.n_vocab, VOCAB);
        model_run_feed(&r, g.ids, g.n_ids, 128, logits);
        const double worst = worst_of(g.logits, logits);
        const double rounded = worst_of(g.rounded, logits);
        print_message("%s: logits differ by %.4f, from the reference with a bf16 cache by %.5f\n",
                      models[i], worst, rounded);
        assert_true(worst <= LOGIT_TOLERANCE);
        assert_true(rounded <= ROUNDED_TOLERANCE);
        for (int32_t t = 0; t < g.n_greedy; t++) {
            const int32_t got = model_run_argmax(logits, VOCAB);
            if (got != g.greedy[t]) {
                fail_msg("%s: greedy token %d is %d, want %d", models[i], t, got, g.greedy[t]);
            }
            model_run_feed(&r, &g.greedy[t], 1, 1, logits);
        }
        model_run_close(&r);
    }
    comm_destroy(ranks);
}

/* The test above would not see a scaling that does nothing. */
static void the_scalings_of_the_fixtures_change_their_logits(void **state)
{
    (void)state;
    for (size_t i = 1; i <= 2; i++) {
        char folder[128];
        model *scaled = NULL;
        model *plain = NULL;
        snprintf(folder, sizeof folder, FOLDER "%s", models[i]);
        CHECK_STATUS(model_open(folder, &base_heap, &scaled), BASE_OK);
        const model_options unscaled = {.rope_text = base_view_of("none")};
        CHECK_STATUS(model_open_with(folder, &unscaled, &base_heap, &plain), BASE_OK);
        assert_false(base_hash_equal(scaled->hash, plain->hash));
        static golden g;
        float logits[VOCAB];
        comm *ranks = NULL;
        golden_read(models[i], &g);
        CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
        const kv_policy bf16 = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
        const eval_run_options options = {
            .max_step_tokens = 128, .max_samples = 1, .max_context = MAX_IDS, .n_slots = 1};
        kern_ctx *ctx = NULL;
        eval_run *run = NULL;
        CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
        CHECK_STATUS(eval_run_create(plain, &bf16, ctx, ranks, &options, &base_heap, &run),
                     BASE_OK);
        CHECK_STATUS(eval_run_feed(run, g.ids, g.n_ids, 128, logits), BASE_OK);
        const double worst = worst_of(g.logits, logits);
        print_message("%s without its scaling: %.2f off\n", models[i], worst);
        assert_true(worst > 3 * LOGIT_TOLERANCE);
        eval_run_destroy(run);
        kern_ctx_destroy(ctx);
        model_close(plain);
        model_close(scaled);
        comm_destroy(ranks);
    }
}

static void file_copy(const char *name, const char *folder)
{
    char from[256];
    char to[256];
    char *bytes = NULL;
    size_t n = 0;
    snprintf(from, sizeof from, FOLDER "mistral/%s", name);
    snprintf(to, sizeof to, "%s/%s", folder, name);
    CHECK_STATUS(base_file_read(from, (size_t)1 << 20, &base_heap, &bytes, &n), BASE_OK);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    base_heap.put(base_heap.ctx, bytes);
}

static void a_shard_that_is_missing_or_another_ones_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json",
                                        "tokenizer.json",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    char folder[] = "/tmp/shards-XXXXXX";
    char path[128];
    char other[128];
    model *m = NULL;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 6; i++) {
        file_copy(names[i], folder);
    }
    CHECK_STATUS(model_open(folder, &base_heap, &m), BASE_OK);
    model_close(m);
    m = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, names[4]);
    snprintf(other, sizeof other, "%s/%s", folder, names[5]);
    assert_int_equal(unlink(path), 0);
    CHECK_STATUS(model_open(folder, &base_heap, &m), BASE_NOT_FOUND);
    CHECK_ERROR_NAMES(path);
    assert_int_equal(link(other, path), 0);
    CHECK_STATUS(model_open(folder, &base_heap, &m), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("index.json");
    assert_null(m);
    for (size_t i = 0; i < 6; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_gives_the_golden_logits_and_tokens),
        cmocka_unit_test(the_scalings_of_the_fixtures_change_their_logits),
        cmocka_unit_test(a_shard_that_is_missing_or_another_ones_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
