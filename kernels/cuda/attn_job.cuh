/* kernels/cuda/attn_job.cuh - the work of one attention call and how it is divided among CTAs.
 *
 * A head is one KV head of one sequence, for up to R query rows (a sequence with more has several tiles of R).
 * Its items are its pages, then one tail: all rows of opens.  Heads lie one after the other on a line, pages as
 * long as their cost, their bytes as a rule (page_shares.h), and every CTA takes an equal share of the line: the items
 * that begin in it.  A head that one CTA has whole is finished there; the parts of the others are merged by a second
 * launch.  Everything is computed from seqs on the device, so that a graph can be replayed with other lengths. */
#ifndef KERNELS_CUDA_ATTN_JOB_CUH
#define KERNELS_CUDA_ATTN_JOB_CUH

#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/formats.h"
#include "kernels/op_attn.h"

#include <stdint.h>

#define ATTN_MAX_CTAS 256 /* more GPU cores than this are left idle */
#define ATTN_MAX_ROWS 8   /* R */
#define ATTN_PARTS    2   /* of a CTA: the end of a head, and the beginning of another */

/* By value in kernel arguments. */
struct attn_job {
    kern_attn_args a;
    cuda_layer layer;
    float *part_o; /* [n_ctas][ATTN_PARTS][ATTN_MAX_ROWS][D], sums over V relative to the maximum */
    float2 *part_ml; /* [n_ctas][ATTN_PARTS][ATTN_MAX_ROWS]: maximum and sum, base 2 */
    int32_t n_ctas;
    int32_t group;
    uint32_t n_ctas_inverse; /* 2^32 over it, rounded down, as the next */
    uint32_t group_inverse;
    int32_t slot_bytes[2]; /* of the ring: of the last slot, [1], and of those before it */
    int32_t n_halves;      /* room for them in shared memory */
    bool begins_early;     /* before the launch before has ended */
};

/* The kernels by family, one source file each: D 64 or 128; few: up to 4 query rows a tile; bits and
 * group as in kern_cuda_formats. */
base_status attn_run_coded(void *stream, const attn_job &job, int head_dim, bool few,
                           const int32_t bits[2]);
base_status attn_run_dense(void *stream, const attn_job &job, int head_dim, bool few);
base_status attn_run_table(void *stream, const attn_job &job, int head_dim, bool few);
base_status attn_run_affine(void *stream, const attn_job &job, int head_dim, bool few,
                            const int32_t bits[2], int32_t group);
/* The right one of them, for one token and more; what it leaves is the second launch's: attn_run_combine's, or that of
 * exchange_attend.h. */
base_status attn_run_parts(void *stream, const kern_cuda_attn_work &work,
                           const kern_attn_args &args, attn_job *job_out, bool *few_out);
base_status attn_run_combine(void *stream, const attn_job &job, int head_dim, bool few);

/* Of a warp: sums over V of D dims, padded so that there are no bank conflicts. */
#define ATTN_SUMS_BYTES(D) (ATTN_MAX_ROWS * ((D) + 4) * 4)

/* What it costs to begin a head, as bytes that a CTA reads in that time: about 6 us of latencies (the queries, the first
 * page, the sums of the warps) at 25 GB/s. */
#define ATTN_BEGIN_UNITS (150000u / CUDA_UNIT_BYTES)

struct attn_cost { /* of a sequence, in units */
    uint32_t n_tiles;
    uint32_t n_pages;
    uint32_t fixed; /* of a head, beside its pages */
};

/* x / d, of the inverse of d. */
static __device__ __forceinline__ uint32_t attn_over(uint32_t x, uint32_t d, uint32_t inverse)
{
    const uint32_t q = __umulhi(x, inverse); /* or one less */
    return x - q * d >= d ? q + 1 : q;
}

template <int D, int R>
static __device__ __forceinline__ attn_cost attn_cost_of(const attn_job &job,
                                                         const kern_attn_seq &s)
{
    attn_cost c;
    c.n_tiles = (uint32_t)(s.n_tokens * job.group + R - 1) / R;
    c.n_pages = (uint32_t)s.n_pages;
    c.fixed = ATTN_BEGIN_UNITS + 1; /* the tail is never empty, so that it lies in some share */
    if (s.n_opens > 0) { /* the last is open up to the last query; the others are whole */
        const uint32_t last = (uint32_t)((s.position + s.n_tokens - 1) % KERN_BLOCK_TOKENS) + 1;
        const uint32_t n_rows = (uint32_t)(s.n_opens - 1) * KERN_BLOCK_TOKENS + last;
        c.fixed += n_rows * (2 * 2 * D) / CUDA_UNIT_BYTES;
    }
    return c;
}

/* Of a page of each head before `head`. */
static __device__ __forceinline__ uint32_t attn_units_before(const cuda_layer &layer, int head)
{
    return (uint32_t)(layer.head_units != 0 ? head * layer.head_units : layer.units[head]);
}

static __device__ __forceinline__ uint32_t attn_seq_units(const attn_job &job, attn_cost c)
{
    return c.n_tiles *
           ((uint32_t)job.layer.n_kv_heads * c.fixed + c.n_pages * (uint32_t)job.layer.total_units);
}

/* The line of length total in n shares that differ by one at most; share i begins at i total / n. */
struct attn_shares {
    uint32_t n;
    uint32_t inverse;
    uint32_t whole; /* total / n */
    uint32_t more;  /* total % n */

    __device__ attn_shares(const attn_job &job, uint32_t total)
        : n((uint32_t)job.n_ctas), inverse(job.n_ctas_inverse), whole(attn_over(total, n, inverse)),
          more(total - whole * n)
    {
    }
    __device__ uint32_t begin(uint32_t share) const
    {
        return share * whole + attn_over(share * more, n, inverse);
    }
    /* The share that `at`, below total, lies in. */
    __device__ uint32_t owner(uint32_t at) const
    {
        uint32_t share = whole == 0 ? n - 1 : min(at / whole, n - 1);
        while (begin(share) > at) {
            share--;
        }
        return share;
    }
};

/* A warp's view of the first 32 sequences, one a lane. */
struct attn_survey {
    kern_attn_seq seq;
    uint32_t units; /* of the lane's sequence */
    uint32_t sum;   /* of lanes up to this */
    uint32_t total; /* of all sequences, however many */
};

static __device__ __forceinline__ kern_attn_seq attn_own_seq(const attn_job &job)
{
    kern_attn_seq s = {};
    if ((int)threadIdx.x % 32 < job.a.n_seqs) {
        s = job.a.seqs[threadIdx.x % 32];
    }
    return s;
}

static __device__ __forceinline__ uint32_t attn_sum_up(uint32_t x)
{
    const int lane = threadIdx.x % 32;
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, x, step);
        x += lane >= step ? other : 0;
    }
    return x;
}

/* own: attn_own_seq, asked for earlier. */
template <int D, int R>
static __device__ attn_survey attn_survey_of(const attn_job &job, const kern_attn_seq &own)
{
    attn_survey v;
    v.seq = own;
    v.units = attn_seq_units(job, attn_cost_of<D, R>(job, own));
    v.sum = job.a.n_seqs > 1 ? attn_sum_up(v.units) : v.units;
    v.total = __shfl_sync(~0u, v.sum, min(job.a.n_seqs, 32) - 1);
#pragma unroll 1
    for (int base = 32; base < job.a.n_seqs; base += 32) {
        const int s = base + (int)threadIdx.x % 32;
        v.total += __reduce_add_sync(
            ~0u,
            s < job.a.n_seqs ? attn_seq_units(job, attn_cost_of<D, R>(job, job.a.seqs[s])) : 0u);
    }
    return v;
}

struct attn_head {
    kern_attn_seq seq;
    attn_cost cost;
    int32_t seq_number;
    int32_t head;
    int32_t tile;
    uint32_t units; /* of a page */
    float inverse;  /* of it, about */
    uint32_t at;    /* where it begins on the line */

    __device__ void set_units(uint32_t u)
    {
        units = u;
        inverse = __fdividef(1.0f, (float)u);
    }

    __device__ uint32_t length() const
    {
        return cost.fixed + cost.n_pages * units;
    }
    /* Where item i begins, from `at` on. */
    __device__ uint32_t item_at(uint32_t i) const
    {
        return i == 0 ? 0 : ATTN_BEGIN_UNITS + i * units;
    }
    /* The first item that begins at x of the line or later; n_pages + 1: none. */
    __device__ int32_t first_item(uint32_t x) const
    {
        if (x <= at) {
            return 0;
        }
        if (x - at <= ATTN_BEGIN_UNITS) {
            return 1;
        }
        const uint32_t y = x - at - ATTN_BEGIN_UNITS; /* i: the first with i units >= y */
        uint32_t i = (uint32_t)((float)y * inverse);
        while (i > 0 && (i - 1) * units >= y) {
            i--;
        }
        while (i <= cost.n_pages && i * units < y) {
            i++;
        }
        return (int32_t)min(max(i, 1u), cost.n_pages + 1);
    }
};

/* One warp: the head that x lies in; or, if token >= 0, the head `head` and the tile of that token and row.  x < total. */
template <int D, int R>
static __device__ void attn_find(const attn_job &job, const attn_survey &survey, uint32_t x,
                                 int32_t token, int32_t query_head, attn_head *out)
{
    const int lane = threadIdx.x % 32;
    kern_attn_seq s = survey.seq;
    uint32_t units = survey.units;
    uint32_t sum = survey.sum;
    uint32_t before = 0;
#pragma unroll 1
    for (int base = 0;;) {
        const bool here = token >= 0 ? token >= s.first_token && token < s.first_token + s.n_tokens
                                     : x < before + sum;
        const uint32_t found = __ballot_sync(~0u, here);
        if (found != 0) {
            const int l = __ffs((int)found) - 1;
            out->seq_number = base + l;
            out->at = before + __shfl_sync(~0u, sum - units, l);
            break;
        }
        before += __shfl_sync(~0u, sum, 31);
        base += 32;
        s = {};
        if (base + lane < job.a.n_seqs) {
            s = job.a.seqs[base + lane];
        }
        units = attn_seq_units(job, attn_cost_of<D, R>(job, s));
        sum = attn_sum_up(units);
    }
    out->seq = job.a.seqs[out->seq_number];
    out->cost = attn_cost_of<D, R>(job, out->seq);
    const attn_cost c = out->cost;
    auto head_at = [&](int h) {
        return c.n_tiles * ((uint32_t)h * c.fixed + c.n_pages * attn_units_before(job.layer, h));
    };
    if (token >= 0) {
        out->head = query_head / job.group;
        out->tile =
            ((token - out->seq.first_token) * job.group + query_head - out->head * job.group) / R;
    } else {
        int n = 0; /* heads that begin at x or before */
#pragma unroll 1
        for (int base = 0; base < job.layer.n_kv_heads; base += 32) {
            const int h = base + lane;
            const bool begun = h < job.layer.n_kv_heads && head_at(h) <= x - out->at;
            n += __popc(__ballot_sync(~0u, begun));
        }
        out->head = n - 1;
    }
    out->set_units(attn_units_before(job.layer, out->head + 1) -
                   attn_units_before(job.layer, out->head));
    out->at += head_at(out->head);
    if (token < 0) {
        out->tile = c.n_tiles > 1 ? (int32_t)((x - out->at) / out->length()) : 0;
    }
    out->at += (uint32_t)out->tile * out->length();
}

/* The head after this one on the line; there is one. */
template <int D, int R>
static __device__ void attn_next(const attn_job &job, attn_head *h)
{
    h->at += h->length();
    if (++h->tile < (int32_t)h->cost.n_tiles) {
        return;
    }
    h->tile = 0;
    if (++h->head == job.layer.n_kv_heads) {
        h->head = 0;
        do {
            h->seq = job.a.seqs[++h->seq_number];
        } while (h->seq.n_tokens == 0);
        h->cost = attn_cost_of<D, R>(job, h->seq);
    }
    h->set_units(attn_units_before(job.layer, h->head + 1) - attn_units_before(job.layer, h->head));
}

#endif /* KERNELS_CUDA_ATTN_JOB_CUH */
