/* A row of logits is a cluster of eight CTAs, or one CTA where the others would have no ids; its ids are cut into one run
 * for each warp.  Every step is a pass over the runs and one exchange, after which every CTA knows the same: one pass
 * for greedy; then one that leaves the distances in shared memory and makes the first histogram of the cut, one for
 * each further digit of it, three at most, and one for the draw.  Bound by latency: a launch and 1 to 4 us a pass. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/sample_team.cuh"

#include <cfloat>

namespace {

constexpr int kAlone = kWarps * kChunk; /* ids of which every warp of one CTA has a chunk at most */

/* Until the next exchange, what ids add to their digit's sum goes to the histogram. */
template <int kCtas>
__device__ void begin_histogram(const Team<kCtas> &t)
{
    for (int i = threadIdx.x; i < kDigits; i += kThreads) {
        t.shared->counts[t.turn][i] = 0;
        t.shared->lows[t.turn][i] = 0;
        t.shared->highs[t.turn][i] = 0;
    }
    __syncthreads();
}

template <int kCtas>
__device__ void add_to_histogram(const Team<kCtas> &t, uint32_t q, int shift, bool counts)
{
    const uint32_t digit = q >> shift & 0xff;
    atomicAdd(&t.shared->counts[t.turn][digit], 1);
    if (!counts) {
        const uint32_t w = sample_weight(q);
        atomicAdd(&t.shared->lows[t.turn][digit], w & 0xffff);
        atomicAdd(&t.shared->highs[t.turn][digit], w >> 16);
    }
}

/* The histogram over the cluster, and where its running sum reaches the target: shared->found.  Returns whether all
 * of that digit is wanted. */
template <int kCtas, typename Target>
__device__ bool search_histogram(Team<kCtas> &t, bool counts, Target target_of)
{
    constexpr int kEach = kThreads / kDigits; /* threads a digit */
    Shared *s = t.shared;
    const int digit = threadIdx.x / kEach;
    uint32_t n = 0;
    uint64_t sum = 0;
    t.sync();
#pragma unroll
    for (int first = 0; first < kCtas; first += kEach) {
        const int rank = first + (int)threadIdx.x % kEach;
        if (rank >= kCtas) {
            break;
        }
        const Shared *other = t.of(rank);
        n += other->counts[t.turn][digit];
        sum += other->lows[t.turn][digit] + ((uint64_t)other->highs[t.turn][digit] << 16);
    }
    for (int step = 1; step < kEach; step *= 2) {
        n += __shfl_xor_sync(kAll, n, step);
        sum += __shfl_xor_sync(kAll, sum, step);
    }
    if (threadIdx.x % kEach == 0) {
        s->sums[t.turn][digit] = counts ? n : sum;
        s->totals[digit] = n;
    }
    __syncthreads();
    if (t.warp == 0) {
        search<kDigits>(t, s->sums[t.turn], target_of);
    }
    __syncthreads();
    t.turn ^= 1;
    return s->found.index >= 0 &&
           (s->found.left == s->found.amount || s->totals[s->found.index] == 1);
}

/* The shortest beginning of the order whose amounts reach the target that the total of the first histogram gives;
 * within, if there is none.  The first histogram is there, of ids that are within. */
template <int kCtas, typename Target>
__device__ sample_cut find_cut(Team<kCtas> &t, const Row &row, sample_cut within, bool counts,
                               Target target_of)
{
    bool whole = search_histogram(t, counts, target_of);
    Found f = t.shared->found;
    if (f.index < 0) {
        return within;
    }
    uint32_t prefix = (uint32_t)f.index;
    int shift = 24;
    while (!whole && shift > 0) {
        const uint64_t left = f.left;
        begin_histogram(t);
        for_distances(row, t.lane, [&](int i, uint32_t q) {
            if (q >> shift == prefix && sample_within(within, q, row.begin + i)) {
                add_to_histogram(t, q, shift - 8, counts);
            }
        });
        whole = search_histogram(t, counts, [=](uint64_t) { return left; });
        f = t.shared->found;
        prefix = prefix << 8 | (uint32_t)f.index;
        shift -= 8;
    }
    if (whole) {
        const uint32_t last = (prefix << shift) + ((1u << shift) - 1);
        return last < within.q ? sample_cut{last, INT32_MAX} : within;
    }
    const uint64_t each = counts ? 1 : sample_weight(prefix);
    const uint64_t left = f.left;
    const int id = locate(
        t, row, [=](int, uint32_t q) { return q == prefix ? each : (uint64_t)0; },
        [=](uint64_t) { return left; });
    return sample_cut{prefix, id};
}

/* Distances to where passes find them, and, if there is a cut to find, its first histogram. */
template <int kCtas>
__device__ void note_distances(const Team<kCtas> &t, const Row &row, bool cuts, bool counts)
{
    if (cuts) {
        begin_histogram(t);
    }
    for_scores(row, t.lane, [&](int i, float score) {
        const uint32_t q = sample_distance(score, row.best, row.scale);
        row.distances[i] = q;
        if (cuts && q != SAMPLE_FAR) {
            add_to_histogram(t, q, 24, counts);
        }
    });
    __syncwarp();
}

template <int kCtas>
__device__ int draw(Team<kCtas> &t, const Row &row, const kern_sample_row &p, int n_vocab)
{
    const uint32_t least = sample_least_weight(p.min_p);
    const bool by_count = p.top_k > 0 && p.top_k < n_vocab;
    const bool by_weight = p.top_p < 1.0f;
    sample_cut cut = {SAMPLE_FAR, -1};
    note_distances(t, row, by_count || by_weight, by_count);
    if (by_count) {
        cut = find_cut(t, row, cut, true, [&](uint64_t) { return (uint64_t)p.top_k; });
    }
    if (by_count && by_weight) {
        begin_histogram(t);
        for_distances(row, t.lane, [&](int i, uint32_t q) {
            if (q != SAMPLE_FAR && sample_within(cut, q, row.begin + i)) {
                add_to_histogram(t, q, 24, false);
            }
        });
    }
    if (by_weight) {
        cut = find_cut(t, row, cut, false,
                       [&](uint64_t total) { return sample_target(p.top_p, total); });
    }
    return locate(
        t, row,
        [=](int id, uint32_t q) {
            const bool kept = q != SAMPLE_FAR && sample_within(cut, q, id);
            const uint32_t w = kept ? sample_weight(q) : 0;
            return (uint64_t)(w >= least ? w : 0);
        },
        [&](uint64_t total) { return sample_point(total, p.random) + 1; });
}

/* The best of the keys below bound. */
template <int kCtas>
__device__ uint64_t best_below(Team<kCtas> &t, const Row &row, uint64_t bound)
{
    uint64_t best = 0;
    for_scores(row, t.lane, [&](int i, float score) {
        const uint64_t key = i < row.n ? sample_key(score, row.begin + i) : 0;
        best = key < bound && key > best ? key : best;
    });
    return reduce(t, best, Max());
}

__device__ float log_of(float x, float best, double log_sum)
{
    const double logprob = (x == best ? 0.0 : (double)x - (double)best) - log_sum;
    return logprob >= -(double)FLT_MAX ? (float)logprob : -FLT_MAX;
}

/* row: without a penalty. */
template <int kCtas>
__device__ void report(Team<kCtas> &t, const Row &row, int id, int n_top, kern_sample_report *out)
{
    const bool writes = t.rank == 0 && threadIdx.x == 0;
    uint64_t key = best_below(t, row, UINT64_MAX);
    const float best = row.logits[sample_key_id(key)];
    double sum = 0.0;
    for_scores(row, t.lane, [&](int, float x) {
        sum += isnan(x) ? 0.0f : x == best ? 1.0f : expf(x - best);
    });
    const double log_sum = log(reduce(t, sum, Sum()));
    if (writes) {
        out->logprob = log_of(row.logits[id], best, log_sum);
    }
    for (int k = 0; k < n_top; k++) {
        if (writes) {
            out->top_ids[k] = sample_key_id(key);
            out->top_logprobs[k] = log_of(row.logits[sample_key_id(key)], best, log_sum);
        }
        key = best_below(t, row, key);
    }
}

/* Ids in the run of one of n_runs warps: whole chunks. */
__host__ __device__ int run_of(int n_vocab, int n_runs)
{
    return (n_vocab + n_runs * kChunk - 1) / (n_runs * kChunk) * kChunk;
}

template <int kCtas>
__device__ void sample_row(const kern_sample_args &a)
{
    extern __shared__ __align__(16) uint32_t distances[]; /* [kWarps][run] */
    __shared__ Shared shared;
    cuda_after_previous();
    const int r = blockIdx.x / kCtas;
    const kern_sample_row p = a.rows[r];
    Team<kCtas> t = {&shared, (int)(blockIdx.x % kCtas), (int)(threadIdx.x / 32),
                     (int)(threadIdx.x % 32), 0};
    uint64_t *seen =
        p.penalty == 1.0f ? nullptr : a.seen + p.slot * KERN_SAMPLE_SEEN_WORDS(a.n_vocab);
    const int run = run_of(a.n_vocab, Team<kCtas>::kRuns);
    const int begin = min((t.rank * kWarps + t.warp) * run, a.n_vocab);
    Row row = {a.logits + (int64_t)r * a.n_vocab,
               seen,
               p.penalty,
               0.0f,
               sample_scale(p.temperature),
               a.n_vocab % 4 == 0,
               begin,
               min(run, a.n_vocab - begin),
               distances + t.warp * run};

    t.sync(); /* all CTAs are there before one writes to another */
    const uint64_t best = best_below(t, row, UINT64_MAX);
    int id = sample_key_id(best);
    if (p.temperature > 0.0f && !sample_key_is_nan(best)) {
        row.best = score_of(row, id, row.logits[id]);
        id = draw(t, row, p, a.n_vocab);
    }
    if (p.n_top > 0) {
        row.seen = nullptr;
        report(t, row, id, p.n_top, &a.reports[r]);
    }
    t.sync(); /* none leaves, and none changes what others still read */
    if (t.rank == 0 && threadIdx.x == 0) {
        a.ids[p.slot] = id;
        if (seen != nullptr) {
            seen[id / 64] |= (uint64_t)1 << (id % 64);
        }
    }
}

__global__ void __launch_bounds__(kThreads) sample_alone(const kern_sample_args a)
{
    sample_row<1>(a);
}

__global__ void __cluster_dims__(kMaxCtas, 1, 1) __launch_bounds__(kThreads)
    sample_together(const kern_sample_args a)
{
    sample_row<kMaxCtas>(a);
}

base_status run(void *stream, const kern_sample_args *a, void (*kernel)(kern_sample_args),
                int n_ctas)
{
    const size_t n_bytes = (size_t)kWarps * run_of(a->n_vocab, n_ctas * kWarps) * sizeof(uint32_t);
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    if (error != cudaSuccess) {
        return cuda_to_status(error, "shared memory of sample");
    }
    cuda_launch_shared(kernel, dim3((unsigned)(a->n_rows * n_ctas)), kThreads, n_bytes,
                       static_cast<cudaStream_t>(stream), *a);
    return CUDA_LAUNCHED("sample");
}

} // namespace

extern "C" base_status kern_cuda_sample(void *stream, const kern_sample_args *a)
{
    if (a->n_rows == 0) {
        return BASE_OK;
    }
    return a->n_vocab <= kAlone ? run(stream, a, sample_alone, 1)
                                : run(stream, a, sample_together, kMaxCtas);
}
