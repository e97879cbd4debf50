#include "worker/boot/choice.h"

#include <stdio.h>
#include <string.h>

#define MB(n_bytes) ((long long)((n_bytes) >> 20))

/* Where each can be had; of those that can, auto takes lsa, else the first. */
static const struct {
    const char *name;
    kern_device device;
    bool replicated, split; /* with such weights */
} merges[] = {
    {"mpi", KERN_DEVICE_CPU, true, true},       {"nccl-ag", KERN_DEVICE_CUDA, true, false},
    {"nccl-ar", KERN_DEVICE_CUDA, true, false}, {"nccl-a2a", KERN_DEVICE_CUDA, false, true},
    {"lsa", KERN_DEVICE_CUDA, true, true},
};
#define N_MERGES (sizeof merges / sizeof merges[0])

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

static bool can(size_t i, kern_device device, bool splits)
{
    return merges[i].device == device && (splits ? merges[i].split : merges[i].replicated);
}

/* "nccl-ag, nccl-ar or lsa" */
static void names_of(kern_device device, bool splits, char text_out[CHOICE_TEXT])
{
    size_t n_left = 0;
    size_t at = 0;
    for (size_t i = 0; i < N_MERGES; i++) {
        n_left += can(i, device, splits);
    }
    for (size_t i = 0; i < N_MERGES; i++) {
        if (can(i, device, splits)) {
            n_left--;
            at += (size_t)snprintf(text_out + at, CHOICE_TEXT - at, "%s%s", merges[i].name,
                                   n_left > 1    ? ", "
                                   : n_left == 1 ? " or "
                                                 : "");
        }
    }
}

/* Of those that can be had; NULL: none has the name. */
static const char *find(kern_device device, bool splits, const char *name)
{
    for (size_t i = 0; i < N_MERGES; i++) {
        if (can(i, device, splits) && (name == NULL || strcmp(merges[i].name, name) == 0)) {
            return merges[i].name;
        }
    }
    return NULL;
}

base_status choice_of_merge(const seat_plan *plan, const char *wish, bool splits,
                            const char **merge_out, char why_out[CHOICE_TEXT])
{
    const bool gpus = plan->device == KERN_DEVICE_CUDA;
    const bool close = gpus && plan->own_gpus && plan->one_host;

    if (strcmp(wish, "auto") != 0) {
        const char *asked = find(plan->device, splits, wish);
        if (asked == NULL) {
            char names[CHOICE_TEXT];
            names_of(plan->device, splits, names);
            return BASE_FAIL(BASE_BAD_INPUT, "--merge %s, but ranks on %s%s exchange by %s", wish,
                             gpus ? "GPUs" : "CPUs", splits ? " with split weights" : "", names);
        }
        *merge_out = asked;
        (void)snprintf(why_out, CHOICE_TEXT, "--merge %s, as asked", asked);
        return BASE_OK;
    }
    *merge_out = find(plan->device, splits, close ? "lsa" : NULL);
    (void)snprintf(why_out, CHOICE_TEXT, "--merge %s: %s", *merge_out,
                   !gpus             ? "ranks compute on CPUs"
                   : close           ? "every rank has a GPU of this host for itself"
                   : !plan->own_gpus ? "ranks share a GPU"
                                     : "ranks are on several hosts");
    return BASE_OK;
}
