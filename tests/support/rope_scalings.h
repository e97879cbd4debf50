/* tests/support/rope_scalings.h - every way in which RoPE's frequencies may be scaled, as config.json says it. */
#ifndef TESTS_SUPPORT_ROPE_SCALINGS_H
#define TESTS_SUPPORT_ROPE_SCALINGS_H

static const char *const rope_scalings[] = {
    "none",
    "{\"rope_type\":\"linear\",\"factor\":4}",
    "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
    "\"original_max_position_embeddings\":512}",
    "{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":512}",
};
#define N_ROPE_SCALINGS (sizeof rope_scalings / sizeof rope_scalings[0])

#endif /* TESTS_SUPPORT_ROPE_SCALINGS_H */
