/* One head page in cache, processor time of one thread, the least of many runs:
 *   bench_page
 * One JSON line a policy: the page writer (V) and decode attention with 4 query rows (K, V), in plain C and with this
 * machine's best path.  Affine sides have one writer. */
#include "base/alloc.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/cpu/cpu_few.h"
#include "kernels/cpu/cpu_page.h"
#include "kernels/cpu/cpu_page_write.h"
#include "kernels/cpu/cpu_rows.h"
#include "kvshard/calibration.h"
#include "kvshard/format.h"

#include <math.h>
#include <stdio.h>
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

/* The format of a policy for one head whose RoPE blocks differ in energy as those of bench attention do. */
static kv_format *make_format(const char *text)
{
    const kv_shape shape = {1, 1, DIM};
    const base_hash no_model = {{0}};
    kv_policy policy;
    kv_calibration *calibration = NULL;
    kv_format *format = NULL;

    if (kv_calibration_create(&shape, no_model, 1, &base_heap, &calibration) == BASE_OK) {
        for (int32_t i = 0; i < DIM; i++) {
            const double z = base_random_normal(1, 999, (uint64_t)(i % (DIM / 2)));
            calibration->energies[i] = (float)exp(1.5 * z);
        }
        if (kv_policy_parse(text, &policy) != BASE_OK ||
            kv_format_create_calibrated(&policy, &shape, calibration, &base_heap, &format) !=
                BASE_OK) {
            fprintf(stderr, "bench_page: %s\n", base_last_error());
        }
    }
    kv_calibration_destroy(calibration);
    return format;
}

static int bench(const char *policy, const uint16_t *rows)
{
    static uint8_t page[KEYS * DIM * 4];
    static float values[KEYS * DIM];
    static float q[ROWS * DIM];
    static float s[ROWS * KEYS];
    static float o[ROWS * DIM];
    const cpu_few_bytes nothing = {NULL, NULL};
    const cpu_isa isa = cpu_isa_of_machine();
    double write_plain, write_fast, dot_plain, dot_fast, mix_plain, mix_fast;
    cpu_few_side k_plan, v_plan;

    kv_format *format = make_format(policy);
    if (format == NULL) {
        return 1;
    }
    const int32_t bytes = format->heads->head_page_bytes;
    const kern_side *k = &format->heads->k;
    const kern_side *v = &format->heads->v;
    if (kern_segment_is_affine(&v->segments[0])) {
        LEAST(write_plain, cpu_side_encode(v, DIM, rows, page));
        write_fast = write_plain;
    } else {
        LEAST(write_plain, cpu_codes_encode(&v->segments[0], rows, DIM, CPU_ISA_PLAIN, page));
        LEAST(write_fast, cpu_codes_encode(&v->segments[0], rows, DIM, isa, page));
    }
    cpu_side_encode(k, DIM, rows, page);
    for (int i = 0; i < ROWS * DIM; i++) {
        q[i] = base_f32_from_bf16(rows[i]);
        s[i] = 0.01f;
    }
    LEAST(dot_plain, cpu_side_decode(k, DIM, page, bytes, values);
          cpu_rows_dot(q, values, s, ROWS, KEYS, DIM));
    LEAST(mix_plain, cpu_side_decode(v, DIM, page, bytes, values);
          cpu_rows_mix(s, values, o, ROWS, KEYS, DIM));
    cpu_few_plan(k, bytes, isa, &k_plan);
    cpu_few_plan(v, bytes, isa, &v_plan);
    bool done = k_plan.usable && v_plan.usable;
    LEAST(dot_fast, done = done && cpu_few_dot(k, &k_plan, DIM, page, nothing, q, s, ROWS));
    LEAST(mix_fast, done = done && cpu_few_mix(v, &v_plan, DIM, page, nothing, s, o, ROWS));
    printf("{\"policy\": \"%s\", \"path\": \"%s\", \"write_us\": [%.1f, %.1f], "
           "\"dot_us\": [%.2f, %.2f], \"mix_us\": [%.2f, %.2f]}\n",
           policy, done ? cpu_isa_name(isa) : "none", write_plain, write_fast, dot_plain, dot_fast,
           mix_plain, mix_fast);
    kv_format_destroy(format);
    return 0;
}

int main(void)
{
    static const char *const policies[] = {
        "tq:k=2,v=2",         "tq:k=3,v=3",        "tq:k=4,v=4",        "tq:k=5,v=5",
        "tq:k=6,v=6",         "tq:k=7,v=7",        "tq:k=8,v=8",        "block-gtq:k=2,v=2",
        "block-gtq:k=3,v=3",  "block-gtq:k=4,v=4", "kivi:k=2,v=2,g=32", "kivi:k=4,v=4,g=32",
        "kivi:k=2,v=2,g=128", "kivi:k=4,v=4,g=128"};
    static uint16_t rows[KEYS * DIM];
    int failed = 0;
    for (int i = 0; i < KEYS * DIM; i++) {
        rows[i] = base_bf16_from_f32((float)base_random_normal(1, 1, (uint64_t)i));
    }
    for (size_t i = 0; i < sizeof policies / sizeof policies[0] && !failed; i++) {
        failed = bench(policies[i], rows);
    }
    return failed;
}
