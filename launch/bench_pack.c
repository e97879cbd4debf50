/* On a GPU a run is a graph of calls, elsewhere a call.  The rows of all blocks are more than the last-level cache. */
#include "launch/bench.h"
#include "launch/bench_pages.h"

#define ROUNDS      7
#define GRAPH_CALLS 4

typedef struct writer {
    const bench_options *o;
    bench_device device;
    bench_pages pages;
    bench_times times; /* of a call */
} writer;

static int32_t n_calls(const writer *w)
{
    return w->o->device == KERN_DEVICE_CUDA ? GRAPH_CALLS : 1;
}

static base_status write_pages(void *arg)
{
    base_status st = BASE_OK;
    const writer *w = arg;
    for (int32_t i = 0; i < n_calls(w) && st == BASE_OK; i++) {
        st = bench_pages_pack(w->device.ctx[0], &w->pages, i % w->pages.n_pools);
    }
    return st;
}

static base_status run(writer *w, bool is_first)
{
    double us = 0.0;
    const base_status st = bench_time_ops(w->device.ctx[0], w, write_pages, w, &us);
    if (st == BASE_OK && !is_first) {
        bench_times_add(&w->times, us / n_calls(w));
    }
    return st;
}

/* One policy, from its pages to its line. */
static base_status measure(writer *w, const char *policy, const base_alloc *mem, json_t *results)
{
    base_status st = BASE_OK;
    const bench_options *o = w->o;
    const int32_t n_blocks = (int32_t)(o->context / KERN_BLOCK_TOKENS);
    const double n_input =
        (double)kern_open_elems(o->n_kv_heads, o->head_dim) * sizeof(uint16_t) * n_blocks;

    w->times.n = 0;
    BASE_TRY(st, out,
             bench_pages_open(w->device.ctx[0], o, policy, n_blocks, n_blocks, 0, mem, &w->pages));
    for (int32_t i = 0; i <= ROUNDS; i++) {
        BASE_TRY(st, out, run(w, i == 0));
    }
    const double us = bench_times_at(&w->times, 0.5);
    const double n_output = (double)w->pages.format->page_bytes * n_blocks;
    const double copy_gb = w->device.copy_gb;
    char text[KV_MAX_POLICY_TEXT];
    kv_policy_text(&w->pages.format->policy, text);
    (void)json_array_append_new(
        results,
        json_pack(
            "{s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:o}", "policy", text, "median_us", us,
            "input_bytes", n_input, "page_bytes", n_output, "input_gb_per_s", n_input * 1e-3 / us,
            "ns_per_row", us * 1e3 / (2.0 * o->n_kv_heads * KERN_BLOCK_TOKENS * n_blocks),
            "share_of_copy_bandwidth",
            copy_gb > 0.0 ? json_real((n_input + n_output) * 1e-3 / us / copy_gb) : json_null(),
            "speed_against_copying_input",
            copy_gb > 0.0 ? json_real(2.0 * n_input * 1e-3 / us / copy_gb) : json_null()));
out:
    bench_pages_close(w->device.ctx[0], &w->pages);
    return st;
}

base_status bench_pack(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    writer w = {.o = o};
    json_t *results = json_array();

    BASE_TRY(st, out, bench_device_open(o, mem, &w.device));
    for (int32_t i = 0; i < o->n_policies; i++) {
        BASE_TRY(st, out, measure(&w, o->policies[i], mem, results));
    }
    *json_out =
        json_pack("{s:s, s:s, s:s, s:{s:s, s:i, s:i}, s:I, s:f, s:O}", "bench", "pack", "device",
                  kern_device_name(o->device), "gpu", w.device.gpu.name, "shape", "name",
                  o->shape_name, "kv_heads", o->n_kv_heads, "head_dim", o->head_dim, "context",
                  (json_int_t)o->context, "copy_gb_per_s", w.device.copy_gb, "results", results);
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the benchmark");
out:
    json_decref(results);
    bench_device_close(&w.device);
    return st;
}
