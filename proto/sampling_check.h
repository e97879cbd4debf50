/* proto/sampling_check.h - the ranges of inference_sampling, for the two messages that carry it. */
#ifndef PROTO_SAMPLING_CHECK_H
#define PROTO_SAMPLING_CHECK_H

#include "base/status.h"
#include "proto/inference_codec.h"

/* folder names the message in errors: "sampling" gives "field 'sampling.top_p' is ...".
 * A top_k that came as more than INT32_MAX is negative here, and refused.
 * Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status proto_sampling_check(const char *folder,
                                                 const inference_sampling *sampling);

#endif /* PROTO_SAMPLING_CHECK_H */
