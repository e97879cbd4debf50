#include "kvshard/policy.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static int allowed(int32_t bits)
{
    return (bits >= 1 && bits <= 8) || bits == 16;
}

/* The whole blocks that queries see as rows: what the cache has tails for. */
static int blocks_allowed(const kv_policy *policy)
{
    return policy->window >= 0 && policy->window <= 1024 && policy->window % 128 == 0 &&
           policy->sinks >= 0 && policy->sinks <= 128 && policy->sinks % 128 == 0;
}

/* Text is refused, or it means a policy within the limits whose canonical text means the same. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    kv_policy policy;
    kv_policy again;
    char text[KV_MAX_POLICY_TEXT];
    char *input = calloc(1, n_bytes + 1);
    if (input == NULL) {
        return 0;
    }
    if (n_bytes > 0) {
        memcpy(input, bytes, n_bytes);
    }
    if (kv_policy_parse(input, &policy) == BASE_OK) {
        if (!allowed(policy.k_bits) || !allowed(policy.v_bits) || !blocks_allowed(&policy)) {
            abort();
        }
        kv_policy_text(&policy, text);
        if (kv_policy_parse(text, &again) != BASE_OK || again.kind != policy.kind ||
            again.k_bits != policy.k_bits || again.v_bits != policy.v_bits ||
            again.paper != policy.paper || again.group != policy.group ||
            again.window != policy.window || again.sinks != policy.sinks) {
            abort();
        }
    }
    free(input);
    return 0;
}
