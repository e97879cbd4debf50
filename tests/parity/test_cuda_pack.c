/* The CUDA page writer gives the CPU writer's bytes, permuted.  Skips, saying so, where there is no GPU. */
#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/fragment.h"
#include "tests/support/cuda_memory.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define N_PACKS 3
#define N_HEADS 2

/* Of 16 dims of length 8, so that of 64 it is 16: quotients are thresholds of the fixture's books, to the bit. */
static const double on_thresholds[16] = {3, 7, 2, 1, 1};

/* Number j of a group from 0 to the largest code in half steps: the scale is 1, and half of the codes are ties. */
static double half_step(uint64_t stream, int64_t i, int64_t j, int64_t line)
{
    static const int32_t tops[] = {3, 15, 255};
    const int32_t top = tops[line % 3];
    const uint64_t any = base_random_u64(PARITY_SEED, stream, (uint64_t)i);
    return j % 32 == 0   ? 0.0
           : j % 32 == 1 ? (double)top
                         : (double)(any % (2 * (uint64_t)top)) / 2.0;
}

/* Normal rows of many lengths; a few that a writer may get wrong. */
static uint16_t *make_rows(int32_t head_dim, uint64_t stream)
{
    const int64_t n = kern_open_elems(N_HEADS, head_dim);
    uint16_t *rows = parity_memory(n, sizeof *rows);
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = i / head_dim;
        const double length = exp(3.0 * base_random_normal(PARITY_SEED, stream, (uint64_t)row));
        double x = length * base_random_normal(PARITY_SEED, stream + 1, (uint64_t)i);
        switch (row % 128) {
        case 3: x = 0.0; break;
        case 10: x = i % 3 == 0 ? x : 0.0; break;
        case 17: x *= 1e-13; break; /* below the least norm */
        case 31: x *= 1e18; break;  /* the square of the norm overflows */
        case 40: x = i % 64 == 7 ? (double)NAN : x; break;
        case 41: x = i % 64 == 7 ? (double)INFINITY : x; break;
        case 42: x = (double)NAN; break;
        case 43: x = -0.0; break;
        case 64: x *= 1e-38; break; /* subnormal */
        case 65: x *= i % 2 == 0 ? 1e-30 : 1.0; break;
        case 80: x *= 1e6; break;  /* the norm overflows fp16 */
        case 90: x *= 1e-7; break; /* the norm is subnormal in fp16 */
        case 100: x = on_thresholds[i % 16] * (i % 32 < 16 ? 1.0 : -1.0); break;
        case 127: x = 1.0; break; /* equal elements */
        default: break;
        }
        /* of one K, a channel that is NaN for a whole group of positions */
        x = row / 128 == 2 && row % 128 >= 96 && i % head_dim == 5 ? (double)NAN : x;
        /* of one V, some positions, and of one K, some channels */
        x = row / 128 == 1 && row % 8 == 5 ? half_step(stream, i, i % head_dim, row / 8) : x;
        x = row / 128 == 2 && i % 8 == 6 ? half_step(stream, i, row, i % head_dim / 8) : x;
        rows[i] = base_bf16_from_f32((float)x);
    }
    return rows;
}

/* A book that is not symmetric: its lower half is a quarter longer. */
static void skew(page_fixture *fx)
{
    for (int32_t b = 0; b < fx->n_books; b++) {
        page_book *book = &fx->books[b];
        for (int32_t i = 0; i < 256; i++) {
            book->centroids[i] *= book->centroids[i] < 0.0f ? 1.25f : 1.0f;
        }
        for (int32_t i = 0; i < 255; i++) {
            book->thresholds[i] = (book->centroids[i] + book->centroids[i + 1]) / 2.0f;
        }
    }
}

/* Head h has v_bits turned by h. */
static void check(kern_ctx *ctx, int32_t head_dim, int32_t n_segments, const int32_t *k_bits,
                  const int32_t *v_bits, bool skewed)
{
    page_fixture fx[N_HEADS];
    kern_head_format formats[N_HEADS];
    int64_t stride = 0;
    for (int32_t h = 0; h < N_HEADS; h++) {
        int32_t turned[KERN_MAX_SEGMENTS];
        for (int32_t i = 0; i < n_segments; i++) {
            turned[i] = v_bits[(i + h) % n_segments];
        }
        page_fixture_init(&fx[h], head_dim, n_segments, k_bits, turned, false, 1);
        if (skewed) {
            skew(&fx[h]);
        }
        formats[h] = fx[h].format;
        formats[h].offset = stride;
        stride += formats[h].head_page_bytes;
    }
    stride += 256; /* a page holds other layers too */
    kern_open opens[N_PACKS];
    kern_open lent[N_PACKS];
    const kern_pack packs[N_PACKS] = {{0, 2}, {1, 0}, {2, 3}};
    for (int32_t i = 0; i < N_PACKS; i++) {
        opens[i] = (kern_open){.rows = make_rows(head_dim, 10 + 2 * (uint64_t)i)};
        lent[i] =
            (kern_open){.rows = cuda_memory(opens[i].rows, kern_open_elems(N_HEADS, head_dim) * 2)};
    }
    const int64_t n_bytes = 4 * stride;
    uint8_t *want = parity_memory(n_bytes, 1);
    uint8_t *got = parity_memory(n_bytes, 1);
    uint8_t *plain = parity_memory(stride, 1);
    memset(want, 0xa5, (size_t)n_bytes);
    uint8_t *device = cuda_memory(want, n_bytes);
    kern_pack_args args = {.packs = packs,
                           .opens = opens,
                           .formats = formats,
                           .pages = want,
                           .page_stride = stride,
                           .n_packs = N_PACKS,
                           .n_opens = N_PACKS,
                           .n_pages = 4,
                           .n_kv_heads = N_HEADS};
    CHECK_STATUS(kern_pack_pages(ctx, &args), BASE_OK);

    kern_cuda_formats *f = NULL;
    CHECK_STATUS(kern_cuda_formats_create(formats, N_HEADS, head_dim, &base_heap, &f), BASE_OK);
    kern_pack *lent_packs = cuda_memory(packs, sizeof packs);
    kern_open *lent_opens = cuda_memory(lent, sizeof lent);
    args.packs = lent_packs;
    args.opens = lent_opens;
    args.pages = device;
    CHECK_STATUS(kern_cuda_pack(NULL, f, &args), BASE_OK);
    cuda_memory_read(got, device, n_bytes);
    for (int32_t page = 0; page < 4; page++) {
        memcpy(plain, got + page * stride, (size_t)stride);
        for (int32_t h = 0; h < N_HEADS && page != 1; h++) { /* page 1 is nobody's */
            kern_fragment_to_plain(&formats[h], got + page * stride + formats[h].offset,
                                   plain + formats[h].offset);
        }
        for (int64_t i = 0; i < stride; i++) {
            if (plain[i] != want[page * stride + i]) {
                fail_msg("D %d, %d segments from %d bits: byte %lld of page %d is %02x, want %02x",
                         head_dim, n_segments, k_bits[0], (long long)i, page, plain[i],
                         want[page * stride + i]);
            }
        }
    }
    kern_cuda_formats_destroy(f);
    cuda_memory_free(device);
    cuda_memory_free(lent_packs);
    cuda_memory_free(lent_opens);
    for (int32_t i = 0; i < N_PACKS; i++) {
        free(opens[i].rows);
        cuda_memory_free(lent[i].rows);
    }
    free(want);
    free(got);
    free(plain);
}

static void bytes_are_those_of_the_cpu_writer(void **state)
{
    static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (int32_t head_dim = 64; head_dim <= 128; head_dim += 64) {
        for (int32_t n = 1; n <= head_dim / 16; n *= 2) {
            for (int32_t w = 0; w < 9; w++) {
                int32_t bits[KERN_MAX_SEGMENTS];
                for (int32_t i = 0; i < n; i++) {
                    bits[i] = widths[(w + i) % 9];
                }
                check(ctx, head_dim, n, bits, bits, false);
                check(ctx, head_dim, n, bits, bits, true);
            }
        }
    }
    kern_ctx_destroy(ctx);
}

/* Every width and group of K beside every one of V, bf16 too. */
static void affine_bytes_are_those_of_the_cpu_writer(void **state)
{
    static const int32_t widths[] = {2, 4, 8, 16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (int32_t head_dim = 64; head_dim <= 128; head_dim += 64) {
        for (int32_t i = 0; i < 4 * 4 * 3; i++) {
            const int32_t k = widths[i % 4];
            const int32_t v = widths[i / 4 % 4];
            const int32_t group = 32 << i / 16;
            const int32_t k_bits = k == 16 ? k : PAGE_AFFINE(k, group);
            const int32_t v_bits =
                v == 16 ? v : PAGE_AFFINE(v, group < head_dim ? group : head_dim);
            check(ctx, head_dim, 1, &k_bits, &v_bits, false);
        }
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    if (cuda_memory_is_missing()) {
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_the_cpu_writer),
        cmocka_unit_test(affine_bytes_are_those_of_the_cpu_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
