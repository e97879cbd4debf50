/* kernels/cuda/formats.h - what kernels read of a layer's formats, in device memory; private to this folder. */
#ifndef KERNELS_CUDA_FORMATS_H
#define KERNELS_CUDA_FORMATS_H

#include "kernels/cuda/cuda_pages.h"

#include <stdint.h>

#define CUDA_UNIT_BYTES 128                         /* of head pages: work is counted in them */
#define CUDA_BIT_LEVEL  127.0f                      /* the upper of 1 bit's levels */
#define CUDA_MAX_GAPS   (4 * KERN_MAX_SEGMENTS + 2) /* of all sections, one more, and even */

typedef struct cuda_segment {
    int32_t bits;
    int32_t first_dim;
    int32_t n_dims;
    int32_t codes_at;  /* bytes from the start of the side */
    int32_t norms_at;  /* the same; affine: of the scales */
    int32_t minima_at; /* the same; affine only */
    int32_t group;     /* elements that share a scale and a min; 0: not affine */
    float scale;       /* a value is norm * scale * level (or * half, as the table has it) */
    uint32_t low;      /* int8 levels 0..3, a byte each (4 bits: magnitudes to 126, and 1/2) */
    uint32_t high;     /* levels 4..7; both 0: levels do not fit int8 */
    int32_t halves;    /* into halves: [2^bits], centroid / scale; -1: none */
    int32_t book;      /* into floats: [2^bits] centroids, [2^bits - 1] thresholds; -1: none */
} cuda_segment;

typedef struct cuda_side {
    int32_t begin;   /* bytes from the start of the head page; multiple of 16 */
    int32_t n_bytes; /* of all sections; multiple of 16 */
    int32_t n_segments;
    int32_t unused;
    cuda_segment segments[KERN_MAX_SEGMENTS];
} cuda_side;

typedef struct cuda_gap {
    int32_t begin; /* bytes of a head page that no section owns; multiples of 16 */
    int32_t end;
} cuda_gap;

typedef struct cuda_head {
    int64_t offset; /* of the head page in the block's page */
    int32_t n_gaps;
    int32_t unused;
    cuda_side side[2]; /* K, V */
    cuda_gap gaps[CUDA_MAX_GAPS];
} cuda_head;

typedef enum cuda_family {
    CUDA_CODED,  /* codebooks everywhere, those of up to 4 bits int8 levels: integer products */
    CUDA_DENSE,  /* both sides of every head are one bf16 segment */
    CUDA_TABLE,  /* any other segments of codebooks and bf16: centroids from a table */
    CUDA_AFFINE, /* sides of one affine or bf16 segment, at least one of them affine */
} cuda_family;

/* By value in kernel arguments. */
typedef struct cuda_layer {
    const cuda_head *heads; /* [n_kv_heads] */
    const int32_t *units;   /* [n_kv_heads + 1]: page_shares.h, of the heads before head h */
    const float *floats;
    /* Coded pages: in units of 2^-16.  Else a number as two fp16: rounded (low half), and what that leaves. */
    const uint32_t *halves;
    int32_t n_kv_heads;
    int32_t total_units; /* units[n_kv_heads] */
    int32_t head_units;  /* of every head; 0: they differ */
} cuda_layer;

struct kern_cuda_formats {
    base_alloc mem;
    cuda_layer layer;
    void *device; /* one block behind the pointers of layer */
    cuda_family family;
    int32_t head_dim;
    int32_t bits[2];       /* of K and V when every head has one segment of that width, else 0 */
    int32_t group;         /* of all affine segments when it is the same, else 0 */
    int32_t side_bytes[2]; /* the largest n_bytes of K and of V */
    int32_t n_halves;      /* the most table entries of one head */
    int32_t n_sms;
};

#endif /* KERNELS_CUDA_FORMATS_H */
