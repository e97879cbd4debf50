/* A flash kernel over blocks of halves.
 *
 * A CTA has the queries of one head that lie in one block, up to 128, so that all of them see the same pages and
 * the mask is needed in their own block alone.  Two warpgroups of 64 rows multiply; one more warp copies K and V of
 * one block after another into two stages each.  The scores of the next block are under way together with the
 * product of weights and V of this one; its exponentials overlap that product. */
#include "kernels/cuda/cuda_prefill.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_hopper.h"
#include "kernels/cuda/cuda_window.h"

namespace {

constexpr int kRows = KERN_BLOCK_TOKENS;
constexpr int kWorkers = 256;            /* two warpgroups */
constexpr int kThreads = kWorkers + 128; /* and one that copies, and leaves them its registers */
constexpr int kWorkerRegisters = 240;
constexpr int kCopierRegisters = 24;
constexpr int kStages = 2;
constexpr int kStripBytes = KERN_BLOCK_TOKENS * 128;
constexpr int kAlign = 1024; /* of an operand */
constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

template <int D>
struct shared_memory {
    alignas(kAlign) uint8_t q[kRows * D * 2];
    alignas(kAlign) uint8_t k[kStages][kRows * D * 2];
    alignas(kAlign) uint8_t v[kStages][kRows * D * 2];
    uint64_t k_full[kStages], k_free[kStages], v_full[kStages], v_free[kStages];
    int16_t slots[CUDA_PREFILL_BLOCKS]; /* what the CTA sees, in order */
    int n_slots;
};

/* The CTA's queries: tokens [first, first + n_rows) of q, the first at `offset` in block `block`. */
struct query_tile {
    int64_t first;
    int32_t block;
    int32_t offset;
    int32_t n_rows;
};

__device__ query_tile tile_of(const kern_attn_seq &seq, int index)
{
    query_tile t;
    t.block = static_cast<int32_t>(seq.position / KERN_BLOCK_TOKENS) + index;
    const int64_t begin = (int64_t)t.block * KERN_BLOCK_TOKENS - seq.position; /* may be negative */
    const int64_t end = begin + KERN_BLOCK_TOKENS;
    const int64_t from = begin > 0 ? begin : 0;
    t.first = seq.first_token + from;
    t.offset = static_cast<int32_t>(from - begin);
    t.n_rows = static_cast<int32_t>((end < seq.n_tokens ? end : seq.n_tokens) - from);
    return t;
}

/* The rule of op_attn.h. */
__device__ bool sees(const kern_attn_args &a, const cuda_window &w, int32_t block, int slot)
{
    const bool open = cuda_window_is_open(w, slot);
    const int32_t other =
        open ? cuda_window_open(a, w, slot)->block : cuda_window_page(a, w, slot)->block;
    if (other >= block) {
        return open && other == block;
    }
    return open == (other < w.sink_blocks || block - other <= w.window_blocks);
}

/* One warp lists the slots that the block sees, in order. */
template <int D>
__device__ void list_slots(const kern_attn_args &a, const cuda_window &w, int32_t block,
                           shared_memory<D> *s)
{
    const int lane = threadIdx.x % 32;
    int n = 0;
    for (int i = 0; i < w.n_items; i += 32) {
        const bool mine = i + lane < w.n_items && sees(a, w, block, i + lane);
        const uint32_t all = __ballot_sync(0xffffffffu, mine);
        if (mine) {
            s->slots[n + __popc(all & ((1u << lane) - 1u))] = static_cast<int16_t>(i + lane);
        }
        n += __popc(all);
    }
    if (lane == 0) {
        s->n_slots = n;
    }
}

/* scale * log2(e) * q as halves; rows past the tile are 0. */
template <int D>
__device__ void load_queries(const kern_attn_args &a, const query_tile &t, int head,
                             shared_memory<D> *s)
{
    const float factor = a.scale * kLog2e;
    for (int i = threadIdx.x; i < kRows * D / 8; i += kThreads) {
        const int row = i / (D / 8);
        const int piece = i % (D / 8);
        float x[8] = {};
        if (row < t.n_rows) {
            cuda_load8(a.q + ((t.first + row) * a.n_heads + head) * D + piece * 8, x);
        }
        __half h[8];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            h[e] = cuda_f16_nearest(x[e] * factor);
        }
        uint4 raw;
        memcpy(&raw, h, sizeof raw);
        *reinterpret_cast<uint4 *>(s->q + piece / 8 * kStripBytes + hopper_piece(row, piece % 8)) =
            raw;
    }
}

/* The copying thread: every listed slot's K and V, as stages become free. */
template <int D>
__device__ void copy_blocks(const kern_attn_args &a, const cuda_window &w, int kv_head,
                            shared_memory<D> *s)
{
    constexpr uint32_t kBytes = kRows * D * 2;
    for (int i = 0; i < s->n_slots; i++) {
        const int stage = i % kStages;
        const uint32_t parity = (i / kStages + 1) & 1; /* the first round finds the stages free */
        const __half *k =
            w.images + ((int64_t)s->slots[i] * a.n_kv_heads + kv_head) * 2 * cuda_image_halves(D);
        hopper_barrier_wait(&s->k_free[stage], parity);
        hopper_barrier_expect(&s->k_full[stage], kBytes);
        hopper_copy(s->k[stage], k, kBytes, &s->k_full[stage]);
        hopper_barrier_wait(&s->v_free[stage], parity);
        hopper_barrier_expect(&s->v_full[stage], kBytes);
        hopper_copy(s->v[stage], k + cuda_image_halves(D), kBytes, &s->v_full[stage]);
    }
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* What a worker holds: rows r and r + 8 of its warp's 16, columns 8 j + 2 c and the next of every j. */
template <int D>
struct worker {
    float o[D / 2];
    float s[KERN_BLOCK_TOKENS / 2];
    float top[2]; /* of the logits, in base 2 */
    float sum[2]; /* of this thread's weights */
    int row;      /* of the tile, the first of the two */
};

/* s = scores against the K of a stage: begun, committed. */
template <int D>
__device__ __forceinline__ void begin_scores(worker<D> &me, const uint8_t *q, const uint8_t *k)
{
    hopper_pin(me.s);
    hopper_products_begin();
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        const int at = i / 4 * kStripBytes + i % 4 * 32;
        hopper_product_rows(me.s, hopper_rows(q + at), hopper_rows(k + at), i > 0);
    }
    hopper_products_commit();
}

/* Column n of scores stays where it is at most the row's limit. */
template <int D>
__device__ __forceinline__ void mask_scores(worker<D> &me, int offset)
{
    const int c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < KERN_BLOCK_TOKENS / 2; i++) {
        const int column = i / 4 * 8 + c + i % 2;
        const int limit = offset + me.row + i % 4 / 2 * 8;
        me.s[i] = column <= limit ? me.s[i] : -INFINITY;
    }
}

/* Scores become weights relative to the new maximum; shrink[r] is what o and sum are worth of the old one. */
template <int D>
__device__ __forceinline__ void weigh(worker<D> &me, float shrink[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = me.top[r];
#pragma unroll
        for (int i = 0; i < KERN_BLOCK_TOKENS / 2; i += 4) {
            top = fmaxf(top, fmaxf(me.s[i + 2 * r], me.s[i + 2 * r + 1]));
        }
        top = quad_max(top);
        const float zero = top == -INFINITY ? 0.0f : top;
        shrink[r] = exp2_fast(me.top[r] - zero);
        me.top[r] = top;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < KERN_BLOCK_TOKENS / 2; i += 4) {
            me.s[i + 2 * r] = exp2_fast(me.s[i + 2 * r] - zero);
            me.s[i + 2 * r + 1] = exp2_fast(me.s[i + 2 * r + 1] - zero);
            sum += me.s[i + 2 * r] + me.s[i + 2 * r + 1];
        }
        me.sum[r] = fmaf(me.sum[r], shrink[r], sum);
    }
}

__device__ __forceinline__ uint32_t pack(float a, float b)
{
    const __half2 h = __floats2half2_rn(a, b);
    uint32_t u;
    memcpy(&u, &h, sizeof u);
    return u;
}

/* Block i, whose scores are there: its weights, the next block's scores unless it is the last, its V. */
template <int D, bool kLast>
__device__ __forceinline__ void attend_block(worker<D> &me, bool own, const query_tile &t,
                                             const uint8_t *q, shared_memory<D> *s, int i)
{
    static_assert(kStages == 2, "the stage before is the next one");
    const int stage = i % kStages;
    const int next = (i + 1) % kStages;
    float shrink[2];
    uint32_t weights[KERN_BLOCK_TOKENS / 16][4];

    if (own) {
        mask_scores<D>(me, t.offset);
    }
    weigh<D>(me, shrink);
    hopper_products_wait<0>(); /* of the block before with its V */
    hopper_pin(me.o);
    if (i > 0) {
        hopper_barrier_arrive(&s->v_free[next]);
    }
#pragma unroll
    for (int j = 0; j < D / 2; j++) {
        me.o[j] *= shrink[j % 4 / 2];
    }
#pragma unroll
    for (int j = 0; j < KERN_BLOCK_TOKENS / 16; j++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            weights[j][r] = pack(me.s[8 * j + 2 * r], me.s[8 * j + 2 * r + 1]);
        }
    }
    if constexpr (!kLast) {
        hopper_barrier_wait(&s->k_full[next], (i + 1) / kStages & 1);
        begin_scores<D>(me, q, s->k[next]);
    }
    hopper_barrier_wait(&s->v_full[stage], i / kStages & 1);
    hopper_pin(me.o);
    hopper_products_begin();
#pragma unroll
    for (int j = 0; j < KERN_BLOCK_TOKENS / 16; j++) {
        hopper_product_columns(me.o, weights[j],
                               hopper_columns(s->v[stage] + j * 16 * 128, kStripBytes));
    }
    hopper_products_commit();
    if constexpr (!kLast) {
        hopper_products_wait<1>(); /* the scores; V's product goes on */
        hopper_pin(me.s);
        hopper_barrier_arrive(&s->k_free[next]);
    }
}

/* All that the CTA sees, one block after another. */
template <int D>
__device__ __forceinline__ void attend(worker<D> &me, const kern_attn_args &a, const cuda_window &w,
                                       const query_tile &t, shared_memory<D> *s)
{
    const uint8_t *q = s->q + threadIdx.x / 128 * 64 * 128;
    const int n = s->n_slots;
    const auto own = [&](int i) {
        return cuda_window_is_open(w, s->slots[i]) &&
               cuda_window_open(a, w, s->slots[i])->block == t.block;
    };

    if (n == 0) {
        return;
    }
    hopper_barrier_wait(&s->k_full[0], 0);
    begin_scores<D>(me, q, s->k[0]);
    hopper_products_wait<0>();
    hopper_pin(me.s);
    hopper_barrier_arrive(&s->k_free[0]);
    for (int i = 0; i + 1 < n; i++) {
        attend_block<D, false>(me, own(i), t, q, s, i);
    }
    attend_block<D, true>(me, own(n - 1), t, q, s, n - 1);
    hopper_products_wait<0>();
    hopper_pin(me.o);
}

/* NaN where a row sees a V that is not finite in an open block. */
template <int D>
__device__ void spoil(worker<D> &me, const kern_attn_args &a, const cuda_window &w,
                      const query_tile &t, int kv_head, const shared_memory<D> *s)
{
    for (int i = s->n_slots - 1; i >= 0 && cuda_window_is_open(w, s->slots[i]); i--) {
        const bool own = cuda_window_open(a, w, s->slots[i])->block == t.block;
        const uint8_t *broken = w.broken + ((int64_t)s->slots[i] * a.n_kv_heads + kv_head) * D;
#pragma unroll
        for (int j = 0; j < D / 2; j++) {
            const int dim = j / 4 * 8 + threadIdx.x % 4 * 2 + j % 2;
            const int last = own ? t.offset + me.row + j % 4 / 2 * 8 : KERN_BLOCK_TOKENS - 1;
            if (broken[dim] <= last) {
                me.o[j] = NAN;
            }
        }
    }
}

/* o and lse of the worker's two rows, merged with what earlier passes left there. */
template <int D>
__device__ void store_rows(const worker<D> &me, const kern_attn_args &a, const cuda_window &w,
                           const query_tile &t, int head)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = me.row + 8 * r;
        const int64_t at = (t.first + row) * a.n_heads + head;
        const bool mine = row < t.n_rows; /* the same in the four lanes of a row */
        const float sum = quad_sum(me.sum[r]);
        const bool empty = me.top[r] == -INFINITY && sum == 0.0f;
        const float lse = empty ? -INFINITY : (me.top[r] + log2f(sum)) * kLn2;
        const float before = w.first || !mine ? -INFINITY : a.lse[at];
        const float top = fmaxf(before, lse);
        const float zero = top == -INFINITY ? 0.0f : top;
        const float share = empty ? 0.0f : expf(lse - zero);
        const float share_before = before == -INFINITY ? 0.0f : expf(before - zero);
        const float both = share + share_before;
        const float scale = empty ? 0.0f : share / both / sum;
        const float scale_before = both == 0.0f ? 0.0f : share_before / both;
        float *o = a.o + at * D + threadIdx.x % 4 * 2;

        __syncwarp(); /* the four lanes of a row have read its lse */
        if (!mine) {
            continue;
        }
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            float2 x = make_float2(0.0f, 0.0f);
            if (!empty) {
                x = make_float2(me.o[4 * j + 2 * r] * scale, me.o[4 * j + 2 * r + 1] * scale);
            }
            float2 *out = reinterpret_cast<float2 *>(o + 8 * j);
            if (before != -INFINITY) {
                const float2 old = *out;
                x = make_float2(fmaf(old.x, scale_before, x.x), fmaf(old.y, scale_before, x.y));
            }
            *out = x;
        }
        if (threadIdx.x % 4 == 0) {
            a.lse[at] = both == 0.0f ? -INFINITY : zero + logf(both);
        }
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    flash_kernel(const kern_attn_args a, const cuda_window w)
{
    extern __shared__ uint8_t raw[];
    auto *s =
        reinterpret_cast<shared_memory<D> *>(raw + (kAlign - hopper_shared(raw) % kAlign) % kAlign);
    const int head = blockIdx.x % a.n_heads;
    const int kv_head = head / (a.n_heads / a.n_kv_heads);
    const query_tile t =
        tile_of(w.seq, gridDim.x / a.n_heads - 1 - blockIdx.x / a.n_heads); /* long ones first */

    if (threadIdx.x == 0) {
        for (int i = 0; i < kStages; i++) {
            hopper_barrier_init(&s->k_full[i], 1);
            hopper_barrier_init(&s->v_full[i], 1);
            hopper_barrier_init(&s->k_free[i], kWorkers);
            hopper_barrier_init(&s->v_free[i], kWorkers);
        }
    }
    if (threadIdx.x / 32 == kWorkers / 32) {
        list_slots<D>(a, w, t.block, s);
    }
    load_queries<D>(a, t, head, s);
    hopper_stores_visible(); /* the queries, and the barriers */
    __syncthreads();

    if (threadIdx.x >= kWorkers) {
        hopper_registers_drop<kCopierRegisters>();
        if (threadIdx.x == kWorkers) {
            copy_blocks<D>(a, w, kv_head, s);
        }
    } else {
        hopper_registers_take<kWorkerRegisters>();
        worker<D> me = {};
        me.top[0] = me.top[1] = -INFINITY;
        me.row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        attend<D>(me, a, w, t, s);
        spoil<D>(me, a, w, t, kv_head, s);
        store_rows<D>(me, a, w, t, head);
    }
}

template <int D>
base_status flash(cudaStream_t stream, const kern_attn_args &a, const cuda_window &w)
{
    constexpr int kBytes = sizeof(shared_memory<D>) + kAlign;
    const kern_attn_seq &seq = w.seq;
    const int64_t last = seq.position + seq.n_tokens - 1;
    const int n_tiles =
        static_cast<int>(last / KERN_BLOCK_TOKENS - seq.position / KERN_BLOCK_TOKENS) + 1;
    const base_status st = cuda_to_status(
        cudaFuncSetAttribute(flash_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "shared memory of prefill attention");
    if (st != BASE_OK) {
        return st;
    }
    flash_kernel<D><<<n_tiles * a.n_heads, kThreads, kBytes, stream>>>(a, w);
    return CUDA_LAUNCHED("prefill attention");
}

/* Passes over the items of one sequence; one at least, which writes empty results. */
base_status attend_sequence(cudaStream_t stream, const kern_attn_args &a, cuda_window w)
{
    const int32_t n_all = w.seq.n_pages + w.seq.n_opens;
    base_status st = BASE_OK;

    do {
        w.n_items = n_all - w.first_item < w.n_slots ? n_all - w.first_item : w.n_slots;
        cuda_window_fill(stream, a, w);
        st = a.head_dim == 64 ? flash<64>(stream, a, w) : flash<128>(stream, a, w);
        w.first = false;
        w.first_item += w.n_items;
    } while (w.first_item < n_all && st == BASE_OK);
    return st;
}

} // namespace

extern "C" int64_t cuda_prefill_workspace_bytes(int32_t n_kv_heads, int32_t head_dim,
                                                int32_t n_blocks)
{
    return (int64_t)n_blocks * n_kv_heads * (cuda_image_halves(head_dim) * 4 + head_dim);
}

extern "C" base_status cuda_prefill(void *stream, const cuda_prefill_work *work,
                                    const kern_attn_args *args)
{
    base_status st = BASE_OK;
    cuda_window w = {};

    w.window_blocks = args->window_blocks;
    w.sink_blocks = args->sink_blocks;
    w.n_slots = work->n_blocks;
    w.images = static_cast<__half *>(work->workspace);
    w.broken = static_cast<uint8_t *>(work->workspace) +
               (int64_t)work->n_blocks * args->n_kv_heads * cuda_image_halves(args->head_dim) * 4;
    for (int32_t i = 0; i < work->n_seqs && st == BASE_OK; i++) {
        if (work->seqs[i].n_tokens > 0) {
            w.seq = work->seqs[i];
            w.first = true;
            w.first_item = 0;
            st = attend_sequence(static_cast<cudaStream_t>(stream), *args, w);
        }
    }
    return st;
}
