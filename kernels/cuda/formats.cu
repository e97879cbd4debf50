/* Host code: what the kernels need to know is worked out once, when a layer is made. */
#include "kernels/cuda/formats.h"

#include "base/half.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/fragment.h"
#include "kernels/cuda/page_shares.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

namespace {

constexpr int kPlain = 16; /* bits of bf16 values */
constexpr int kMaxBook = 256;

struct builder { /* the device block, on the host */
    cuda_head *heads;
    int32_t *units;
    float *floats;
    uint32_t *halves;
    int32_t n_floats;
    int32_t n_halves;
};

/* Whether value / scale is a level that the integer kernel can hold. */
bool is_level(double value, double scale, int bits, int *level_out)
{
    const double half = bits == 4 ? 0.5 : 0.0;
    const double x = fabs(value) / scale - half;
    *level_out = (int)lrint(x);
    return fabs(x - *level_out) < 2e-5 * (x + 1.0) && *level_out >= 0 && *level_out <= 127;
}

/* Finds the largest top level for which all centroids are levels, so that segments' scales, and with them the query's
 * codes, are of one size; fills scale, low and high. */
bool find_levels(const float *centroids, cuda_segment *g)
{
    if (g->bits > 4) {
        return false;
    }
    const int n = 1 << g->bits;
    const int first = g->bits == 4 ? n / 2 : 0; /* of 4 bits, the positive half */
    const int last_level = g->bits == 4 ? 126 : (int)CUDA_BIT_LEVEL;
    for (int i = 0; i < n / 2; i++) {
        if (centroids[n - 1 - i] <= 0.0f ||
            ((g->bits == 1 || g->bits == 4) && centroids[n - 1 - i] != -centroids[i])) {
            return false;
        }
    }
    for (int top = last_level; top >= 1; top--) {
        const double scale = centroids[n - 1] / (top + (g->bits == 4 ? 0.5 : 0.0));
        uint32_t words[2] = {0, 0};
        bool fits = true;
        for (int i = 0; i < n - first && fits; i++) {
            int level;
            fits = is_level(centroids[first + i], scale, g->bits, &level);
            const int value = centroids[first + i] < 0.0f ? -level : level;
            words[i / 4] |= (uint32_t)(uint8_t)value << (i % 4 * 8);
        }
        if (fits) {
            g->scale = (float)scale;
            g->low = words[0];
            g->high = words[1];
            return true;
        }
    }
    return false;
}

/* Levels are int8 where they can be. */
void build_segment(builder *b, const kern_segment *from, int32_t begin, cuda_segment *to)
{
    to->bits = from->bits;
    to->first_dim = from->first_dim;
    to->n_dims = from->n_dims;
    to->codes_at = from->codes_offset - begin;
    to->halves = -1;
    to->book = -1;
    to->scale = 1.0f;
    if (from->kind == KERN_PLAIN) {
        return;
    }
    if (kern_segment_is_affine(from)) {
        to->group = from->group;
        to->norms_at = from->scales_offset - begin;
        to->minima_at = from->minima_offset - begin;
        return;
    }
    const int n = 1 << from->bits;
    to->norms_at = from->norms_offset - begin;
    to->book = b->n_floats;
    memcpy(b->floats + b->n_floats, from->centroids, (size_t)n * sizeof(float));
    memcpy(b->floats + b->n_floats + n, from->thresholds, (size_t)(n - 1) * sizeof(float));
    b->n_floats += 2 * n;
    if (find_levels(from->centroids, to)) {
        return;
    }
    float top = 1e-30f;
    for (int i = 0; i < n; i++) {
        top = fmaxf(top, fabsf(from->centroids[i]));
    }
    to->scale = top;
}

/* Of a segment with a codebook. */
bool is_wide(const cuda_segment *g)
{
    return g->low == 0 && g->high == 0;
}

/* For the integer kernel: levels that do not fit int8, the largest 127. */
void build_wide(builder *b, const kern_side *from, cuda_side *to)
{
    for (int i = 0; i < from->n_segments; i++) {
        cuda_segment *g = &to->segments[i];
        if (!is_wide(g)) {
            continue;
        }
        g->scale /= 127.0f;
        g->halves = b->n_halves;
        for (int k = 0; k < 1 << g->bits; k++) {
            b->halves[b->n_halves++] = (uint32_t)(int32_t)lrint(from->segments[i].centroids[k] /
                                                                (double)g->scale * 65536.0);
        }
    }
}

/* For the table kernel. */
void build_halves(builder *b, const kern_side *from, cuda_side *to)
{
    for (int i = 0; i < from->n_segments; i++) {
        if (from->segments[i].kind != KERN_CODEBOOK) {
            continue;
        }
        to->segments[i].halves = b->n_halves;
        for (int k = 0; k < 1 << from->segments[i].bits; k++) {
            const float x = from->segments[i].centroids[k] / to->segments[i].scale;
            const uint16_t high = base_f16_from_f32(x);
            const uint16_t low = base_f16_from_f32(x - base_f32_from_f16(high));
            b->halves[b->n_halves++] = high | (uint32_t)low << 16;
        }
    }
}

void add_section(cuda_gap *sections, int *n, cuda_gap section)
{
    int at = (*n)++;
    for (; at > 0 && sections[at - 1].begin > section.begin; at--) {
        sections[at] = sections[at - 1];
    }
    sections[at] = section;
}

/* The sections of a segment: codes, then norms, or scales and minima.  Returns how many. */
int sections_of(const kern_segment *g, cuda_gap out[3])
{
    const int32_t pairs = kern_segment_is_affine(g) ? kern_segment_pairs(g) : 0;
    out[0].begin = g->codes_offset;
    out[0].end = g->codes_offset + KERN_BLOCK_TOKENS / 8 * g->n_dims * g->bits;
    out[1].begin = pairs > 0 ? g->scales_offset : g->norms_offset;
    out[1].end = out[1].begin + (pairs > 0 ? pairs : KERN_BLOCK_TOKENS) * 2;
    out[2].begin = g->minima_offset;
    out[2].end = g->minima_offset + pairs * 2;
    return g->kind == KERN_PLAIN ? 1 : pairs > 0 ? 3 : 2;
}

void build_gaps(const kern_head_format *f, cuda_head *head)
{
    cuda_gap sections[CUDA_MAX_GAPS];
    int n = 0;
    for (int s = 0; s < 2; s++) {
        const kern_side *side = s == 0 ? &f->k : &f->v;
        for (int i = 0; i < side->n_segments; i++) {
            cuda_gap own[3];
            const int n_own = sections_of(&side->segments[i], own);
            for (int j = 0; j < n_own; j++) {
                add_section(sections, &n, own[j]);
            }
        }
    }
    add_section(sections, &n, {f->head_page_bytes, f->head_page_bytes});
    int32_t at = 0;
    for (int i = 0; i < n; i++) {
        if (sections[i].begin > at) {
            head->gaps[head->n_gaps].begin = at;
            head->gaps[head->n_gaps++].end = sections[i].begin;
        }
        at = sections[i].end > at ? sections[i].end : at;
    }
}

/* Returns whether the integer kernel can read the side. */
bool build_side(builder *b, const kern_side *from, cuda_side *to)
{
    int32_t begin = INT32_MAX;
    int32_t end = 0;
    for (int i = 0; i < from->n_segments; i++) {
        cuda_gap own[3];
        const int n_own = sections_of(&from->segments[i], own);
        for (int j = 0; j < n_own; j++) {
            begin = own[j].begin < begin ? own[j].begin : begin;
            end = own[j].end > end ? own[j].end : end;
        }
    }
    to->begin = begin;
    to->n_bytes = end - begin;
    to->n_segments = from->n_segments;
    bool coded = true;
    for (int i = 0; i < from->n_segments; i++) {
        build_segment(b, &from->segments[i], begin, &to->segments[i]);
        coded = coded && from->segments[i].kind == KERN_CODEBOOK &&
                (from->segments[i].bits > 4 || !is_wide(&to->segments[i]));
    }
    return coded;
}

/* The width that all heads have on a side, or 0. */
int32_t common_bits(const kern_head_format *formats, int32_t n, int side)
{
    const int32_t bits = (side == 0 ? formats[0].k : formats[0].v).segments[0].bits;
    for (int h = 0; h < n; h++) {
        const kern_side *s = side == 0 ? &formats[h].k : &formats[h].v;
        if (s->n_segments != 1 || s->segments[0].bits != bits) {
            return 0;
        }
    }
    return bits;
}

/* The group that all affine segments of all heads have, or 0. */
int32_t common_group(const kern_head_format *formats, int32_t n)
{
    int32_t group = 0;
    for (int i = 0; i < 2 * n; i++) {
        const kern_head_format *f = &formats[i / 2];
        const kern_segment *g = i % 2 == 0 ? &f->k.segments[0] : &f->v.segments[0];
        if (!kern_segment_is_affine(g)) {
            continue;
        }
        if (group != 0 && group != g->group) {
            return 0;
        }
        group = g->group;
    }
    return group;
}

void build(kern_cuda_formats *p, const kern_head_format *formats, builder *b)
{
    const int32_t n = p->layer.n_kv_heads;
    bool coded = true;
    for (int h = 0; h < n; h++) {
        cuda_head *head = &b->heads[h];
        head->offset = formats[h].offset;
        coded = build_side(b, &formats[h].k, &head->side[0]) && coded;
        coded = build_side(b, &formats[h].v, &head->side[1]) && coded;
        build_gaps(&formats[h], head);
        for (int s = 0; s < 2; s++) {
            const int32_t n_bytes = head->side[s].n_bytes;
            p->side_bytes[s] = n_bytes > p->side_bytes[s] ? n_bytes : p->side_bytes[s];
        }
    }
    p->bits[0] = common_bits(formats, n, 0);
    p->bits[1] = common_bits(formats, n, 1);
    p->group = common_group(formats, n);
    p->family = kern_fragment_is_affine(&formats[0])           ? CUDA_AFFINE
                : coded                                        ? CUDA_CODED
                : p->bits[0] == kPlain && p->bits[1] == kPlain ? CUDA_DENSE
                                                               : CUDA_TABLE;
    kern_page_shares(formats, n, p->family == CUDA_CODED, b->units + 1);
    p->layer.head_units = b->units[1];
    for (int h = 1; h < n; h++) {
        p->layer.head_units = b->units[h + 1] == b->units[h] ? p->layer.head_units : 0;
    }
    for (int h = 1; h < n; h++) {
        b->units[h + 1] += b->units[h];
    }
    p->layer.total_units = b->units[n];
    for (int h = 0; h < n && (p->family == CUDA_CODED || p->family == CUDA_TABLE); h++) {
        const int32_t before = b->n_halves;
        const auto build_tables = coded ? build_wide : build_halves;
        build_tables(b, &formats[h].k, &b->heads[h].side[0]);
        build_tables(b, &formats[h].v, &b->heads[h].side[1]);
        const int32_t n_halves = b->n_halves - before;
        p->n_halves = n_halves > p->n_halves ? n_halves : p->n_halves;
    }
}

} // namespace

extern "C" base_status kern_cuda_formats_create(const kern_head_format *formats, int32_t n_kv_heads,
                                                int32_t head_dim, const base_alloc *mem,
                                                kern_cuda_formats **formats_out)
{
    base_status st = BASE_OK;
    const size_t n = (size_t)n_kv_heads;
    const size_t n_books = n * 2 * KERN_MAX_SEGMENTS;
    const size_t heads_bytes = n * sizeof(cuda_head);
    const size_t floats_at = heads_bytes + (n * 4 + 4 + 15) / 16 * 16;
    const size_t halves_at = floats_at + n_books * 2 * kMaxBook * sizeof(float);
    const size_t n_bytes = halves_at + n_books * kMaxBook * sizeof(uint32_t);
    kern_cuda_formats *p = nullptr;
    uint8_t *host = nullptr;

    for (int32_t h = 0; h < n_kv_heads; h++) {
        if (!kern_fragment_fits(&formats[h]) ||
            kern_fragment_is_affine(&formats[h]) != kern_fragment_is_affine(&formats[0])) {
            return BASE_FAIL(
                BASE_BAD_INPUT,
                "cuda: head %d has a segment that is no multiple of 16 dims, or affine "
                "ones beside others, or starts at %lld",
                h, (long long)formats[h].offset);
        }
    }
    p = static_cast<kern_cuda_formats *>(mem->get(mem->ctx, sizeof *p));
    host = static_cast<uint8_t *>(mem->get(mem->ctx, n_bytes));
    if (p == nullptr || host == nullptr) {
        mem->put(mem->ctx, host);
        mem->put(mem->ctx, p);
        return BASE_FAIL(BASE_NO_MEMORY, "cuda: formats of %d heads", n_kv_heads);
    }
    p->mem = *mem;
    p->head_dim = head_dim;
    p->layer.n_kv_heads = n_kv_heads;
    builder b = {reinterpret_cast<cuda_head *>(host),
                 reinterpret_cast<int32_t *>(host + heads_bytes),
                 reinterpret_cast<float *>(host + floats_at),
                 reinterpret_cast<uint32_t *>(host + halves_at),
                 0,
                 0};
    build(p, formats, &b);

    int device = 0;
    st = cuda_to_status(cudaGetDevice(&device), "device");
    if (st == BASE_OK) {
        st = cuda_to_status(
            cudaDeviceGetAttribute(&p->n_sms, cudaDevAttrMultiProcessorCount, device), "device");
    }
    if (st == BASE_OK) {
        st = cuda_to_status(cudaMalloc(&p->device, n_bytes), "formats");
    }
    if (st == BASE_OK) {
        st =
            cuda_to_status(cudaMemcpy(p->device, host, n_bytes, cudaMemcpyHostToDevice), "formats");
    }
    mem->put(mem->ctx, host);
    if (st != BASE_OK) {
        kern_cuda_formats_destroy(p);
        return st;
    }
    const uint8_t *device_block = static_cast<const uint8_t *>(p->device);
    p->layer.heads = reinterpret_cast<const cuda_head *>(device_block);
    p->layer.units = reinterpret_cast<const int32_t *>(device_block + heads_bytes);
    p->layer.floats = reinterpret_cast<const float *>(device_block + floats_at);
    p->layer.halves = reinterpret_cast<const uint32_t *>(device_block + halves_at);
    *formats_out = p;
    return BASE_OK;
}

extern "C" void kern_cuda_formats_destroy(kern_cuda_formats *formats)
{
    if (formats == nullptr) {
        return;
    }
    (void)cudaFree(formats->device);
    formats->mem.put(formats->mem.ctx, formats);
}
