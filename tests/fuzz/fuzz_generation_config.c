#include "coordinator/defaults.h"

#include <stdlib.h>

#define VOCAB 32000

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* Whatever the file says, what is accepted can be sent to a group as it is. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    coord_defaults d;
    const base_view json = {(const char *)bytes, n_bytes};

    if (coord_defaults_parse(json, VOCAB, &d) != BASE_OK) {
        return 0;
    }
    const inference_sampling *s = &d.sampling;
    if (!(s->temperature >= 0 && s->temperature <= 100) || !(s->top_p > 0 && s->top_p <= 1) ||
        !(s->min_p >= 0 && s->min_p <= 1) ||
        !(s->repetition_penalty > 0 && s->repetition_penalty <= 100) || s->top_k < 0) {
        abort();
    }
    if (d.max_new_tokens < 1 || d.max_new_tokens > INFERENCE_MAX_NEW_TOKENS ||
        d.n_eos_ids > GROUP_MAX_EOS_IDS) {
        abort();
    }
    for (size_t i = 0; i < d.n_eos_ids; i++) {
        if (d.eos_ids[i] < 0 || d.eos_ids[i] >= VOCAB) {
            abort();
        }
    }
    return 0;
}
