#include "base/bytes.h"
#include "base/hash.h"
#include "kvshard/calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* The file without its checksum, which is put behind: else no input but the seeds would pass it.  What is
 * accepted is within the limits, and is written as the bytes that it was read from. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    base_hasher *hasher = NULL;
    kv_calibration *c = NULL;
    base_bytes again;
    uint8_t *file = malloc(n_bytes + BASE_HASH_BYTES);
    if (file == NULL || base_hasher_create(&hasher) != BASE_OK) {
        abort();
    }
    if (n_bytes > 0) {
        memcpy(file, bytes, n_bytes);
    }
    base_hasher_add(hasher, file, n_bytes);
    const base_hash sum = base_hasher_end(hasher);
    memcpy(file + n_bytes, sum.bytes, BASE_HASH_BYTES);
    const base_view view = {(const char *)file, n_bytes + BASE_HASH_BYTES};
    if (kv_calibration_parse(view, "fuzz", &base_heap, &c) == BASE_OK) {
        const int64_t n = kv_calibration_count(&c->shape);
        for (int64_t i = 0; i < n; i++) {
            if (!isfinite(c->energies[i]) || c->energies[i] < 0.0f) {
                abort();
            }
        }
        base_bytes_init(&again, view.n_bytes, &base_heap);
        if (kv_calibration_write(c, &again) != BASE_OK ||
            !base_view_equal(base_bytes_view(&again), view)) {
            abort();
        }
        base_bytes_reset(&again);
        kv_calibration_destroy(c);
    }
    free(file);
    return 0;
}
