/* bench_cuda_attention - decode attention and the page writer on the GPU, as shares of what its memory gives.
 *
 *   bench_cuda_attention [--json] [--pages K3V3] [--model 8B] [--shape 128K]
 *
 * Memory is measured first, in the same run: reading by 16-byte loads, copying by cudaMemcpy.  Every figure is the
 * median of 7 replays of a graph of calls, as the product makes them, that go through more than 1 GB of pages (a page
 * table in random order), far more than four times the L2 cache. */
#include "kernels/cuda/cuda_pages.h"
extern "C" {
#include "kvshard/codebook.h"
}

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

constexpr int kDim = 128;
constexpr int kReplays = 7;
constexpr size_t kBytesOfGraph = (size_t)1 << 30;
constexpr int kOpenRows = 64;

bool as_json;
double read_gbs;
double copy_gbs;

void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}

void check(base_status st)
{
    if (st != BASE_OK) {
        fprintf(stderr, "%s\n", base_last_error());
        exit(1);
    }
}

template <typename T>
T *device_memory(size_t n)
{
    T *p = nullptr;
    check(cudaMalloc(&p, n * sizeof(T)), "cudaMalloc");
    return p;
}

template <typename T>
T *to_device(const T *from, size_t n)
{
    T *p = device_memory<T>(n);
    check(cudaMemcpy(p, from, n * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    return p;
}

__host__ __device__ uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

__device__ float normal(uint32_t seed)
{
    const uint32_t u = mixed(seed);
    return ((float)(u & 255u) + (float)(u >> 8 & 255u) + (float)(u >> 16 & 255u) +
            (float)(u >> 24) - 510.0f) /
           147.8f;
}

/* Normal bf16 values. */
__global__ void fill_rows(uint16_t *rows, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        rows[i] = (uint16_t)(__float_as_uint(normal((uint32_t)i)) >> 16);
    }
}

/* Pages of random codes, or of bf16 values. */
__global__ void fill_pages(uint32_t *pages, size_t n, bool is_bf16)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        pages[i] = is_bf16 ? __float_as_uint(normal(2u * (uint32_t)i)) >> 16 |
                                 (__float_as_uint(normal(2u * (uint32_t)i + 1u)) & 0xffff0000u)
                           : mixed((uint32_t)i + (uint32_t)(i >> 32) * 77u);
    }
}

/* n_halves numbers from low to high, at `at` of each of n head pages. */
__global__ void fill_halves(uint8_t *pages, size_t n, size_t head_page_bytes, size_t at,
                            int n_halves, float low, float high)
{
    for (size_t i = blockIdx.x; i < n; i += gridDim.x) {
        for (int k = (int)threadIdx.x; k < n_halves; k += (int)blockDim.x) {
            const uint32_t u = mixed((uint32_t)(i * n_halves + k));
            ((__half *)(pages + i * head_page_bytes + at))[k] =
                __float2half(low + (high - low) * (float)(u & 0xffffu) / 65536.0f);
        }
    }
}

__global__ void read_all(const uint4 *p, size_t n, uint32_t *sum_out)
{
    uint32_t sum = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 v[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3},[%4];"
                         : "=r"(v[k].x), "=r"(v[k].y), "=r"(v[k].z), "=r"(v[k].w)
                         : "l"(p + i + k * step));
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            sum += v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
        }
    }
    if (sum == 1u) {
        *sum_out = sum;
    }
}

/* Median of the replays of what `record` puts on a stream, in us of one of its n. */
template <typename F>
double time_graph(int n, F record)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin;
    cudaEvent_t end;
    float ms[kReplays];
    check(cudaStreamCreate(&stream), "stream");
    check(cudaEventCreate(&begin), "event");
    check(cudaEventCreate(&end), "event");
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
    for (int i = 0; i < n; i++) {
        record(stream, i);
    }
    check(cudaStreamEndCapture(stream, &graph), "capture");
    check(cudaGraphInstantiate(&exec, graph, 0), "graph");
    for (int i = -1; i < kReplays; i++) {
        check(cudaEventRecord(begin, stream), "event");
        check(cudaGraphLaunch(exec, stream), "graph");
        check(cudaEventRecord(end, stream), "event");
        check(cudaStreamSynchronize(stream), "graph");
        check(cudaEventElapsedTime(&ms[i < 0 ? 0 : i], begin, end), "event");
    }
    for (int i = 0; i < kReplays; i++) {
        for (int k = i + 1; k < kReplays; k++) {
            if (ms[k] < ms[i]) {
                const float x = ms[i];
                ms[i] = ms[k];
                ms[k] = x;
            }
        }
    }
    check(cudaGraphExecDestroy(exec), "graph");
    check(cudaGraphDestroy(graph), "graph");
    check(cudaStreamDestroy(stream), "stream");
    return ms[kReplays / 2] * 1e3 / n;
}

void measure_memory()
{
    const size_t n_bytes = (size_t)2 << 30;
    uint8_t *p = device_memory<uint8_t>(2 * n_bytes);
    uint32_t *sum = device_memory<uint32_t>(1);
    check(cudaMemset(p, 1, 2 * n_bytes), "memset");
    int n_sms = 0;
    check(cudaDeviceGetAttribute(&n_sms, cudaDevAttrMultiProcessorCount, 0), "device");
    for (int ctas = 2; ctas <= 16; ctas *= 2) {
        const double us = time_graph(2, [&](cudaStream_t s, int i) {
            read_all<<<n_sms * ctas, 512, 0, s>>>((const uint4 *)(p + i * n_bytes), n_bytes / 16,
                                                  sum);
        });
        read_gbs = fmax(read_gbs, n_bytes / us * 1e-3);
    }
    const double us = time_graph(2, [&](cudaStream_t s, int i) {
        check(cudaMemcpyAsync(p + (1 - i) * n_bytes, p + i * n_bytes, n_bytes,
                              cudaMemcpyDeviceToDevice, s),
              "copy");
    });
    copy_gbs = 2.0 * n_bytes / us * 1e-3; /* read and written */
    check(cudaFree(p), "free");
    check(cudaFree(sum), "free");
}

/* How a head's page is made up. */
struct page_kind {
    const char *name;
    int n_segments[2]; /* of K and V */
    struct {
        int bits;
        int n_dims;
        int group; /* of affine codes; 0: a codebook, or bf16 */
    } segments[2][KERN_MAX_SEGMENTS];
};

/* One layer of n_kv_heads heads, as kvshard lays pages out. */
struct layer {
    kern_head_format formats[8];
    float books[9][512];
    kern_cuda_formats *cuda;
    int64_t stride;

    layer(int n_kv_heads, const page_kind &kind) : formats(), stride(0)
    {
        for (int h = 0; h < n_kv_heads; h++) {
            formats[h].head_dim = kDim;
            formats[h].offset = stride;
            int32_t at = 0;
            for (int s = 0; s < 2; s++) {
                kern_side &side = s == 0 ? formats[h].k : formats[h].v;
                side.n_segments = kind.n_segments[s];
                int first_dim = 0;
                for (int i = 0; i < side.n_segments; i++) {
                    kern_segment &g = side.segments[i];
                    g.bits = kind.segments[s][i].bits;
                    g.group = kind.segments[s][i].group;
                    g.kind = g.bits == 16   ? KERN_PLAIN
                             : g.group == 0 ? KERN_CODEBOOK
                             : s == 0       ? KERN_AFFINE_CHANNEL
                                            : KERN_AFFINE_POSITION;
                    g.first_dim = first_dim;
                    g.n_dims = kind.segments[s][i].n_dims;
                    g.codes_offset = at;
                    at += KERN_BLOCK_TOKENS * g.n_dims * g.bits / 8;
                    first_dim += g.n_dims;
                }
                for (int i = 0; i < side.n_segments; i++) {
                    kern_segment &g = side.segments[i];
                    if (g.kind == KERN_CODEBOOK) {
                        g.norms_offset = at;
                        at += KERN_BLOCK_TOKENS * 2;
                        g.centroids = book_of(g.bits);
                        g.thresholds = g.centroids + 256;
                    } else if (g.kind != KERN_PLAIN) {
                        g.scales_offset = at;
                        g.minima_offset = at + 2 * kern_segment_pairs(&g);
                        at += 4 * kern_segment_pairs(&g);
                    }
                }
            }
            formats[h].head_page_bytes = at;
            stride += at;
        }
        check(kern_cuda_formats_create(formats, n_kv_heads, kDim, &base_heap, &cuda));
    }

    const float *book_of(int bits)
    {
        double book[256];
        float *to = books[bits];
        kv_codebook_page(bits, book);
        for (int i = 0; i < 1 << bits; i++) {
            to[i] = (float)(book[i] / sqrt((double)kDim));
        }
        for (int i = 0; i + 1 < 1 << bits; i++) {
            to[256 + i] = (to[i] + to[i + 1]) / 2;
        }
        return to;
    }

    void fill(uint8_t *pages, size_t n_bytes) const
    {
        const size_t head_bytes = (size_t)formats[0].head_page_bytes;
        fill_pages<<<4096, 256>>>((uint32_t *)pages, n_bytes / 4,
                                  formats[0].k.segments[0].bits == 16);
        const size_t n = n_bytes / head_bytes;
        for (int i = 0; i < 2 * KERN_MAX_SEGMENTS; i++) {
            const kern_side &side = i % 2 == 0 ? formats[0].k : formats[0].v;
            const kern_segment &g = side.segments[i / 2];
            if (i / 2 >= side.n_segments || g.kind == KERN_PLAIN) {
                continue;
            }
            if (g.kind == KERN_CODEBOOK) { /* norms near sqrt(D) */
                fill_halves<<<4096, 128>>>(pages, n, head_bytes, (size_t)g.norms_offset,
                                           KERN_BLOCK_TOKENS, 7.0f, 16.0f);
                continue;
            }
            const int n_pairs = kern_segment_pairs(&g);
            fill_halves<<<4096, 128>>>(pages, n, head_bytes, (size_t)g.scales_offset, n_pairs, 0.2f,
                                       0.5f);
            fill_halves<<<4096, 128>>>(pages, n, head_bytes, (size_t)g.minima_offset, n_pairs,
                                       -2.0f, -1.0f);
        }
    }
};

struct shape {
    const char *name;
    int context; /* of a sequence, on average */
    int batch;
    bool is_ragged; /* lengths from a half to three halves of it */
};

int n_blocks_of(const shape &sh, int seq)
{
    const int n = sh.context / KERN_BLOCK_TOKENS;
    return sh.is_ragged ? n / 2 + (int)((int64_t)n * seq / (sh.batch - 1)) : n;
}

/* A sequence: block 0 as rows (a sink), pages, and an open block of 64 rows. */
void bench_attention(const char *model, int n_heads, int n_kv_heads, const page_kind &kind,
                     const shape &sh)
{
    const int batch = sh.batch;
    layer l(n_kv_heads, kind);
    int n_pages = 0;
    for (int b = 0; b < batch; b++) {
        n_pages += n_blocks_of(sh, b);
    }
    const size_t bytes = (size_t)n_pages * l.stride;
    int copies = (int)(kBytesOfGraph / bytes) + 1;
    copies = copies > 48 ? 48 : copies < 2 ? 2 : copies;
    uint8_t *pages = device_memory<uint8_t>(bytes * copies);
    l.fill(pages, bytes * copies);
    const size_t open_elems = (size_t)n_kv_heads * 2 * KERN_BLOCK_TOKENS * kDim;
    uint16_t *rows = device_memory<uint16_t>(2 * batch * open_elems);
    fill_rows<<<256, 256>>>(rows, 2 * batch * open_elems);

    kern_attn_page *list = (kern_attn_page *)calloc((size_t)n_pages, sizeof *list);
    kern_attn_seq *seqs = (kern_attn_seq *)calloc((size_t)batch, sizeof *seqs);
    kern_open *opens = (kern_open *)calloc(2 * (size_t)batch, sizeof *opens);
    for (int i = 0; i < n_pages; i++) {
        list[i].page = i;
    }
    for (int i = n_pages - 1; i > 0; i--) {
        const int k = (int)(mixed((uint32_t)i) % (uint32_t)(i + 1));
        const int32_t page = list[i].page;
        list[i].page = list[k].page;
        list[k].page = page;
    }
    for (int b = 0, first = 0; b < batch; b++) {
        const int n_blocks = n_blocks_of(sh, b);
        for (int i = 0; i < n_blocks; i++) {
            list[first + i].block = i;
        }
        opens[2 * b].block = 0;
        opens[2 * b].rows = rows + 2 * b * open_elems;
        opens[2 * b + 1].block = n_blocks;
        opens[2 * b + 1].rows = rows + (2 * b + 1) * open_elems;
        seqs[b].position = (int64_t)n_blocks * KERN_BLOCK_TOKENS + kOpenRows - 1;
        seqs[b].first_token = b;
        seqs[b].n_tokens = 1;
        seqs[b].first_page = first;
        seqs[b].n_pages = n_blocks;
        seqs[b].first_open = 2 * b;
        seqs[b].n_opens = 2;
        first += n_blocks;
    }
    const size_t n_q = (size_t)batch * n_heads * kDim;
    float *q = (float *)calloc(n_q, sizeof *q);
    for (size_t i = 0; i < n_q; i++) {
        q[i] = 4.0f * ((float)(mixed((uint32_t)i) >> 8) / 16777216.0f - 0.5f);
    }
    kern_attn_args a = {};
    a.q = to_device(q, n_q);
    a.o = device_memory<float>(n_q);
    a.lse = device_memory<float>(n_q);
    a.seqs = to_device(seqs, (size_t)batch);
    a.page_list = to_device(list, (size_t)n_pages);
    a.opens = to_device(opens, 2 * (size_t)batch);
    a.page_stride = l.stride;
    a.n_pages_total = n_pages;
    a.n_seqs = batch;
    a.n_page_list = n_pages;
    a.n_opens = 2 * batch;
    a.n_tokens = batch;
    a.n_heads = n_heads;
    a.n_kv_heads = n_kv_heads;
    a.head_dim = kDim;
    a.sink_blocks = 1;
    a.scale = 0.08838834764831845f;
    kern_cuda_attn_work work = {};
    work.formats = l.cuda;
    work.workspace = device_memory<uint8_t>((size_t)kern_cuda_attn_workspace_bytes());
    work.max_seq_tokens = 1;
    work.pages_are_old = true;
    const double us = time_graph(copies * (copies < 8 ? 4 : 1), [&](cudaStream_t s, int i) {
        a.pages = pages + (size_t)(i % copies) * bytes;
        check(kern_cuda_attn(s, &work, &a));
    });
    const double all =
        (double)bytes + batch * (KERN_BLOCK_TOKENS * n_kv_heads * 4.0 * kDim - (double)l.stride +
                                 kOpenRows * n_kv_heads * 4.0 * kDim);
    const double floor = all / read_gbs * 1e-3;
    if (as_json) {
        printf("{\"op\": \"attention\", \"model\": \"%s\", \"pages\": \"%s\", \"shape\": \"%s\", "
               "\"us\": %.2f, \"bytes\": %.0f, \"share_of_read_bandwidth\": %.3f}\n",
               model, kind.name, sh.name, us, all, floor / us);
    } else {
        printf("attention %s %-5s %-10s %8.2f us %7.1f MB %5.1f %% of read bandwidth, floor + %.2f "
               "us\n",
               model, kind.name, sh.name, us, all * 1e-6, 100.0 * floor / us, us - floor);
    }
    fflush(stdout);
    check(cudaDeviceSynchronize(), "attention");
    kern_cuda_formats_destroy(l.cuda);
    void *device[] = {pages,         rows,           (void *)a.q,         a.o,
                      a.lse,         (void *)a.seqs, (void *)a.page_list, (void *)a.opens,
                      work.workspace};
    for (void *p : device) {
        check(cudaFree(p), "free");
    }
    free(list);
    free(seqs);
    free(opens);
    free(q);
}

void bench_pack(int n_kv_heads, const page_kind &kind, int n_packs)
{
    layer l(n_kv_heads, kind);
    const size_t elems = (size_t)n_kv_heads * 2 * KERN_BLOCK_TOKENS * kDim;
    uint16_t *rows = device_memory<uint16_t>(elems * n_packs);
    uint8_t *pages = device_memory<uint8_t>((size_t)l.stride * n_packs);
    fill_rows<<<4096, 256>>>(rows, elems * n_packs);
    kern_open *opens = (kern_open *)calloc((size_t)n_packs, sizeof *opens);
    kern_pack *packs = (kern_pack *)calloc((size_t)n_packs, sizeof *packs);
    for (int i = 0; i < n_packs; i++) {
        opens[i].rows = rows + (size_t)i * elems;
        packs[i].open = i;
        packs[i].page = i;
    }
    kern_pack_args a = {};
    a.packs = to_device(packs, (size_t)n_packs);
    a.opens = to_device(opens, (size_t)n_packs);
    a.pages = pages;
    a.page_stride = l.stride;
    a.n_packs = n_packs;
    a.n_opens = n_packs;
    a.n_pages = n_packs;
    a.n_kv_heads = n_kv_heads;
    const double us =
        time_graph(2, [&](cudaStream_t s, int) { check(kern_cuda_pack(s, l.cuda, &a)); });
    const double bytes = (double)elems * 2 * n_packs;
    const double share = bytes / us * 1e-3 / copy_gbs;
    if (as_json) {
        printf("{\"op\": \"pack\", \"pages\": \"%s\", \"us\": %.2f, \"input_bytes\": %.0f, "
               "\"share_of_copy_bandwidth\": %.3f}\n",
               kind.name, us, bytes, share);
    } else {
        printf("pack %-5s %d blocks %9.2f us, input at %5.1f %% of copy bandwidth\n", kind.name,
               n_packs, us, 100.0 * share);
    }
    fflush(stdout);
    kern_cuda_formats_destroy(l.cuda);
    void *device[] = {rows, pages, (void *)a.packs, (void *)a.opens};
    for (void *p : device) {
        check(cudaFree(p), "free");
    }
    free(opens);
    free(packs);
}

} // namespace

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int n_heads;
        int n_kv_heads;
    } models[] = {{"8B", 32, 8}, {"3B", 16, 2}};
    static const shape shapes[] = {{"32K", 32768, 1, false},
                                   {"128K", 131072, 1, false},
                                   {"512K", 524288, 1, false},
                                   {"128Kx8", 131072, 8, false},
                                   {"ragged x8", 131072, 8, true}};
    static const page_kind kinds[] = {
        {"K3V3", {1, 1}, {{{3, 128}}, {{3, 128}}}},
        {"K2V2", {1, 1}, {{{2, 128}}, {{2, 128}}}},
        {"K4V4", {1, 1}, {{{4, 128}}, {{4, 128}}}},
        {"gtq33", {2, 1}, {{{1, 48}, {4, 80}}, {{3, 128}}}},
        {"234V3", {3, 1}, {{{2, 32}, {3, 64}, {4, 32}}, {{3, 128}}}},
        {"kivi2", {1, 1}, {{{2, 128, 32}}, {{2, 128, 32}}}},
        {"kivi4", {1, 1}, {{{4, 128, 32}}, {{4, 128, 32}}}},
        {"bf16", {1, 1}, {{{16, 128}}, {{16, 128}}}},
        {"K8V8", {1, 1}, {{{8, 128}}, {{8, 128}}}},
    };
    const char *only_pages = "";
    const char *only_model = "";
    const char *only_shape = "";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            as_json = true;
        } else if (strcmp(argv[i], "--pages") == 0 && i + 1 < argc) {
            only_pages = argv[++i];
        } else if (strcmp(argv[i], "--model") == 0 && i + 1 < argc) {
            only_model = argv[++i];
        } else if (strcmp(argv[i], "--shape") == 0 && i + 1 < argc) {
            only_shape = argv[++i];
        }
    }
    measure_memory();
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0), "device");
    printf(
        as_json
            ? "{\"op\": \"memory\", \"device\": \"%s\", \"read_gbs\": %.0f, \"copy_gbs\": %.0f}\n"
            : "%s: read %.0f GB/s, copy %.0f GB/s (read and written)\n",
        device.name, read_gbs, copy_gbs);
    for (const page_kind &kind : kinds) {
        if (*only_pages != 0 && strcmp(only_pages, kind.name) != 0) {
            continue;
        }
        for (const auto &m : models) {
            for (const shape &sh : shapes) {
                if ((*only_model == 0 || strcmp(only_model, m.name) == 0) &&
                    (*only_shape == 0 || strcmp(only_shape, sh.name) == 0)) {
                    bench_attention(m.name, m.n_heads, m.n_kv_heads, kind, sh);
                }
            }
        }
        if (*only_model == 0 && *only_shape == 0) {
            bench_pack(8, kind, 512);
        }
    }
    return 0;
}
