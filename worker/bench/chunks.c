#include "worker/bench/chunks.h"

#include "kernels/page.h"

#define N_PLACES 5

base_status bench_chunks_check(int32_t chunk)
{
    if (chunk < KERN_BLOCK_TOKENS || chunk > BENCH_MAX_CHUNK || chunk % KERN_BLOCK_TOKENS != 0) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "--prefill-chunk is %d, allowed are multiples of %d up to %d", chunk,
                         KERN_BLOCK_TOKENS, BENCH_MAX_CHUNK);
    }
    return BASE_OK;
}

bench_chunks bench_chunks_of(int64_t n_tokens, int32_t chunk)
{
    bench_chunks c = {.n_tokens = n_tokens, .chunk = chunk};
    const int64_t n_whole = n_tokens / chunk;

    for (int32_t i = 0; i < N_PLACES && n_whole > 0; i++) {
        const int64_t begin = ((n_whole - 1) * i + 2) / (N_PLACES - 1) * chunk;
        if (c.n_timed == 0 || begin > c.begins[c.n_timed - 1]) {
            c.begins[c.n_timed++] = begin;
        }
    }
    if (n_tokens % chunk != 0) {
        c.begins[c.n_timed++] = n_whole * chunk;
    }
    return c;
}

int32_t bench_chunks_tokens(const bench_chunks *c, int32_t i)
{
    const int64_t n_left = c->n_tokens - c->begins[i];
    return n_left < c->chunk ? (int32_t)n_left : c->chunk;
}

double bench_chunks_total(const bench_chunks *c, const double *times)
{
    double total = 0.0;
    for (int32_t i = 0; i < c->n_timed; i++) {
        total += times[i];
        if (i + 1 < c->n_timed) { /* and those up to the next */
            const int64_t n = (c->begins[i + 1] - c->begins[i]) / c->chunk - 1;
            total += (double)n * (times[i] + times[i + 1]) / 2.0;
        }
    }
    return total;
}
