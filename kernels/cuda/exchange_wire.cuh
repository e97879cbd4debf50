/* kernels/cuda/exchange_wire.cuh - how floats travel in a window (exchange.h).
 *
 * A wire says how a lane's E floats of a row are stored by a peer, looked at here, and told from what was there before:
 *   tagged_wire  a word of 64 bits is a float and the epoch, stored and loaded as one: whoever sees the epoch has the
 *                float.  No order between words is used.  Epochs count on; buffers alternate.
 *   marked_wire  a word of 32 bits is a float, or the mark if none has come.  Who has read a word puts the mark back, and
 *                the end of its kernel comes before the peer's next store there: three buffers in turn.
 * The argument for both: docs/merge.md.  All accesses to windows are relaxed, at system scope. */
#ifndef KERNELS_CUDA_EXCHANGE_WIRE_CUH
#define KERNELS_CUDA_EXCHANGE_WIRE_CUH

#include "kernels/cuda/exchange.h"

#include <stdint.h>

namespace exchange {

constexpr int kWarp = 32;

__device__ __forceinline__ void store_long(char *p, uint64_t x)
{
    asm volatile("st.relaxed.sys.global.b64 [%0],%1;" ::"l"(p), "l"(x) : "memory");
}

__device__ __forceinline__ uint64_t load_long(const char *p)
{
    uint64_t x;
    asm volatile("ld.relaxed.sys.global.b64 %0,[%1];" : "=l"(x) : "l"(p) : "memory");
    return x;
}

/* Vectors are as many accesses as they have elements: nothing is taken from their coming together. */
__device__ __forceinline__ void store_longs(char *p, uint64_t x, uint64_t y)
{
    asm volatile("st.relaxed.sys.global.v2.b64 [%0],{%1,%2};" ::"l"(p), "l"(x), "l"(y) : "memory");
}

__device__ __forceinline__ void load_longs(const char *p, uint64_t *x)
{
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0,%1},[%2];"
                 : "=l"(x[0]), "=l"(x[1])
                 : "l"(p)
                 : "memory");
}

__device__ __forceinline__ void store_word(char *p, uint32_t x)
{
    asm volatile("st.relaxed.sys.global.b32 [%0],%1;" ::"l"(p), "r"(x) : "memory");
}

__device__ __forceinline__ uint32_t load_word(const char *p)
{
    uint32_t x;
    asm volatile("ld.relaxed.sys.global.b32 %0,[%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}

template <int E>
__device__ __forceinline__ void store_words(char *p, const uint32_t (&x)[E])
{
    if constexpr (E == 4) {
        asm volatile("st.relaxed.sys.global.v4.b32 [%0],{%1,%2,%3,%4};" ::"l"(p), "r"(x[0]),
                     "r"(x[1]), "r"(x[2]), "r"(x[3])
                     : "memory");
    } else {
        asm volatile("st.relaxed.sys.global.v2.b32 [%0],{%1,%2};" ::"l"(p), "r"(x[0]), "r"(x[1])
                     : "memory");
    }
}

template <int E>
__device__ __forceinline__ void load_words(const char *p, uint32_t (&x)[E])
{
    if constexpr (E == 4) {
        asm volatile("ld.relaxed.sys.global.v4.b32 {%0,%1,%2,%3},[%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "l"(p)
                     : "memory");
    } else {
        asm volatile("ld.relaxed.sys.global.v2.b32 {%0,%1},[%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "l"(p)
                     : "memory");
    }
}

__device__ __forceinline__ uint64_t tagged(float x, uint32_t epoch)
{
    return (uint64_t)epoch << 32 | __float_as_uint(x);
}

/* A row: o, pairs of neighbours of all lanes, then the other pairs; then lse, and room to the next 16 bytes. */
template <int E>
struct tagged_wire {
    static constexpr int kBuffers = 2;
    static constexpr int kLsePlace = kWarp * E * 8;
    static constexpr int kRowBytes = kLsePlace + 16;

    struct seen { /* of a lane */
        uint64_t words[E];
    };

    static __device__ __forceinline__ uint32_t next(uint32_t turn)
    {
        return turn + 1;
    }
    static __device__ __forceinline__ uint32_t buffer_of(uint32_t turn)
    {
        return turn & 1;
    }
    static __device__ __forceinline__ void put(char *row, int lane, const float (&x)[E],
                                               uint32_t turn)
    {
#pragma unroll
        for (int e = 0; e < E; e += 2) {
            store_longs(row + (e / 2 * kWarp + lane) * 16, tagged(x[e], turn),
                        tagged(x[e + 1], turn));
        }
    }
    static __device__ __forceinline__ void look(const char *row, int lane, seen *s)
    {
#pragma unroll
        for (int e = 0; e < E; e += 2) {
            load_longs(row + (e / 2 * kWarp + lane) * 16, s->words + e);
        }
    }
    /* False: not all of it has come. */
    static __device__ __forceinline__ bool take(const seen &s, uint32_t turn, float (&x)[E])
    {
        bool all = true;
#pragma unroll
        for (int e = 0; e < E; e++) {
            all = all && (uint32_t)(s.words[e] >> 32) == turn;
            x[e] = __uint_as_float((uint32_t)s.words[e]);
        }
        return all;
    }
    static __device__ __forceinline__ void put_lse(char *row, float x, uint32_t turn)
    {
        store_long(row + kLsePlace, tagged(x, turn));
    }
    static __device__ __forceinline__ bool take_lse(const char *row, uint32_t turn, float *x)
    {
        const uint64_t word = load_long(row + kLsePlace);
        *x = __uint_as_float((uint32_t)word);
        return (uint32_t)(word >> 32) == turn;
    }
    static __device__ __forceinline__ void wipe(char *, int)
    {
    }
    static __device__ __forceinline__ void wipe_lse(char *)
    {
    }
};

constexpr uint32_t kMark = 0xffffffffu; /* a NaN, which is never sent */

__device__ __forceinline__ uint32_t unmarked(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return bits == kMark ? 0x7fc00000u : bits;
}

/* A row: o, then lse, and room to the next 16 bytes.  A turn is its buffer. */
template <int E>
struct marked_wire {
    static constexpr int kBuffers = 3;
    static constexpr int kLsePlace = kWarp * E * 4;
    static constexpr int kRowBytes = kLsePlace + 16;

    struct seen {
        uint32_t words[E];
    };

    static __device__ __forceinline__ uint32_t next(uint32_t turn)
    {
        return turn == kBuffers - 1 ? 0 : turn + 1;
    }
    static __device__ __forceinline__ uint32_t buffer_of(uint32_t turn)
    {
        return turn;
    }
    static __device__ __forceinline__ void put(char *row, int lane, const float (&x)[E], uint32_t)
    {
        uint32_t words[E];
#pragma unroll
        for (int e = 0; e < E; e++) {
            words[e] = unmarked(x[e]);
        }
        store_words(row + lane * E * 4, words);
    }
    static __device__ __forceinline__ void look(const char *row, int lane, seen *s)
    {
        load_words(row + lane * E * 4, s->words);
    }
    static __device__ __forceinline__ bool take(const seen &s, uint32_t, float (&x)[E])
    {
        bool all = true;
#pragma unroll
        for (int e = 0; e < E; e++) {
            all = all && s.words[e] != kMark;
            x[e] = __uint_as_float(s.words[e]);
        }
        return all;
    }
    static __device__ __forceinline__ void put_lse(char *row, float x, uint32_t)
    {
        store_word(row + kLsePlace, unmarked(x));
    }
    static __device__ __forceinline__ bool take_lse(const char *row, uint32_t, float *x)
    {
        const uint32_t word = load_word(row + kLsePlace);
        *x = __uint_as_float(word);
        return word != kMark;
    }
    static __device__ __forceinline__ void wipe(char *row, int lane)
    {
        uint32_t words[E];
#pragma unroll
        for (int e = 0; e < E; e++) {
            words[e] = kMark;
        }
        store_words(row + lane * E * 4, words);
    }
    static __device__ __forceinline__ void wipe_lse(char *row)
    {
        store_word(row + kLsePlace, kMark);
    }
};

/* Of a row of either wire. */
template <template <int> class Wire>
constexpr int row_bytes(int head_dim)
{
    return head_dim == 64 ? Wire<64 / kWarp>::kRowBytes : Wire<128 / kWarp>::kRowBytes;
}

/* A word of a broadcast is tagged, without a row. */
constexpr int kWordBytes = 8;
constexpr int kWordBuffers = 2;

} // namespace exchange

#endif /* KERNELS_CUDA_EXCHANGE_WIRE_CUH */
