#include "launch/tune.h"

#include "kernels/comm/comm_ways.h"

#include <stdio.h>

typedef struct best {
    const char *merge, *weights;
    int32_t n_fit;
    double ms; /* of the contexts that fit, together */
} best;

static double real_of(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

/* A line of the table; *found is what it says. */
static void print_line(const bench_options *o, const json_t *report, best *found)
{
    size_t i = 0;
    const json_t *row = NULL;
    (void)printf("%-9s %-11s %10.1f", o->merge, o->weights, real_of(report, "weight_bytes") * 1e-6);
    json_array_foreach(json_object_get(report, "rows"), i, row)
    {
        if (json_is_true(json_object_get(row, "fits"))) {
            (void)printf(" %10.3f", real_of(row, "step_ms"));
            found->n_fit++;
            found->ms += real_of(row, "step_ms");
        } else {
            (void)printf(" %10s", "no room");
        }
    }
    (void)printf("\n");
}

base_status tune_print(const bench_options *o, const base_alloc *mem)
{
    static const char *const weights[] = {"replicated", "split"};
    best top = {.n_fit = 0};

    (void)printf("%s, %s, %d ranks on %s, batch %d: ms a step\n%-9s %-11s %10s", o->model,
                 o->policies[0], o->n_ranks, kern_device_name(o->device), o->batch, "--merge",
                 "--weights", "MB a rank");
    for (int32_t i = 0; i < o->n_contexts; i++) {
        (void)printf(" %10lld", (long long)o->contexts[i]);
    }
    (void)printf("\n");
    for (size_t w = 0; w < sizeof weights / sizeof weights[0]; w++) {
        for (comm_way way = 0; way < COMM_N_WAYS; way++) {
            json_t *report = NULL;
            bench_options one = *o;
            best found = {.merge = comm_way_name(way), .weights = weights[w]};
            if (comm_way_device(way) != o->device) {
                continue;
            }
            one.merge = found.merge;
            one.weights = weights[w];
            one.wished_device = kern_device_name(o->device);
            if (bench_scale(&one, mem, &report) != BASE_OK) {
                (void)printf("%-9s %-11s %s\n", one.merge, one.weights, base_last_error());
                continue;
            }
            print_line(&one, report, &found);
            json_decref(report);
            if (found.n_fit > top.n_fit || (found.n_fit == top.n_fit && found.ms < top.ms)) {
                top = found;
            }
        }
    }
    if (top.n_fit == 0) {
        return BASE_FAIL(BASE_UNAVAILABLE, "no way could be timed");
    }
    (void)printf("use: --merge %s --weights %s (%d of %d contexts fit, %.3f ms together)\n",
                 top.merge, top.weights, top.n_fit, o->n_contexts, top.ms);
    return BASE_OK;
}
