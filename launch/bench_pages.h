/* launch/bench_pages.h - pages of synthetic values: rows of a standard normal, appended and packed as a step does it.
 *
 * What ops read lies in memory of the context, so the same pages exist on every device, in its own order. */
#ifndef LAUNCH_BENCH_PAGES_H
#define LAUNCH_BENCH_PAGES_H

#include "kernels/kern.h"
#include "kvshard/format.h"
#include "launch/bench.h"

#include <stdint.h>

typedef struct bench_rows { /* bf16 rows of blocks, full ones */
    kern_open *opens;       /* [n_blocks], a mirror; their block is their index */
    uint16_t *values;       /* [n_blocks][kern_open_elems] */
    int32_t n_blocks;
} bench_rows;

/* format, of one layer, is bound.  Blocks repeat after the first few.  Errors: NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status bench_rows_open(kern_ctx *ctx, const kv_format *format,
                                            int32_t n_blocks, bench_rows *rows);
void bench_rows_close(kern_ctx *ctx, bench_rows *rows); /* what is zeroed is closed */

typedef struct bench_pages {
    kv_format *format; /* of one layer; bound */
    uint8_t *bytes;    /* [n_pools][n_pages][page_bytes] */
    kern_pack *packs;  /* [n_pages], a mirror: what pack does to a pool */
    bench_rows rows;   /* that they were made of */
    int32_t n_pages;
    int32_t n_pools;
} bench_pages;

/* As many pools of n_pages, in the shape of o, as make more than n_cold_bytes; of at most max_rows different blocks.
 * Errors: BAD_INPUT, NO_MEMORY, DEVICE_LOST; what is there then is closed by bench_pages_close. */
BASE_MUST_CHECK base_status bench_pages_open(kern_ctx *ctx, const bench_options *o,
                                             const char *policy, int32_t n_pages, int32_t max_rows,
                                             int64_t n_cold_bytes, const base_alloc *mem,
                                             bench_pages *pages);
void bench_pages_close(kern_ctx *ctx, bench_pages *pages); /* what is zeroed is closed */

static inline uint8_t *bench_pages_pool(const bench_pages *pages, int32_t pool)
{
    return pages->bytes + (int64_t)pool * pages->n_pages * pages->format->page_bytes;
}

/* Writes all pages of a pool. */
BASE_MUST_CHECK base_status bench_pages_pack(kern_ctx *ctx, const bench_pages *pages, int32_t pool);

#endif /* LAUNCH_BENCH_PAGES_H */
