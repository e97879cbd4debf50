#include "worker/boot/choice.h"

#include "kernels/comm/comm_ways.h"

#include <stdio.h>
#include <string.h>

#define MB(n_bytes) ((long long)((n_bytes) >> 20))

base_status choice_of_weights(const choice_weights_case *c, bool *splits_out,
                              char why_out[CHOICE_TEXT])
{
    const bool fits = c->beside_bytes >= c->cache_bytes;
    const bool chosen = strcmp(c->wish, "auto") == 0;

    *splits_out = strcmp(c->wish, "split") == 0 || (chosen && !fits && c->no_split == NULL);
    if (!*splits_out && c->device == KERN_DEVICE_CUDA && c->beside_bytes < 0) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "--weights %s: the whole model takes %lld MB, which is %lld MB more than "
                         "a rank has%s%s",
                         c->wish, MB(c->whole_bytes), MB(-c->beside_bytes),
                         chosen ? ", and it cannot be split: " : "", chosen ? c->no_split : "");
    }
    if (!chosen) {
        (void)snprintf(why_out, CHOICE_TEXT, "--weights %s, as asked", c->wish);
    } else if (c->n_ranks == 1) {
        (void)snprintf(why_out, CHOICE_TEXT, "--weights replicated: there is one rank");
    } else if (fits) {
        (void)snprintf(why_out, CHOICE_TEXT,
                       "--weights replicated: beside %lld MB of them each rank has %lld MB for a "
                       "cache, and %lld are enough",
                       MB(c->whole_bytes), MB(c->beside_bytes), MB(c->cache_bytes));
    } else {
        (void)snprintf(
            why_out, CHOICE_TEXT,
            "--weights %s: beside all %lld MB of them a rank has %lld MB, a cache and "
            "scratch take %lld%s%s",
            *splits_out ? "split" : "replicated", MB(c->whole_bytes), MB(c->beside_bytes),
            MB(c->cache_bytes),
            *splits_out ? "" : ", but they cannot be split: ", *splits_out ? "" : c->no_split);
    }
    return BASE_OK;
}

static bool can(comm_way way, kern_device device, bool splits)
{
    return comm_way_device(way) == device && comm_way_takes(way, splits);
}

/* "nccl-ag, nccl-ar or lsa" */
static void names_of(kern_device device, bool splits, char text_out[CHOICE_TEXT])
{
    int32_t n_left = 0;
    size_t at = 0;
    for (comm_way way = 0; way < COMM_N_WAYS; way++) {
        n_left += can(way, device, splits);
    }
    for (comm_way way = 0; way < COMM_N_WAYS; way++) {
        if (can(way, device, splits)) {
            n_left--;
            at += (size_t)snprintf(text_out + at, CHOICE_TEXT - at, "%s%s", comm_way_name(way),
                                   n_left > 1    ? ", "
                                   : n_left == 1 ? " or "
                                                 : "");
        }
    }
}

static comm_way first(kern_device device, bool splits)
{
    comm_way way = 0;
    while (!can(way, device, splits)) {
        way++;
    }
    return way;
}

base_status choice_of_merge(const seat_plan *plan, const char *wish, bool splits,
                            const char **merge_out, char why_out[CHOICE_TEXT])
{
    const bool gpus = plan->device == KERN_DEVICE_CUDA;
    const bool close = gpus && plan->own_gpus && plan->one_host;

    if (strcmp(wish, "auto") != 0) {
        const comm_way asked = comm_way_find(wish);
        if (asked == COMM_N_WAYS || !can(asked, plan->device, splits)) {
            char names[CHOICE_TEXT];
            names_of(plan->device, splits, names);
            return BASE_FAIL(BASE_BAD_INPUT, "--merge %s, but ranks on %s%s exchange by %s", wish,
                             gpus ? "GPUs" : "CPUs", splits ? " with split weights" : "", names);
        }
        *merge_out = comm_way_name(asked);
        (void)snprintf(why_out, CHOICE_TEXT, "--merge %s, as asked", *merge_out);
        return BASE_OK;
    }
    *merge_out = comm_way_name(close ? COMM_LSA : first(plan->device, splits));
    (void)snprintf(why_out, CHOICE_TEXT, "--merge %s: %s", *merge_out,
                   !gpus             ? "ranks compute on CPUs"
                   : close           ? "every rank has a GPU of this host for itself"
                   : !plan->own_gpus ? "ranks share a GPU"
                                     : "ranks are on several hosts");
    return BASE_OK;
}
