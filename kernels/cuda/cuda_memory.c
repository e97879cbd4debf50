#include "kernels/cuda/cuda_memory.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/format_image.h"

#include <assert.h>
#include <string.h>

/* ---- the table ---- */

/* Index of the first range that begins after p. */
static int32_t after(const cuda_memory *m, uintptr_t p)
{
    int32_t low = 0;
    int32_t high = m->n_ranges;
    while (low < high) {
        const int32_t mid = low + (high - low) / 2;
        if (m->ranges[mid].begin <= p) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static cuda_range *find(const cuda_memory *m, const void *p)
{
    const uintptr_t at = (uintptr_t)p;
    const int32_t i = after(m, at) - 1;
    return i >= 0 && at - m->ranges[i].begin < m->ranges[i].n_bytes ? &m->ranges[i] : NULL;
}

const cuda_range *cuda_memory_find(const cuda_memory *m, const void *p)
{
    return find(m, p);
}

/* Errors: NO_MEMORY. */
static base_status make_room(cuda_memory *m)
{
    if (m->n_ranges < m->max_ranges) {
        return BASE_OK;
    }
    const int32_t n = m->max_ranges == 0 ? 64 : 2 * m->max_ranges;
    cuda_range *ranges = m->mem.get(m->mem.ctx, (size_t)n * sizeof *ranges);
    if (ranges == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "table of %d device ranges", n);
    }
    if (m->n_ranges > 0) {
        memcpy(ranges, m->ranges, (size_t)m->n_ranges * sizeof *ranges);
    }
    m->mem.put(m->mem.ctx, m->ranges);
    m->ranges = ranges;
    m->max_ranges = n;
    return BASE_OK;
}

/* There is room. */
static void insert(cuda_memory *m, const cuda_range *range)
{
    const int32_t at = after(m, range->begin);
    memmove(m->ranges + at + 1, m->ranges + at, (size_t)(m->n_ranges - at) * sizeof *range);
    m->ranges[at] = *range;
    m->n_ranges++;
}

static void end_range(cuda_memory *m, cuda_range *range)
{
    for (int32_t i = 0; i < range->n_layers; i++) {
        kern_cuda_formats_destroy(range->pages[i]);
    }
    m->mem.put(m->mem.ctx, range->pages);
    cuda_replay_clear(m->replay);
    (void)cudaStreamSynchronize(m->stream); /* ops that were called may still use it */
    if (range->kind != CUDA_RANGE_LENT) {
        (void)cudaFree(range->device);
    }
    if (range->kind == CUDA_RANGE_MIRROR) {
        void *host = (void *)range->begin; /* NOLINT: the address that get gave */
        m->mem.put(m->mem.ctx, host);
    }
    m->n_bytes -= (int64_t)range->n_bytes;
    const int32_t i = (int32_t)(range - m->ranges);
    m->n_ranges--;
    memmove(range, range + 1, (size_t)(m->n_ranges - i) * sizeof *range);
}

/* ---- memory and mirrors ---- */

/* Zeroed device memory that stands for begin, or for itself if that is NULL. */
static base_status take(cuda_memory *m, cuda_range_kind kind, const void *begin, size_t n_bytes,
                        char **device_out)
{
    base_status st = BASE_OK;
    void *device = NULL;

    BASE_TRY(st, out, make_room(m));
    BASE_TRY(st, out, cuda_to_status(cudaMalloc(&device, n_bytes), "device memory"));
    BASE_TRY(st, out,
             cuda_to_status(cudaMemsetAsync(device, 0, n_bytes, m->stream), "clearing memory"));
    const cuda_range range = {.begin = (uintptr_t)(begin == NULL ? device : begin),
                              .n_bytes = n_bytes,
                              .device = device,
                              .kind = kind,
                              .n_uses = 1};
    insert(m, &range);
    m->n_bytes += (int64_t)n_bytes;
    *device_out = device;
    device = NULL;

out:
    (void)cudaFree(device);
    return st;
}

static void *memory_get(void *ctx, size_t n_bytes)
{
    char *device = NULL;
    return take(ctx, CUDA_RANGE_DEVICE, NULL, n_bytes, &device) == BASE_OK ? device : NULL;
}

static void *mirror_get(void *ctx, size_t n_bytes)
{
    cuda_memory *m = ctx;
    char *device = NULL;
    void *host = m->mem.get(m->mem.ctx, n_bytes);
    if (host != NULL && take(m, CUDA_RANGE_MIRROR, host, n_bytes, &device) != BASE_OK) {
        m->mem.put(m->mem.ctx, host);
        host = NULL;
    }
    return host;
}

static void put(void *ctx, void *p)
{
    cuda_memory *m = ctx;
    if (p != NULL) {
        cuda_range *range = find(m, p);
        assert(range != NULL && range->begin == (uintptr_t)p);
        end_range(m, range);
    }
}

base_status cuda_memory_lend(cuda_memory *m, void *device, size_t n_bytes)
{
    const base_status st = make_room(m);
    if (st == BASE_OK) {
        const cuda_range range = {.begin = (uintptr_t)device,
                                  .n_bytes = n_bytes,
                                  .device = device,
                                  .kind = CUDA_RANGE_LENT};
        insert(m, &range);
        m->n_bytes += (int64_t)n_bytes;
    }
    return st;
}

void cuda_memory_take_back(cuda_memory *m, const void *device)
{
    cuda_range *range = find(m, device);
    assert(range != NULL && range->kind == CUDA_RANGE_LENT);
    end_range(m, range);
}

/* The device address of n_bytes of one mirror. */
static base_status mirror_at(const cuda_memory *m, const void *p, size_t n_bytes, char **device_out)
{
    const cuda_range *range = find(m, p);
    if (range == NULL || range->kind != CUDA_RANGE_MIRROR ||
        n_bytes > range->n_bytes - ((uintptr_t)p - range->begin)) {
        return BASE_FAIL(BASE_BAD_INPUT, "%zu bytes that are not within a mirror", n_bytes);
    }
    *device_out = range->device + ((uintptr_t)p - range->begin);
    return BASE_OK;
}

static base_status send(void *ctx, const void *mirror, size_t n_bytes)
{
    const cuda_memory *m = ctx;
    char *device = NULL;
    base_status st = BASE_OK;
    if (n_bytes > 0) {
        BASE_TRY(st, out, mirror_at(m, mirror, n_bytes, &device));
        st = cuda_to_status(
            cudaMemcpyAsync(device, mirror, n_bytes, cudaMemcpyHostToDevice, m->stream), "send");
    }
out:
    return st;
}

static base_status wait(void *ctx)
{
    const cuda_memory *m = ctx;
    return cuda_to_status(cudaStreamSynchronize(m->stream), "waiting for the GPU");
}

static base_status fetch(void *ctx, void *mirror, size_t n_bytes)
{
    const cuda_memory *m = ctx;
    char *device = NULL;
    base_status st = BASE_OK;
    if (n_bytes > 0) {
        BASE_TRY(st, out, mirror_at(m, mirror, n_bytes, &device));
        BASE_TRY(st, out,
                 cuda_to_status(
                     cudaMemcpyAsync(mirror, device, n_bytes, cudaMemcpyDeviceToHost, m->stream),
                     "fetch"));
    }
    st = wait(ctx);
out:
    return st;
}

static base_status fetch_begin(void *ctx, const void *mirror, size_t n_bytes, void *to)
{
    cuda_memory *m = ctx;
    char *device = NULL;
    const base_status st = mirror_at(m, mirror, n_bytes, &device);
    return st != BASE_OK ? st : cuda_fetch_begin(&m->fetches, m->stream, device, n_bytes, to);
}

static base_status fetch_end(void *ctx)
{
    cuda_memory *m = ctx;
    return cuda_fetch_end(&m->fetches);
}

/* ---- what is bound ---- */

/* If exactly these bytes are bound, one use more.  Errors: BAD_INPUT (an overlap). */
static base_status bind_again(cuda_memory *m, const void *bytes, size_t n_bytes, bool *found_out)
{
    const uintptr_t begin = (uintptr_t)bytes;
    const int32_t next = after(m, begin);
    cuda_range *range = next > 0 ? &m->ranges[next - 1] : NULL;

    if (range != NULL && range->begin == begin && range->n_bytes == n_bytes &&
        range->kind == CUDA_RANGE_BOUND) {
        range->n_uses++;
        *found_out = true;
        return BASE_OK;
    }
    if ((range != NULL && begin - range->begin < range->n_bytes) ||
        (next < m->n_ranges && m->ranges[next].begin - begin < n_bytes)) {
        return BASE_FAIL(BASE_BAD_INPUT, "bind: %zu bytes overlap others that are bound", n_bytes);
    }
    *found_out = false;
    return BASE_OK;
}

static void unbind(void *ctx, const void *bytes)
{
    cuda_memory *m = ctx;
    cuda_range *range = bytes == NULL ? NULL : find(m, bytes);
    if (range != NULL && range->kind == CUDA_RANGE_BOUND && range->begin == (uintptr_t)bytes &&
        --range->n_uses == 0) {
        end_range(m, range);
    }
}

static base_status bind(void *ctx, const void *bytes, size_t n_bytes)
{
    base_status st = BASE_OK;
    cuda_memory *m = ctx;
    char *device = NULL;
    bool found = false;

    BASE_TRY(st, out, bind_again(m, bytes, n_bytes, &found));
    if (found) {
        goto out;
    }
    BASE_TRY(st, out, take(m, CUDA_RANGE_BOUND, bytes, n_bytes, &device));
    st = cuda_to_status(cudaMemcpyAsync(device, bytes, n_bytes, cudaMemcpyHostToDevice, m->stream),
                        "upload");
    if (st != BASE_OK) {
        unbind(m, bytes);
    }
out:
    return st;
}

static base_status make_pages(cuda_memory *m, cuda_range *range, const kern_head_format *formats,
                              int32_t n_layers, int32_t n_kv_heads)
{
    range->pages = m->mem.get(m->mem.ctx, (size_t)n_layers * sizeof *range->pages);
    if (range->pages == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "formats of %d layers", n_layers);
    }
    for (int32_t i = 0; i < n_layers; i++) {
        const base_status st =
            kern_cuda_formats_create(formats + (int64_t)i * n_kv_heads, n_kv_heads,
                                     formats->head_dim, &m->mem, &range->pages[i]);
        if (st != BASE_OK) {
            return st;
        }
        range->n_layers = i + 1;
    }
    return BASE_OK;
}

static base_status bind_formats(void *ctx, const kern_head_format *formats, int32_t n_layers,
                                int32_t n_kv_heads)
{
    base_status st = BASE_OK;
    cuda_memory *m = ctx;
    char *device = NULL;
    void *image = NULL;
    bool found = false;
    const int32_t n_heads = n_layers * n_kv_heads;
    const size_t n_bytes = cuda_format_image_bytes(formats, n_heads);

    /* The range is that of the structs; what they point to lies behind them on the device only. */
    BASE_TRY(st, out, bind_again(m, formats, (size_t)n_heads * sizeof *formats, &found));
    if (found) {
        goto out;
    }
    image = m->mem.get(m->mem.ctx, n_bytes);
    if (image == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "formats of %zu bytes", n_bytes);
        goto out;
    }
    BASE_TRY(st, out, take(m, CUDA_RANGE_BOUND, formats, n_bytes, &device));
    cuda_range *range = find(m, formats);
    m->n_bytes -= (int64_t)(n_bytes - (size_t)n_heads * sizeof *formats);
    range->n_bytes = (size_t)n_heads * sizeof *formats;
    cuda_format_image(formats, n_heads, device, image);
    st = cuda_to_status(cudaMemcpyAsync(device, image, n_bytes, cudaMemcpyHostToDevice, m->stream),
                        "upload");
    if (st == BASE_OK) {
        st = make_pages(m, range, formats, n_layers, n_kv_heads);
    }
    if (st != BASE_OK) {
        unbind(m, formats);
    }
out:
    m->mem.put(m->mem.ctx, image);
    return st;
}

void cuda_memory_init(cuda_memory *m, cuda_replay *replay, const base_alloc *mem)
{
    *m = (cuda_memory){.stream = replay->stream, .replay = replay, .mem = *mem};
}

void cuda_memory_reset(cuda_memory *m)
{
    while (m->n_ranges > 0) {
        end_range(m, &m->ranges[m->n_ranges - 1]);
    }
    cuda_fetch_reset(&m->fetches);
    m->mem.put(m->mem.ctx, m->ranges);
    m->ranges = NULL;
    m->max_ranges = 0;
}

void cuda_memory_far(cuda_memory *m, kern_far *far_out)
{
    *far_out = (kern_far){
        .ctx = m,
        .memory = {memory_get, put, m},
        .mirror = {mirror_get, put, m},
        .send = send,
        .fetch = fetch,
        .fetch_begin = fetch_begin,
        .fetch_end = fetch_end,
        .bind = bind,
        .bind_formats = bind_formats,
        .unbind = unbind,
        .wait = wait,
    };
}
