#include "kernels/cuda/page_shares.h"

#include "kernels/cuda/formats.h"

#include <math.h>

#define COST_DIMS 16

/* Instructions of a warp, by the compiled kernels for up to four query rows (cuobjdump -sass): of 128 tokens of 16 dims
 * at b bits, of a segment beside them, of a page beside its segments. */
static const double code_instructions[] = {27, 47, 56, 75, 484, 576, 585, 357};
#define SEGMENT_INSTRUCTIONS 120
#define PAGE_INSTRUCTIONS    150

/* What a core reads while it gets one through, by what launches take: 17.2 bytes a cycle (4.5 TB/s over 132 cores), in
 * which loops over wide codes issue 1.7. */
#define BYTES_OF_INSTRUCTION 10.0

static double segments_instructions(const kern_side *side)
{
    double sum = 0.0;
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        sum += SEGMENT_INSTRUCTIONS + g->n_dims / COST_DIMS * code_instructions[g->bits - 1];
    }
    return sum;
}

/* Of a page, in bytes; reading: what a byte costs. */
static double cost_of(const kern_head_format *f, bool coded, double reading)
{
    const double bytes = reading * f->head_page_bytes;
    if (!coded) {
        return bytes;
    }
    return fmax(bytes, BYTES_OF_INSTRUCTION * (PAGE_INSTRUCTIONS + segments_instructions(&f->k) +
                                               segments_instructions(&f->v)));
}

static double cost_of_all(const kern_head_format *formats, int32_t n, bool coded, double reading)
{
    double sum = 0.0;
    for (int32_t h = 0; h < n; h++) {
        sum += cost_of(&formats[h], coded, reading);
    }
    return sum;
}

void kern_page_shares(const kern_head_format *formats, int32_t n_heads, bool coded,
                      int32_t *units_out)
{
    const double bytes = cost_of_all(formats, n_heads, false, 1.0);
    double reading = 0.0; /* the most for which all cost no more than their bytes */
    for (double step = 0.5; step > 1e-6; step /= 2) {
        if (cost_of_all(formats, n_heads, coded, reading + step) <= bytes) {
            reading += step;
        }
    }
    const double unit = CUDA_UNIT_BYTES * cost_of_all(formats, n_heads, coded, reading) / bytes;
    for (int32_t h = 0; h < n_heads; h++) {
        const int32_t units = (int32_t)lrint(cost_of(&formats[h], coded, reading) / unit);
        units_out[h] = units > 1 ? units : 1;
    }
}
