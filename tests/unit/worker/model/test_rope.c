#include "base/random.h"
#include "kernels/kern.h"
#include "tests/support/rope_scalings.h"
#include "tests/support/test.h"
#include "worker/model/config.h"

#include <math.h>
#include <stdio.h>

static const char *const classes[][2] = {
#define X(NAME, impl, model_type, class_name) {model_type, class_name},
#include "worker/model/archs.def"
#undef X
};

static model_config config_of(size_t arch, int32_t head_dim, const char *scaling)
{
    char text[512];
    model_config c;
    const base_view none = {NULL, 0};
    snprintf(text, sizeof text,
             "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"hidden_size\":256,"
             "\"num_hidden_layers\":1,\"intermediate_size\":64,\"vocab_size\":64,"
             "\"max_position_embeddings\":2048,\"num_attention_heads\":2,"
             "\"num_key_value_heads\":2,\"head_dim\":%d,\"sliding_window\":null,"
             "\"rope_theta\":10000}",
             classes[arch][1], classes[arch][0], head_dim);
    CHECK_STATUS(model_config_parse(base_view_of(text), none, base_view_of(scaling), &c), BASE_OK);
    return c;
}

static void rotate(kern_ctx *ctx, const float *inv_freq, int32_t d, int64_t position, float *x)
{
    float turns[128];
    const kern_turns_args turn = {&position, inv_freq, turns, 1, d};
    CHECK_STATUS(kern_turns(ctx, &turn), BASE_OK);
    const kern_rope_args args = {
        .x = x, .turns = turns, .n_tokens = 1, .n_heads = 1, .head_dim = d, .x_stride = d};
    CHECK_STATUS(kern_rope(ctx, &args), BASE_OK);
}

static double score(kern_ctx *ctx, const float *inv_freq, int32_t d, int64_t q_at, int64_t k_at)
{
    float q[128];
    float k[128];
    double sum = 0.0;
    for (int32_t i = 0; i < d; i++) {
        q[i] = (float)base_random_normal(1, 0, (uint64_t)i);
        k[i] = (float)base_random_normal(1, 1, (uint64_t)i);
    }
    rotate(ctx, inv_freq, d, q_at, q);
    rotate(ctx, inv_freq, d, k_at, k);
    for (int32_t i = 0; i < d; i++) {
        sum += (double)q[i] * (double)k[i];
    }
    return sum;
}

/* For every architecture, head dim and scaling: a shift of both positions leaves the score alone, a
 * shift of one does not, and the two elements of a pair are i and i + D/2. */
static void scores_depend_on_distance_and_pairs_are_half_a_head_apart(void **state)
{
    (void)state;
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    for (size_t i = 0; i < sizeof classes / sizeof classes[0] * 8; i++) {
        const int32_t d = i % 2 == 0 ? 64 : 128;
        const model_config c = config_of(i / 8, d, rope_scalings[i / 2 % 4]);
        float inv_freq[64];
        assert_int_equal(c.arch, i / 8);
        rope_frequencies(c.rope_theta, &c.rope, c.head_dim, inv_freq);
        const double want = score(ctx, inv_freq, d, 300, 17);
        for (int64_t shift = 1; shift < 2000000; shift = shift * 7 + 3) {
            const double got = score(ctx, inv_freq, d, 300 + shift, 17 + shift);
            assert_true(fabs(got - want) < 1e-4);
        }
        assert_true(fabs(score(ctx, inv_freq, d, 301, 17) - want) > 1e-3);
        for (int32_t pair = 0; pair < d / 2; pair++) {
            float x[128] = {0};
            x[pair] = 1.0f;
            rotate(ctx, inv_freq, d, 1, x);
            for (int32_t j = 0; j < d; j++) {
                const double angle = (double)inv_freq[pair];
                const double is = j == pair ? cos(angle) : j == pair + d / 2 ? sin(angle) : 0.0;
                assert_true(fabs((double)x[j] - is) < 1e-6);
            }
        }
    }
    kern_ctx_destroy(ctx);
}

static void scalings_change_the_frequencies_as_they_say(void **state)
{
    (void)state;
    float plain[32];
    float scaled[32];
    const rope_scaling none = {.kind = ROPE_DEFAULT};
    rope_frequencies(10000.0, &none, 64, plain);
    assert_true(plain[0] == 1.0f);
    for (size_t i = 1; i < 4; i++) {
        const model_config c = config_of(0, 64, rope_scalings[i]);
        rope_frequencies(c.rope_theta, &c.rope, 64, scaled);
        const double first = i == 1 ? 4.0 : 1.0; /* llama3 and yarn leave fast pairs alone */
        const double last = c.rope.factor;
        assert_true(fabs((double)plain[0] / (double)scaled[0] - first) < 1e-6);
        assert_true(fabs((double)plain[31] / (double)scaled[31] - last) < 1e-5);
        for (int32_t p = 0; p < 32; p++) { /* and nothing lies outside the two ends */
            const double ratio = (double)plain[p] / (double)scaled[p];
            assert_true(ratio > first - 1e-5 && ratio < last + 1e-5);
        }
    }
}

static void yarn_sharpens_attention_by_the_square_of_its_factor(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double factor;
    } cases[] = {
        {"{\"rope_type\":\"yarn\",\"factor\":4}", 1.138629436111989},
        {"{\"rope_type\":\"yarn\",\"factor\":1}", 1.0},
        {"{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":1.5}", 1.5},
        {"{\"type\":\"yarn\",\"factor\":40,\"mscale\":1.0,\"mscale_all_dim\":1.0}", 1.0},
        {"{\"type\":\"yarn\",\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":0.5}",
         1.2608037774058554 / 1.1844439727056968},
        {"{\"type\":\"yarn\",\"factor\":4,\"mscale\":0.707}", 1.138629436111989},
        {"{\"type\":\"linear\",\"factor\":4}", 1.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const model_config c = config_of(0, 64, cases[i].text);
        const double got = (double)rope_softmax_scale(&c.rope, 64) * 8.0;
        if (!(fabs(got - cases[i].factor * cases[i].factor) < 1e-6)) {
            fail_msg("case %zu: %.9f, want the square of %.9f", i, got, cases[i].factor);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_depend_on_distance_and_pairs_are_half_a_head_apart),
        cmocka_unit_test(scalings_change_the_frequencies_as_they_say),
        cmocka_unit_test(yarn_sharpens_attention_by_the_square_of_its_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
