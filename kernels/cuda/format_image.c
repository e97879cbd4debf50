#include "kernels/cuda/format_image.h"

#include <string.h>

#define ALIGN_BYTES 16

typedef struct image {
    const char *device;
    char *bytes; /* NULL: only counted */
    size_t n_bytes;
} image;

/* Adds a copy of p; returns the address it will have on the device. */
static const void *add(image *im, const void *p, size_t n_bytes)
{
    if (p == NULL) {
        return NULL;
    }
    const size_t at = (im->n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    im->n_bytes = at + n_bytes;
    if (im->bytes == NULL) {
        return p;
    }
    memcpy(im->bytes + at, p, n_bytes);
    return im->device + at;
}

static void add_side(image *im, kern_side *side, int32_t head_dim)
{
    side->signs = add(im, side->signs, (size_t)head_dim * sizeof *side->signs);
    side->query_signs = add(im, side->query_signs, (size_t)head_dim * sizeof *side->query_signs);
    side->order = add(im, side->order, (size_t)head_dim * sizeof *side->order);
    for (int32_t i = 0; i < side->n_segments; i++) {
        kern_segment *g = &side->segments[i];
        if (g->bits != 16) {
            const size_t n_codes = (size_t)1 << g->bits;
            g->centroids = add(im, g->centroids, n_codes * sizeof *g->centroids);
            g->thresholds = add(im, g->thresholds, (n_codes - 1) * sizeof *g->thresholds);
        }
    }
}

static void add_all(image *im, const kern_head_format *formats, int32_t n_heads)
{
    im->n_bytes = (size_t)n_heads * sizeof *formats;
    for (int32_t i = 0; i < n_heads; i++) {
        kern_head_format head = formats[i];
        add_side(im, &head.k, head.head_dim);
        add_side(im, &head.v, head.head_dim);
        if (im->bytes != NULL) {
            memcpy(im->bytes + (size_t)i * sizeof head, &head, sizeof head);
        }
    }
}

size_t cuda_format_image_bytes(const kern_head_format *formats, int32_t n_heads)
{
    image im = {.bytes = NULL};
    add_all(&im, formats, n_heads);
    return im.n_bytes;
}

void cuda_format_image(const kern_head_format *formats, int32_t n_heads, const char *device,
                       void *image_out)
{
    image im = {.device = device, .bytes = image_out};
    add_all(&im, formats, n_heads);
}
