#include "launch/bench_print.h"

#include "worker/bench/parts.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static double real_of(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

static void print_gpu(const json_t *root)
{
    if (real_of(root, "copy_gb_per_s") > 0.0) {
        (void)printf("%s: copy %.0f GB/s, read and written\n",
                     json_string_value(json_object_get(root, "gpu")),
                     real_of(root, "copy_gb_per_s"));
    }
}

static void print_attention(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    print_gpu(root);
    json_array_foreach(json_object_get(root, "read_bandwidth"), i, r)
    {
        (void)printf("reading memory, %.0f threads: %.1f GB/s\n", real_of(r, "threads"),
                     real_of(r, "gb_per_s"));
    }
    (void)printf("\n%s, %s, %.0f queries after %.0f x %.0f\n",
                 json_string_value(json_object_get(root, "bench")),
                 json_string_value(json_object_get(json_object_get(root, "shape"), "name")),
                 real_of(root, "queries"), real_of(root, "context"), real_of(root, "batch"));
    (void)printf("%-31s %-7s %7s %9s %11s %11s %11s %8s %8s %10s %8s %7s\n", "cache", "path",
                 "threads", "MB", "median us", "p10 us", "p90 us", "GB/s", "of read", "floor + us",
                 "TFLOP/s", "x bf16");
    json_array_foreach(json_object_get(root, "results"), i, r)
    {
        (void)printf(
            "%-31s %-7s %7.0f %9.1f %11.2f %11.2f %11.2f %8.2f %7.1f%% %10.2f %8.2f %7.2f\n",
            json_string_value(json_object_get(r, "policy")),
            json_string_value(json_object_get(r, "path")), real_of(r, "threads"),
            real_of(r, "bytes") * 1e-6, real_of(r, "median_us"), real_of(r, "p10_us"),
            real_of(r, "p90_us"), real_of(r, "gb_per_s"),
            100.0 * real_of(r, "share_of_read_bandwidth"), real_of(r, "us_over_floor"),
            real_of(r, "tflops"), real_of(r, "speed_against_bf16"));
    }
}

static void print_pack(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    print_gpu(root);
    (void)printf("%-31s %11s %9s %9s %11s %8s %13s\n", "cache", "median us", "MB in", "MB out",
                 "in GB/s", "of copy", "x copying in");
    json_array_foreach(json_object_get(root, "results"), i, r)
    {
        (void)printf("%-31s %11.2f %9.1f %9.1f %11.1f %7.1f%% %13.2f\n",
                     json_string_value(json_object_get(r, "policy")), real_of(r, "median_us"),
                     real_of(r, "input_bytes") * 1e-6, real_of(r, "page_bytes") * 1e-6,
                     real_of(r, "input_gb_per_s"), 100.0 * real_of(r, "share_of_copy_bandwidth"),
                     real_of(r, "speed_against_copying_input"));
    }
}

static void print_step(const json_t *root)
{
    size_t i = 0;
    size_t k = 0;
    const json_t *phase = NULL;
    const json_t *op = NULL;
    const json_t *gemm = json_object_get(root, "gemm");
    if (json_array_size(json_object_get(root, "memory")) > 0) {
        (void)printf("%9s %10s %10s %10s %10s  MB of a rank\n", "context", "weights", "pages",
                     "tails", "scratch");
    }
    json_array_foreach(json_object_get(root, "memory"), i, phase)
    {
        (void)printf("%9.0f %10.1f %10.1f %10.2f %10.2f\n", real_of(phase, "context"),
                     real_of(phase, "weight_bytes") * 1e-6, real_of(phase, "page_bytes") * 1e-6,
                     real_of(phase, "tail_bytes") * 1e-6, real_of(phase, "scratch_bytes") * 1e-6);
    }
    if (json_is_object(gemm)) {
        (void)printf(
            "\nGEMMs of a layer, %.0f rows, one thread: %.2f ms, the library alone %.2f ms: "
            "%.0f%% of its speed\n",
            real_of(gemm, "rows"), real_of(gemm, "layer_us") * 1e-3,
            real_of(gemm, "library_us") * 1e-3, 100.0 * real_of(gemm, "of_library"));
    }
    json_array_foreach(json_object_get(root, "phases"), i, phase)
    {
        (void)printf("\n%s: %.0f tokens in %.0f steps, %.1f ms, median step %.2f ms; work of all "
                     "ranks %.1f ms\n",
                     json_string_value(json_object_get(phase, "phase")), real_of(phase, "tokens"),
                     real_of(phase, "steps"), real_of(phase, "ms"),
                     real_of(phase, "median_step_ms"), real_of(phase, "busy_ms_of_all_ranks"));
        json_array_foreach(json_object_get(phase, "ops"), k, op)
        {
            if (real_of(op, "ms") > 0.0) { /* what was called, and timed */
                (void)printf("  %-10s %10.2f ms %6.1f%%\n",
                             json_string_value(json_object_get(op, "op")), real_of(op, "ms"),
                             100.0 * real_of(op, "share"));
            }
        }
    }
}

/* A line of the table ends where another transport, link or mode begins. */
static bool begins_line(const json_t *r, const json_t *last)
{
    static const char *const keys[] = {"transport", "what", "mode"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (last == NULL ||
            !json_equal(json_object_get(r, keys[i]), json_object_get(last, keys[i]))) {
            return true;
        }
    }
    return false;
}

static void print_merge(const json_t *root)
{
    const json_t *results = json_object_get(root, "results");
    const json_t *first = json_array_get(results, 0);
    const json_t *last = NULL;
    size_t i = 0;
    const json_t *r = NULL;
    (void)printf(
        "%.0f ranks on %.0f GPUs, chains of %.0f; us of a link, median / p99, largest of all "
        "ranks\n\n%-20s",
        real_of(root, "ranks"), real_of(root, "gpus"), real_of(root, "length"), "bytes");
    json_array_foreach(results, i, r)
    {
        if (i > 0 && begins_line(r, first)) {
            break;
        }
        (void)printf(" %15.0f", real_of(r, "bytes"));
    }
    json_array_foreach(results, i, r)
    {
        if (begins_line(r, last)) {
            (void)printf("\n%-6s %-7s %-5s", json_string_value(json_object_get(r, "transport")),
                         json_string_value(json_object_get(r, "what")),
                         json_string_value(json_object_get(r, "mode")));
        }
        (void)printf(" %7.2f/%7.2f", real_of(r, "p50_us"), real_of(r, "p99_us"));
        last = r;
    }
    (void)printf("\n");
    json_array_foreach(json_object_get(root, "absent"), i, r)
    {
        (void)printf("no %s: %s\n", json_string_value(json_object_get(r, "transport")),
                     json_string_value(json_object_get(r, "why")));
    }
}

/* "1M", "128K" */
static const char *length_text(double n, char text[24])
{
    const long long tokens = (long long)n;
    const bool m = tokens >= 1 << 20 && tokens % (1 << 20) == 0;
    const bool k = tokens >= 1 << 10 && tokens % (1 << 10) == 0;
    (void)snprintf(text, 24, "%lld%s",
                   m   ? tokens >> 20
                   : k ? tokens >> 10
                       : tokens,
                   m   ? "M"
                   : k ? "K"
                       : "");
    return text;
}

static void print_steps(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    char text[24];
    const char *gpu = json_string_value(json_object_get(root, "gpu"));
    const char *device = json_string_value(json_object_get(root, "device"));
    (void)printf("%s, batch %.0f, %.0f ranks on %s, %s weights, exchange by %s\n"
                 "a rank: %.1f MB of weights, room for %.1f MB of cache and scratch\n\n",
                 json_string_value(json_object_get(root, "model")), real_of(root, "batch"),
                 real_of(root, "ranks"), gpu[0] != '\0' ? gpu : device,
                 json_string_value(json_object_get(root, "weights")),
                 json_string_value(json_object_get(root, "merge")),
                 real_of(root, "weight_bytes") * 1e-6, real_of(root, "room_bytes") * 1e-6);
    (void)printf("%-24s %8s %13s %9s %9s %9s %9s %13s\n", "cache", "context", "MB of pages", "ms",
                 "p10", "p90", "of read", "tokens/s/rank");
    json_array_foreach(json_object_get(root, "rows"), i, r)
    {
        (void)printf("%-24s %8s %13.1f", json_string_value(json_object_get(r, "policy")),
                     length_text(real_of(r, "context"), text), real_of(r, "page_bytes") * 1e-6);
        if (json_is_true(json_object_get(r, "fits"))) {
            char share[16] = "-"; /* of the CPU's memory nobody knows */
            if (real_of(r, "read_share") > 0.0) {
                (void)snprintf(share, sizeof share, "%.1f%%", 100.0 * real_of(r, "read_share"));
            }
            (void)printf(" %9.3f %9.3f %9.3f %9s %13.1f\n", real_of(r, "step_ms"),
                         real_of(r, "p10_ms"), real_of(r, "p90_ms"), share,
                         real_of(r, "tokens_per_s_per_rank"));
        } else {
            (void)printf(" does not fit\n");
        }
    }
    (void)printf("\n%-24s %12s  longest context that fits\n", "cache", "bytes/token");
    json_array_foreach(json_object_get(root, "policies"), i, r)
    {
        (void)printf("%-24s %12.1f  %.0f\n", json_string_value(json_object_get(r, "policy")),
                     real_of(r, "bytes_per_token"), real_of(r, "largest_context"));
    }
}

/* Lines of the chunks that were timed. */
static void print_timed(const json_t *row)
{
    size_t i = 0;
    const json_t *chunk = NULL;
    char text[24];
    json_array_foreach(json_object_get(row, "timed"), i, chunk)
    {
        (void)printf("  after %-8s %10.2f ms", length_text(real_of(chunk, "position"), text),
                     real_of(chunk, "ms"));
        for (int k = 0; k < BENCH_N_PARTS; k++) {
            const char *part = bench_part_name((bench_part)k);
            if (real_of(chunk, part) > 0.0) {
                (void)printf("  %s %.2f", part, real_of(chunk, part));
            }
        }
        (void)printf("\n");
    }
}

static void print_prompts(const json_t *root)
{
    size_t i = 0;
    const json_t *r = NULL;
    char text[24];
    if (json_array_size(json_object_get(root, "prefill")) == 0) {
        return;
    }
    (void)printf(
        "\nprefill of one sequence in chunks of %.0f tokens: a chunk's ms is measured after so "
        "many positions, seconds are of all\nchunks, those between two that were measured on "
        "the line through these; whole: all were run\n\n%-24s %8s %9s %9s %10s %13s\n",
        real_of(root, "prefill_chunk"), "cache", "context", "seconds", "whole", "tokens/s",
        "tokens/s/rank");
    json_array_foreach(json_object_get(root, "prefill"), i, r)
    {
        char whole[16] = "-";
        (void)printf("%-24s %8s", json_string_value(json_object_get(r, "policy")),
                     length_text(real_of(r, "context"), text));
        if (!json_is_true(json_object_get(r, "fits"))) {
            (void)printf(" does not fit\n");
            continue;
        }
        if (real_of(r, "whole_ms") > 0.0) {
            (void)snprintf(whole, sizeof whole, "%.3f", real_of(r, "whole_ms") * 1e-3);
        }
        (void)printf(" %9.3f %9s %10.1f %13.1f\n", real_of(r, "prefill_ms") * 1e-3, whole,
                     real_of(r, "tokens_per_s"), real_of(r, "tokens_per_s_per_rank"));
        print_timed(r);
    }
}

static void print_scale(const json_t *root)
{
    print_steps(root);
    print_prompts(root);
}

void bench_print(const json_t *root)
{
    static const struct {
        const char *bench;
        void (*print)(const json_t *root);
    } prints[] = {{"step", print_step},           {"merge", print_merge},
                  {"pack", print_pack},           {"scale", print_scale},
                  {"attention", print_attention}, {"prefill", print_attention}};
    const char *bench = json_string_value(json_object_get(root, "bench"));
    for (size_t i = 0; i < sizeof prints / sizeof prints[0]; i++) {
        if (strcmp(prints[i].bench, bench) == 0) {
            prints[i].print(root);
        }
    }
}
