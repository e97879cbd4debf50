/* The first byte selects the decoder.  What decodes must keep its promises, and must encode and
 * decode to an equal struct. */
#include "proto/group_codec.h"
#include "tests/support/codec_same.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void must(bool promise)
{
    if (!promise) {
        abort();
    }
}

static void up(base_view bytes)
{
    group_up *a = NULL;
    group_up *b = NULL;
    base_bytes again;

    if (group_up_decode(bytes, &base_heap, &a) != BASE_OK) {
        must(a == NULL);
        return;
    }
    if (a->kind == GROUP_UP_HELLO) {
        must(a->hello.ranks >= 1 && a->hello.ranks <= GROUP_MAX_RANKS);
        must(a->hello.n_eos_ids <= GROUP_MAX_EOS_IDS);
    }
    must(a->n_top >= 0 && a->n_top <= INFERENCE_MAX_LOGPROBS);
    must(a->done <= a->total);
    for (size_t i = 0; i < a->n_ids; i++) {
        must(a->ids[i] >= 0);
    }
    base_bytes_init(&again, SIZE_MAX / 2, &base_heap);
    must(group_up_encode(a, &again) == BASE_OK);
    must(group_up_decode(base_bytes_view(&again), &base_heap, &b) == BASE_OK);
    must(same_up(a, b));
    base_heap.put(base_heap.ctx, a);
    base_heap.put(base_heap.ctx, b);
    base_bytes_reset(&again);
}

static void down(base_view bytes)
{
    group_down *a = NULL;
    group_down *b = NULL;
    base_bytes again;

    if (group_down_decode(bytes, &base_heap, &a) != BASE_OK) {
        must(a == NULL);
        return;
    }
    if (a->kind == GROUP_DOWN_ADMIT) {
        must(a->admit.n_prompt >= 1 && (size_t)a->admit.n_sent < a->admit.n_prompt);
        must(a->admit.max_new_tokens >= 1);
    }
    base_bytes_init(&again, SIZE_MAX / 2, &base_heap);
    must(group_down_encode(a, &again) == BASE_OK);
    must(group_down_decode(base_bytes_view(&again), &base_heap, &b) == BASE_OK);
    must(same_down(a, b));
    base_heap.put(base_heap.ctx, a);
    base_heap.put(base_heap.ctx, b);
    base_bytes_reset(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes > 0) {
        const base_view bytes = {(const char *)data + 1, n_bytes - 1};
        if (data[0] % 2 == 0) {
            up(bytes);
        } else {
            down(bytes);
        }
    }
    return 0;
}
