/* bench_cuda_attention - decode attention and the page writer on the GPU, as shares of what its memory gives.
 *
 *   bench_cuda_attention [--json] [--only bits]
 *
 * Memory is measured first, in the same run: reading by 16-byte loads, copying by cudaMemcpy.  Every figure is the
 * median of 7 replays of a graph of launches that go through more than 1 GB of pages (a page table in random order),
 * far more than four times the L2 cache.  One open block of 64 rows a sequence. */
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

/* Pages of random codes and norms near sqrt(D), or of bf16 values. */
__global__ void fill_pages(uint32_t *pages, size_t n, int bits, int head_words, int code_words)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        const uint32_t u = mixed((uint32_t)i + (uint32_t)(i >> 32) * 77u);
        const int at = (int)(i % head_words) % (head_words / 2);
        if (bits == 16) {
            pages[i] = __float_as_uint(normal(2u * (uint32_t)i)) >> 16 |
                       (__float_as_uint(normal(2u * (uint32_t)i + 1u)) & 0xffff0000u);
        } else if (at < code_words) {
            pages[i] = u;
        } else {
            const __half2 norms = __floats2half2_rn(7.0f + 9.0f * (float)(u & 0xffffu) / 65536.0f,
                                                    7.0f + 9.0f * (float)(u >> 16) / 65536.0f);
            pages[i] = *(const uint32_t *)&norms;
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

/* One layer of n_kv_heads heads with one segment a side, as kvshard lays pages out. */
struct layer {
    kern_head_format formats[8];
    float books[512];
    kern_cuda_formats *cuda;
    int64_t stride;
    int32_t code_bytes; /* of a side */

    layer(int n_kv_heads, int bits) : formats(), stride(0)
    {
        double book[256];
        code_bytes = KERN_BLOCK_TOKENS * kDim * bits / 8;
        const int32_t side_bytes = code_bytes + (bits == 16 ? 0 : 256);
        if (bits <= 8) {
            kv_codebook_page(bits, book);
            for (int i = 0; i < 1 << bits; i++) {
                books[i] = (float)(book[i] / sqrt((double)kDim));
            }
            for (int i = 0; i + 1 < 1 << bits; i++) {
                books[256 + i] = (books[i] + books[i + 1]) / 2;
            }
        }
        for (int h = 0; h < n_kv_heads; h++) {
            formats[h].head_dim = kDim;
            formats[h].head_page_bytes = 2 * side_bytes;
            formats[h].offset = stride;
            stride += 2 * side_bytes;
            for (int s = 0; s < 2; s++) {
                kern_side &side = s == 0 ? formats[h].k : formats[h].v;
                side.n_segments = 1;
                side.segments[0].kind = bits == 16 ? KERN_PLAIN : KERN_CODEBOOK;
                side.segments[0].bits = bits;
                side.segments[0].n_dims = kDim;
                side.segments[0].codes_offset = s * side_bytes;
                side.segments[0].norms_offset = s * side_bytes + code_bytes;
                side.segments[0].centroids = bits == 16 ? nullptr : books;
                side.segments[0].thresholds = bits == 16 ? nullptr : books + 256;
            }
        }
        check(kern_cuda_formats_create(formats, n_kv_heads, kDim, &base_heap, &cuda));
    }
};

void bench_attention(const char *model, int n_heads, int n_kv_heads, int bits, int context,
                     int batch)
{
    layer l(n_kv_heads, bits);
    const int n_blocks = context / KERN_BLOCK_TOKENS;
    const int n_pages = batch * n_blocks;
    const size_t bytes = (size_t)n_pages * l.stride;
    int copies = (int)(kBytesOfGraph / bytes) + 1;
    copies = copies > 48 ? 48 : copies < 2 ? 2 : copies;
    uint8_t *pages = device_memory<uint8_t>(bytes * copies);
    const size_t words = bytes * copies / 4;
    fill_pages<<<4096, 256>>>((uint32_t *)pages, words, bits,
                              (int)(l.formats[0].head_page_bytes / 4), l.code_bytes / 4);
    uint16_t *rows =
        device_memory<uint16_t>((size_t)batch * n_kv_heads * 2 * KERN_BLOCK_TOKENS * kDim);
    fill_rows<<<256, 256>>>(rows, (size_t)batch * n_kv_heads * 2 * KERN_BLOCK_TOKENS * kDim);

    kern_attn_page *list = (kern_attn_page *)calloc((size_t)n_pages, sizeof *list);
    kern_attn_seq *seqs = (kern_attn_seq *)calloc((size_t)batch, sizeof *seqs);
    kern_open *opens = (kern_open *)calloc((size_t)batch, sizeof *opens);
    for (int i = 0; i < n_pages; i++) {
        list[i].page = i;
    }
    for (int i = n_pages - 1; i > 0; i--) {
        const int k = (int)(mixed((uint32_t)i) % (uint32_t)(i + 1));
        const int32_t page = list[i].page;
        list[i].page = list[k].page;
        list[k].page = page;
    }
    for (int i = 0; i < n_pages; i++) {
        list[i].block = i % n_blocks;
    }
    for (int b = 0; b < batch; b++) {
        opens[b].block = n_blocks;
        opens[b].rows = rows + (size_t)b * n_kv_heads * 2 * KERN_BLOCK_TOKENS * kDim;
        seqs[b].position = context + kOpenRows - 1;
        seqs[b].first_token = b;
        seqs[b].n_tokens = 1;
        seqs[b].first_page = b * n_blocks;
        seqs[b].n_pages = n_blocks;
        seqs[b].first_open = b;
        seqs[b].n_opens = 1;
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
    a.opens = to_device(opens, (size_t)batch);
    a.page_stride = l.stride;
    a.n_pages_total = n_pages;
    a.n_seqs = batch;
    a.n_page_list = n_pages;
    a.n_opens = batch;
    a.n_tokens = batch;
    a.n_heads = n_heads;
    a.n_kv_heads = n_kv_heads;
    a.head_dim = kDim;
    a.scale = 0.08838834764831845f;
    kern_cuda_attn_work work = {};
    work.formats = l.cuda;
    work.workspace = device_memory<uint8_t>((size_t)kern_cuda_attn_workspace_bytes());
    work.max_seq_tokens = 1;
    const double us = time_graph(copies * (copies < 8 ? 4 : 1), [&](cudaStream_t s, int i) {
        a.pages = pages + (size_t)(i % copies) * bytes;
        check(kern_cuda_attn(s, &work, &a));
    });
    const double all = (double)bytes + (double)batch * n_kv_heads * 2.0 * kOpenRows * kDim * 2.0;
    const double share = all / us * 1e-3 / read_gbs;
    if (as_json) {
        printf("{\"op\": \"attention\", \"model\": \"%s\", \"bits\": %d, \"context\": %d, "
               "\"batch\": %d, \"us\": %.2f, "
               "\"bytes\": %.0f, \"share_of_read_bandwidth\": %.3f}\n",
               model, bits, context, batch, us, all, share);
    } else {
        printf("attention %s K%dV%d %4dK x %d %9.2f us %8.1f MB %5.1f %% of read bandwidth\n",
               model, bits, bits, context / 1024, batch, us, all * 1e-6, 100.0 * share);
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

void bench_pack(int n_kv_heads, int bits, int n_packs)
{
    layer l(n_kv_heads, bits);
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
        printf("{\"op\": \"pack\", \"bits\": %d, \"us\": %.2f, \"input_bytes\": %.0f, "
               "\"share_of_copy_bandwidth\": %.3f}\n",
               bits, us, bytes, share);
    } else {
        printf("pack K%dV%d %d blocks %9.2f us, input at %5.1f %% of copy bandwidth\n", bits, bits,
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
    static const int contexts[][2] = {{131072, 1}, {524288, 1}, {131072, 8}};
    static const int widths[] = {3, 2, 4, 16, 8};
    int only = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            as_json = true;
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = atoi(argv[++i]);
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
    for (int w = 0; w < 5; w++) {
        for (int m = 0; m < 2 && (only == 0 || only == widths[w]); m++) {
            for (int c = 0; c < 3; c++) {
                bench_attention(models[m].name, models[m].n_heads, models[m].n_kv_heads, widths[w],
                                contexts[c][0], contexts[c][1]);
            }
        }
        bench_pack(8, widths[w], 512);
    }
    return 0;
}
