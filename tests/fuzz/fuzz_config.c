#include "base/log.h"
#include "worker/model/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static bool within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

/* The input is config.json, a NUL and generation_config.json.  What is accepted must be a model
 * that the kernels can run. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    base_log_init("fuzz", BASE_LOG_ERROR); /* unknown fields are no news here */
    const uint8_t *nul = n_bytes > 0 ? memchr(bytes, 0, n_bytes) : NULL;
    const size_t n_config = nul == NULL ? n_bytes : (size_t)(nul - bytes);
    const base_view config = {(const char *)bytes, n_config};
    const base_view generation = {nul == NULL ? NULL : (const char *)nul + 1,
                                  nul == NULL ? 0 : n_bytes - n_config - 1};
    model_config c;
    if (model_config_parse(config, generation, &c) != BASE_OK) {
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
    for (int32_t i = 0; i < c.n_eos_ids; i++) {
        if (!within(c.eos_ids[i], 0, c.n_vocab - 1)) {
            abort();
        }
    }
    return 0;
}
