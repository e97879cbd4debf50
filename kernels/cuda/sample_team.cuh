/* kernels/cuda/sample_team.cuh - the threads that make one token: what they know of their row, and how they agree.
 *
 * A cluster of kCtas CTAs takes a row; its ids are cut into one run for each of their warps. */
#ifndef KERNELS_CUDA_SAMPLE_TEAM_CUH
#define KERNELS_CUDA_SAMPLE_TEAM_CUH

#include "kernels/sample_rule.h"

#include <cooperative_groups.h>
#include <cstdint>

namespace {

namespace cg = cooperative_groups;

constexpr int kMaxCtas = 8;
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kDigits = 256;
constexpr unsigned kAll = 0xffffffffu;

static_assert(kWarps == 32, "a warp reduces what the warps have");
static_assert(kMaxCtas * kWarps <= kDigits, "sums hold either");
/* Sums of half weights of a CTA, 16 bits each, fit 32. */
static_assert(KERN_SAMPLE_MAX_VOCAB / kMaxCtas <= 1 << 16, "histograms would overflow");

/* Four ids a lane where rows are aligned, so many at once that their loads are under way together. */
constexpr int kChunk = 128;
constexpr int kTogether = 5;

struct Found {
    int index;       /* the amount with which the running sum reaches the target; -1: none */
    uint64_t amount; /* it, */
    uint64_t left;   /* and what of the target is left for it */
};

/* Buffers that other CTAs of the cluster read or write are two, used in turn: an exchange is over for all when the
 * next one meets. */
struct Shared {
    uint32_t counts[2][kDigits];
    uint32_t lows[2][kDigits];  /* weights: their low 16 bits */
    uint32_t highs[2][kDigits]; /* and the others */
    uint64_t sums[2][kDigits];  /* of runs or digits */
    uint32_t totals[kDigits];   /* ids of a digit */
    uint64_t parts[2][kMaxCtas];
    uint64_t warps[kWarps];
    Found found; /* of the last search */
    int ids[2];
};

struct Row {
    const float *logits;
    const uint64_t *seen; /* nullptr: no penalty */
    float penalty;
    float best;
    float scale;
    bool wide;
    int begin;           /* of this warp's run */
    int n;               /* ids in it */
    uint32_t *distances; /* [n, up to a whole chunk] */
};

template <int kCtas>
struct Team {
    static constexpr int kRuns = kCtas * kWarps;
    Shared *shared;
    int rank;
    int warp;
    int lane;
    int turn;

    /* All threads; what each wrote before, the others see. */
    __device__ void sync() const
    {
        if constexpr (kCtas == 1) {
            __syncthreads();
        } else {
            cg::this_cluster().sync();
        }
    }

    /* What the CTA of that rank shares. */
    __device__ Shared *of(int other) const
    {
        return kCtas == 1 ? shared : cg::this_cluster().map_shared_rank(shared, other);
    }
};

__device__ float score_of(const Row &row, int id, float logit)
{
    return row.seen == nullptr
               ? logit
               : sample_score(logit, (row.seen[id / 64] >> (id % 64) & 1) != 0, row.penalty);
}

/* f(i, score) for the warp's ids begin + i; i may be beyond n, with a score of NaN. */
template <typename F>
__device__ void for_scores(const Row &row, int lane, F f)
{
    const float *logits = row.logits + row.begin;
    for (int first = 0; first < row.n; first += kTogether * kChunk) {
        float x[kTogether][4];
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int i = first + k * kChunk + 4 * lane;
            if (row.wide && i < row.n) {
                const float4 v = *reinterpret_cast<const float4 *>(logits + i);
                x[k][0] = v.x;
                x[k][1] = v.y;
                x[k][2] = v.z;
                x[k][3] = v.w;
            } else {
                for (int j = 0; j < 4; j++) {
                    x[k][j] = i + j < row.n ? logits[i + j] : NAN;
                }
            }
        }
#pragma unroll
        for (int k = 0; k < kTogether; k++) {
            const int i = first + k * kChunk + 4 * lane;
            if (first + k * kChunk < row.n) {
                for (int j = 0; j < 4; j++) {
                    f(i + j, i + j < row.n ? score_of(row, row.begin + i + j, x[k][j]) : NAN);
                }
            }
        }
    }
}

/* f(i, distance) once distances are there. */
template <typename F>
__device__ void for_distances(const Row &row, int lane, F f)
{
    for (int i = 4 * lane; i < row.n; i += kChunk) {
        const uint4 q = *reinterpret_cast<const uint4 *>(row.distances + i);
        f(i, q.x);
        f(i + 1, q.y);
        f(i + 2, q.z);
        f(i + 3, q.w);
    }
}

struct Max {
    __device__ uint64_t operator()(uint64_t a, uint64_t b) const
    {
        return a > b ? a : b;
    }
};

struct Sum {
    template <typename T>
    __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};

template <typename T, typename Op>
__device__ T reduce_warp(T x, Op op)
{
    for (int step = 16; step > 0; step /= 2) {
        x = op(x, __shfl_xor_sync(kAll, x, step));
    }
    return x;
}

/* Over the lanes up to this one. */
__device__ uint64_t sum_up_to(int lane, uint64_t x)
{
    for (int step = 1; step < 32; step *= 2) {
        const uint64_t other = __shfl_up_sync(kAll, x, step);
        x += lane >= step ? other : 0;
    }
    return x;
}

__device__ uint64_t to_bits(uint64_t x)
{
    return x;
}
__device__ uint64_t to_bits(double x)
{
    return (uint64_t)__double_as_longlong(x);
}
__device__ void from_bits(uint64_t bits, uint64_t *x)
{
    *x = bits;
}
__device__ void from_bits(uint64_t bits, double *x)
{
    *x = __longlong_as_double((long long)bits);
}

/* Over all threads of the cluster, in the same order every time. */
template <int kCtas, typename T, typename Op>
__device__ T reduce(Team<kCtas> &t, T x, Op op)
{
    Shared *s = t.shared;
    x = reduce_warp(x, op);
    if (t.lane == 0) {
        s->warps[t.warp] = to_bits(x);
    }
    __syncthreads();
    if (t.warp == 0) {
        from_bits(s->warps[t.lane], &x);
        x = reduce_warp(x, op);
        if (t.lane < kCtas) {
            t.of(t.lane)->parts[t.turn][t.rank] = to_bits(x);
        }
    }
    t.sync();
    from_bits(s->parts[t.turn][0], &x);
    for (int i = 1; i < kCtas; i++) {
        T part;
        from_bits(s->parts[t.turn][i], &part);
        x = op(x, part);
    }
    t.turn ^= 1;
    return x;
}

/* Where the running sum of N amounts reaches a target, which may depend on their total.  By warp 0; the others see
 * shared->found after the barrier that the caller makes. */
template <int N, int kCtas, typename Target>
__device__ void search(const Team<kCtas> &t, const uint64_t *amounts, Target target_of)
{
    constexpr int kEach = N / 32;
    uint64_t own = 0;
    for (int i = 0; i < kEach; i++) {
        own += amounts[t.lane * kEach + i];
    }
    const uint64_t up_to = sum_up_to(t.lane, own);
    const uint64_t target = target_of(__shfl_sync(kAll, up_to, 31));
    const unsigned reach = __ballot_sync(kAll, up_to >= target);
    if (reach == 0 && t.lane == 0) {
        t.shared->found = Found{-1, 0, 0};
    }
    if (reach != 0 && t.lane == __ffs((int)reach) - 1) {
        uint64_t left = target - (up_to - own);
        int i = t.lane * kEach;
        while (amounts[i] < left) {
            left -= amounts[i++];
        }
        t.shared->found = Found{i, amounts[i], left};
    }
}

/* The first id, in order of ids, at which the running sum of amount(id, distance) reaches the target that the total
 * gives; amounts fit 32 bits.  There is one. */
template <int kCtas, typename Amount, typename Target>
__device__ int locate(Team<kCtas> &t, const Row &row, Amount amount, Target target_of)
{
    Shared *s = t.shared;
    uint64_t own = 0;
    for_distances(row, t.lane, [&](int i, uint32_t q) { own += amount(row.begin + i, q); });
    own = reduce_warp(own, Sum());
    if (t.lane < kCtas) {
        t.of(t.lane)->sums[t.turn][t.rank * kWarps + t.warp] = own;
    }
    t.sync();
    if (t.warp == 0) {
        search<Team<kCtas>::kRuns>(t, s->sums[t.turn], target_of);
    }
    __syncthreads();
    if (s->found.index == t.rank * kWarps + t.warp) {
        uint64_t left = s->found.left;
        for (int first = 0;; first += 32) {
            const int i = first + t.lane;
            const uint32_t own = i < row.n ? amount(row.begin + i, row.distances[i]) : 0;
            const uint64_t sum = __reduce_add_sync(kAll, own & 0xffff) +
                                 ((uint64_t)__reduce_add_sync(kAll, own >> 16) << 16);
            if (sum >= left) {
                const unsigned reach = __ballot_sync(kAll, sum_up_to(t.lane, own) >= left);
                if (t.lane < kCtas) {
                    t.of(t.lane)->ids[t.turn] = row.begin + first + __ffs((int)reach) - 1;
                }
                break;
            }
            left -= sum;
        }
    }
    t.sync();
    const int id = s->ids[t.turn];
    t.turn ^= 1;
    return id;
}

} // namespace

#endif /* KERNELS_CUDA_SAMPLE_TEAM_CUH */
