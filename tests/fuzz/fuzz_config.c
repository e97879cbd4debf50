#include "base/log.h"
#include "worker/model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static bool within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

/* The input is config.json, NUL, generation_config.json, NUL, --rope-scaling.  What is accepted must be a model
 * that the kernels can run. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    base_log_init("fuzz", BASE_LOG_ERROR); /* unknown fields are no news here */
    base_view parts[3] = {{NULL, 0}};
    const uint8_t *at = bytes;
    size_t n_rest = n_bytes;
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *nul = n_rest > 0 && i < 2 ? memchr(at, 0, n_rest) : NULL;
        parts[i] = (base_view){(const char *)at, nul == NULL ? n_rest : (size_t)(nul - at)};
        n_rest -= parts[i].n_bytes + (nul == NULL ? 0 : 1);
        at += parts[i].n_bytes + (nul == NULL ? 0 : 1);
    }
    model_config c;
    if (model_config_parse(parts[0], parts[1], parts[2], &c) != BASE_OK) {
        return 0;
    }
    if (!within(c.n_layers, 1, 1024) || !within(c.width, 8, 65536) || c.n_heads < 1 ||
        !within(c.n_kv_heads, 1, 256) || c.n_heads % c.n_kv_heads != 0 ||
        !within(c.n_heads / c.n_kv_heads, 1, 16) || (c.head_dim != 64 && c.head_dim != 128) ||
        c.ffn_width < 1 || c.n_vocab < 1 || !within(c.max_context, 1, INT32_MAX) ||
        !(c.rms_eps > 0.0f && c.rms_eps < 1.0f) || !(c.rope_theta >= 1.0 && c.rope_theta <= 1e15) ||
        !within(c.n_eos_ids, 0, MODEL_MAX_EOS_IDS)) {
        abort();
    }
    float frequencies[64];
    rope_frequencies(c.rope_theta, &c.rope, c.head_dim, frequencies);
    for (int32_t i = 0; i < c.head_dim / 2; i++) {
        if (!(frequencies[i] >= 0.0f && frequencies[i] <= 1.0f)) {
            abort();
        }
    }
    const float scale = rope_softmax_scale(&c.rope, c.head_dim);
    if (!(scale > 0.0f && scale < HUGE_VALF)) {
        abort();
    }
    for (int32_t i = 0; i < c.n_eos_ids; i++) {
        if (!within(c.eos_ids[i], 0, c.n_vocab - 1)) {
            abort();
        }
    }
    return 0;
}
