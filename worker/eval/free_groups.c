#include "worker/eval/free_groups.h"

#include "base/half.h"
#include "base/random.h"
#include "kvshard/allocate.h"
#include "kvshard/codebook.h"

#include <math.h>

#define SEED       UINT64_C(0x66726565) /* of the rotations */
#define LEAST_BITS 1
#define MOST_BITS  8
#define MAX_BLOCKS (KERN_MAX_HEAD_DIM / 2)
#define NORM_BYTES 2
#define MOST_NORM  65504.0 /* of fp16 */

struct eval_free_groups {
    kv_shape shape;
    uint8_t *bits;                                   /* [n_layers][n_kv_heads][D / 2] */
    float *rotations[MAX_BLOCKS + 1];                /* by blocks n of a group: [2n][2n] */
    double centroids[MOST_BITS + 1][1 << MOST_BITS]; /* by bits, of N(0, 1), ascending */
    base_alloc mem;
};

static uint8_t *bits_of(const eval_free_groups *g, int32_t layer, int32_t head)
{
    return g->bits + ((int64_t)layer * g->shape.n_kv_heads + head) * (g->shape.head_dim / 2);
}

/* The blocks of a width; how many. */
static int32_t find_blocks(const uint8_t *bits, int32_t n_blocks, int32_t width,
                           int32_t blocks_out[MAX_BLOCKS])
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_blocks; i++) {
        if (bits[i] == width) {
            blocks_out[n++] = i;
        }
    }
    return n;
}

static double dot(const double *a, const double *b, int32_t n)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* A uniformly random orthogonal matrix: normal rows, made orthogonal one after another, twice each
 * because once leaves rounding behind. */
static base_status rotation_make(const base_alloc *mem, int32_t n, float **rotation_out)
{
    base_status st = BASE_OK;
    double *rows = mem->get(mem->ctx, (size_t)n * (size_t)n * sizeof *rows);
    float *rotation = mem->get(mem->ctx, (size_t)n * (size_t)n * sizeof *rotation);
    if (rows == NULL || rotation == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rotation of %d dims", n);
        goto out;
    }
    for (int32_t r = 0; r < n; r++) {
        double *row = rows + (int64_t)r * n;
        for (int32_t i = 0; i < n; i++) {
            row[i] = base_random_normal(SEED, (uint64_t)n, (uint64_t)(r * n + i));
        }
        for (int32_t before = 0; before < 2 * r; before++) {
            const double *other = rows + (int64_t)(before % r) * n;
            const double along = dot(row, other, n);
            for (int32_t i = 0; i < n; i++) {
                row[i] -= along * other[i];
            }
        }
        const double length = sqrt(dot(row, row, n));
        for (int32_t i = 0; i < n; i++) {
            row[i] /= length;
            rotation[r * n + i] = (float)row[i];
        }
    }
    *rotation_out = rotation;
    rotation = NULL;
out:
    mem->put(mem->ctx, rotation);
    mem->put(mem->ctx, rows);
    return st;
}

/* The widths of a head, and the rotations that its groups need. */
static base_status head_make(eval_free_groups *g, const float *energies, int32_t mean_bits,
                             uint8_t *bits_out)
{
    const int32_t n_blocks = g->shape.head_dim / 2;
    double scores[MAX_BLOCKS] = {0.0};
    int32_t bits[MAX_BLOCKS];
    int32_t n_of_width[MOST_BITS + 1] = {0};

    for (int32_t i = 0; i < n_blocks; i++) {
        scores[i] = 0.5 * ((double)energies[i] + (double)energies[i + n_blocks]);
    }
    kv_allocate_bits(scores, n_blocks, n_blocks * mean_bits, LEAST_BITS, MOST_BITS, bits);
    for (int32_t i = 0; i < n_blocks; i++) {
        bits_out[i] = (uint8_t)bits[i];
        n_of_width[bits[i]]++;
    }
    for (int32_t width = LEAST_BITS; width <= MOST_BITS; width++) {
        float **rotation = &g->rotations[n_of_width[width]];
        if (n_of_width[width] > 0 && *rotation == NULL) {
            const base_status st = rotation_make(&g->mem, 2 * n_of_width[width], rotation);
            if (st != BASE_OK) {
                return st;
            }
        }
    }
    return BASE_OK;
}

base_status eval_free_groups_create(const kv_calibration *calibration, int32_t mean_bits,
                                    const base_alloc *mem, eval_free_groups **groups_out)
{
    base_status st = BASE_OK;
    const kv_shape *shape = &calibration->shape;
    const size_t n_heads = (size_t)shape->n_layers * (size_t)shape->n_kv_heads;
    eval_free_groups *g = mem->get(mem->ctx, sizeof *g);
    if (g == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "groups of keys");
        goto out;
    }
    g->mem = *mem;
    g->shape = *shape;
    g->bits = mem->get(mem->ctx, n_heads * (size_t)shape->head_dim / 2);
    if (g->bits == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "groups of keys of %zu heads", n_heads);
        goto out;
    }
    for (int32_t width = LEAST_BITS; width <= MOST_BITS; width++) {
        kv_codebook_page(width, g->centroids[width]);
    }
    for (int32_t layer = 0; layer < shape->n_layers; layer++) {
        for (int32_t head = 0; head < shape->n_kv_heads; head++) {
            BASE_TRY(st, out,
                     head_make(g, kv_calibration_head(calibration, layer, head), mean_bits,
                               bits_of(g, layer, head)));
        }
    }
    *groups_out = g;
    g = NULL;
out:
    eval_free_groups_destroy(g);
    return st;
}

void eval_free_groups_destroy(eval_free_groups *g)
{
    if (g == NULL) {
        return;
    }
    const base_alloc mem = g->mem;
    for (int32_t n = 0; n <= MAX_BLOCKS; n++) {
        mem.put(mem.ctx, g->rotations[n]);
    }
    mem.put(mem.ctx, g->bits);
    mem.put(mem.ctx, g);
}

/* The centroid nearest to x; of two as near the lower. */
static double nearest(const double *centroids, int32_t bits, double x)
{
    int32_t code = 0;
    while (code + 1 < 1 << bits && 0.5 * (centroids[code] + centroids[code + 1]) < x) {
        code++;
    }
    return centroids[code];
}

/* x [n] becomes norm * R^T y, y the centroids nearest to R x / |x|, in place. */
static void through_codes(const float *rotation, const double *centroids, int32_t bits, int32_t n,
                          double *x)
{
    double y[KERN_MAX_HEAD_DIM];
    const double length = sqrt(dot(x, x, n));
    const double scale = sqrt((double)n) / (length > 1e-10 ? length : 1.0);
    double y_length = 0.0;

    for (int32_t r = 0; r < n; r++) {
        double turned = 0.0;
        for (int32_t i = 0; i < n; i++) {
            turned += (double)rotation[r * n + i] * x[i];
        }
        y[r] = nearest(centroids, bits, turned * scale);
        y_length += y[r] * y[r];
    }
    const uint16_t half = base_f16_from_f32((float)fmin(length * sqrt(n / y_length), MOST_NORM));
    const double norm = length > 1e-10 ? (double)base_f32_from_f16(half) / sqrt(n) : 0.0;
    for (int32_t i = 0; i < n; i++) {
        x[i] = 0.0;
    }
    for (int32_t r = 0; r < n; r++) {
        for (int32_t i = 0; i < n; i++) {
            x[i] += (double)rotation[r * n + i] * norm * y[r];
        }
    }
}

void eval_free_groups_apply(const eval_free_groups *g, int32_t layer, int32_t head, float *key)
{
    const int32_t n_blocks = g->shape.head_dim / 2;
    int32_t blocks[MAX_BLOCKS];
    double x[KERN_MAX_HEAD_DIM];

    for (int32_t width = LEAST_BITS; width <= MOST_BITS; width++) {
        const int32_t n = find_blocks(bits_of(g, layer, head), n_blocks, width, blocks);
        for (int32_t i = 0; i < n; i++) {
            x[2 * i] = (double)key[blocks[i]];
            x[2 * i + 1] = (double)key[blocks[i] + n_blocks];
        }
        if (n > 0) {
            through_codes(g->rotations[n], g->centroids[width], width, 2 * n, x);
        }
        for (int32_t i = 0; i < n; i++) {
            key[blocks[i]] = (float)x[2 * i];
            key[blocks[i] + n_blocks] = (float)x[2 * i + 1];
        }
    }
}

int32_t eval_free_groups_bytes(const eval_free_groups *g, int32_t layer)
{
    const int32_t n_blocks = g->shape.head_dim / 2;
    int32_t blocks[MAX_BLOCKS];
    int32_t n_bytes = 0;

    for (int32_t head = 0; head < g->shape.n_kv_heads; head++) {
        for (int32_t width = LEAST_BITS; width <= MOST_BITS; width++) {
            const int32_t n = find_blocks(bits_of(g, layer, head), n_blocks, width, blocks);
            n_bytes += n > 0 ? (2 * n * width + 7) / 8 + NORM_BYTES : 0;
        }
    }
    return n_bytes;
}
