#include "proto/sampling_check.h"

#include "proto/wire.h"

#include <stdio.h>

base_status proto_sampling_check(const char *folder, const inference_sampling *sampling)
{
    const struct {
        const char *name;
        float value;
        wire_low kind;
        double high;
    } reals[] = {
        {"temperature", sampling->temperature, WIRE_FROM, 100},
        {"top_p", sampling->top_p, WIRE_ABOVE, 1},
        {"min_p", sampling->min_p, WIRE_FROM, 1},
        {"repetition_penalty", sampling->repetition_penalty, WIRE_ABOVE, 100},
    };
    base_status st = BASE_OK;
    char field[64];

    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        (void)snprintf(field, sizeof field, "%s.%s", folder, reals[i].name);
        BASE_TRY(st, out,
                 wire_check_real(field, (double)reals[i].value, reals[i].kind, 0, reals[i].high));
    }
    (void)snprintf(field, sizeof field, "%s.top_k", folder);
    BASE_TRY(st, out, wire_check_i32(field, (uint32_t)sampling->top_k));

out:
    return st;
}
