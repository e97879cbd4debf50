/* One side of one head page in cache, processor time of one thread, the least of many runs:
 *   bench_page
 * One JSON line a width: the page writer and decode attention with 4 query rows, in plain C and with this machine's
 * best path. */
#include "base/alloc.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/cpu/cpu_few.h"
#include "kernels/cpu/cpu_page.h"
#include "kernels/cpu/cpu_page_write.h"
#include "kernels/cpu/cpu_rows.h"
#include "kvshard/format.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define KEYS KERN_BLOCK_TOKENS
#define DIM  128
#define ROWS 4
#define RUNS 200

static double now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* The least time of a statement. */
#define LEAST(out, statement)                     \
    do {                                          \
        (out) = 1e30;                             \
        for (int run = 0; run < RUNS; run++) {    \
            const double begun = now_us();        \
            statement;                            \
            const double took = now_us() - begun; \
            (out) = took < (out) ? took : (out);  \
        }                                         \
    } while (0)

static int bench(int bits, const uint16_t *rows)
{
    static uint8_t page[KEYS * DIM * 4];
    static float values[KEYS * DIM];
    static float q[ROWS * DIM];
    static float s[ROWS * KEYS];
    static float o[ROWS * DIM];
    const cpu_few_bytes nothing = {NULL, NULL};
    const kv_shape shape = {1, 1, DIM};
    char text[32];
    kv_policy policy;
    kv_format *format = NULL;
    double write_plain, write_fast, dot_plain, dot_fast, mix_plain, mix_fast;
    cpu_few_side plan;

    (void)snprintf(text, sizeof text, "tq:k=%d,v=%d", bits, bits);
    if (kv_policy_parse(text, &policy) != BASE_OK ||
        kv_format_create(&policy, &shape, &base_heap, &format) != BASE_OK) {
        fprintf(stderr, "bench_page: %s\n", base_last_error());
        return 1;
    }
    const int32_t bytes = format->heads->head_page_bytes;
    const kern_side *side = &format->heads->k;
    const kern_segment *g = &side->segments[0];
    LEAST(write_plain, cpu_codes_encode(g, rows, DIM, CPU_ISA_PLAIN, page));
    LEAST(write_fast, cpu_codes_encode(g, rows, DIM, cpu_isa_of_machine(), page));
    for (int i = 0; i < ROWS * DIM; i++) {
        q[i] = base_f32_from_bf16(rows[i]);
        s[i] = 0.01f;
    }
    LEAST(dot_plain, cpu_side_decode(side, DIM, page, bytes, values);
          cpu_rows_dot(q, values, s, ROWS, KEYS, DIM));
    LEAST(mix_plain, cpu_side_decode(side, DIM, page, bytes, values);
          cpu_rows_mix(s, values, o, ROWS, KEYS, DIM));
    cpu_few_plan(side, bytes, cpu_isa_of_machine(), &plan);
    bool done = plan.usable;
    LEAST(dot_fast, done = done && cpu_few_dot(side, &plan, DIM, page, nothing, q, s, ROWS));
    LEAST(mix_fast, done = done && cpu_few_mix(side, &plan, DIM, page, nothing, s, o, ROWS));
    printf("{\"bits\": %d, \"path\": \"%s\", \"write_us\": [%.1f, %.1f], \"dot_us\": [%.2f, %.2f], "
           "\"mix_us\": [%.2f, %.2f]}\n",
           bits, done ? cpu_isa_name(cpu_isa_of_machine()) : "none", write_plain, write_fast,
           dot_plain, dot_fast, mix_plain, mix_fast);
    kv_format_destroy(format);
    return 0;
}

int main(void)
{
    static uint16_t rows[KEYS * DIM];
    int failed = 0;
    for (int i = 0; i < KEYS * DIM; i++) {
        rows[i] = base_bf16_from_f32((float)base_random_normal(1, 1, (uint64_t)i));
    }
    for (int bits = 2; bits <= 8 && !failed; bits++) {
        failed = bench(bits, rows);
    }
    return failed;
}
