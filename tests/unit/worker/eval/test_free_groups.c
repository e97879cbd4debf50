/* Groups of any size: which bytes they take, and that they lose what TurboQuant-MSE loses in so many dims. */
#include "worker/eval/free_groups.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <math.h>

enum { D = 64, BLOCKS = D / 2, N = 4000 };

/* One layer, one head; the first n_high blocks have 4^6 times the energy of the others. */
static kv_calibration *calibration_of(int32_t n_high)
{
    const kv_shape shape = {1, 1, D};
    kv_calibration *c = NULL;
    CHECK_STATUS(kv_calibration_create(&shape, (base_hash){{0}}, 1, &base_heap, &c), BASE_OK);
    for (int32_t i = 0; i < 2 * BLOCKS; i++) {
        c->energies[i] = i % BLOCKS < n_high ? 4096.0f : 1.0f;
    }
    return c;
}

static eval_free_groups *groups_of(int32_t n_high, int32_t mean_bits)
{
    kv_calibration *c = calibration_of(n_high);
    eval_free_groups *g = NULL;
    CHECK_STATUS(eval_free_groups_create(c, mean_bits, &base_heap, &g), BASE_OK);
    kv_calibration_destroy(c);
    return g;
}

/* 3 blocks of 4^6 times the energy, 2 bits a block: the 32 bits above 1 a block go to the high three first (one
 * below 7: 6 each), then one each to the lowest 14 of the 29.  Groups of 15 blocks at 1 bit, 14 at 2, 3 at 7. */
static void a_group_may_have_any_number_of_blocks(void **state)
{
    (void)state;
    eval_free_groups *g = groups_of(3, 2);
    assert_int_equal(eval_free_groups_bytes(g, 0),
                     (30 * 1 + 7) / 8 + (28 * 2 + 7) / 8 + (6 * 7 + 7) / 8 + 3 * 2);
    eval_free_groups_destroy(g);
    g = groups_of(0, 3);
    assert_int_equal(eval_free_groups_bytes(g, 0), D * 3 / 8 + 2);
    eval_free_groups_destroy(g);
}

/* Mean relative error over normal keys of dims whose blocks are first..first+n. */
static double error_of(const eval_free_groups *g, int32_t first, int32_t n)
{
    double error = 0.0;
    for (uint64_t t = 0; t < N; t++) {
        float key[D], back[D];
        double lost = 0.0;
        double all = 0.0;
        for (uint64_t i = 0; i < D; i++) {
            key[i] = back[i] = (float)base_random_normal(9, t, i);
        }
        eval_free_groups_apply(g, 0, 0, back);
        for (int32_t i = first; i < first + n; i++) {
            for (int32_t j = i; j < D; j += BLOCKS) {
                lost += pow((double)key[j] - (double)back[j], 2.0);
                all += (double)key[j] * (double)key[j];
            }
        }
        error += lost / all / N;
    }
    return error;
}

/* Relative errors of TurboQuant-MSE with norm correction on normal vectors, by dims and bits, measured with a dense
 * rotation and converged codebooks by another program. */
static void a_group_loses_what_its_dims_and_bits_say(void **state)
{
    (void)state;
    eval_free_groups *g = groups_of(0, 3);
    assert_true(fabs(error_of(g, 0, BLOCKS) / 0.0328 - 1.0) < 0.03);
    eval_free_groups_destroy(g);
    g = groups_of(0, 2);
    assert_true(fabs(error_of(g, 0, BLOCKS) / 0.117 - 1.0) < 0.03);
    eval_free_groups_destroy(g);
    g = groups_of(28, 4); /* 4 blocks keep 1 bit, 20 have 4, 8 have 5 */
    assert_true(fabs(error_of(g, 28, 4) / 0.354 - 1.0) < 0.03);
    eval_free_groups_destroy(g);
    g = groups_of(31, 2); /* 1 block keeps 1 bit */
    assert_true(fabs(error_of(g, 31, 1) / 0.199 - 1.0) < 0.03);
    eval_free_groups_destroy(g);
}

static void a_key_keeps_its_length_and_zero_stays_zero(void **state)
{
    (void)state;
    eval_free_groups *g = groups_of(5, 3);
    float key[D] = {0.0f};
    const float zero[D] = {0.0f};
    double before = 0.0;
    double after = 0.0;
    eval_free_groups_apply(g, 0, 0, key);
    assert_memory_equal(key, zero, sizeof key);
    for (uint64_t i = 0; i < D; i++) {
        key[i] = (float)base_random_normal(3, 0, i);
        before += (double)key[i] * (double)key[i];
    }
    eval_free_groups_apply(g, 0, 0, key);
    for (int32_t i = 0; i < D; i++) {
        after += (double)key[i] * (double)key[i];
    }
    assert_true(fabs(sqrt(after / before) - 1.0) < 5e-4); /* half an ulp of the norms in fp16 */
    eval_free_groups_destroy(g);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    kv_calibration *c = calibration_of(3);
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        eval_free_groups *g = NULL;
        const base_status st = eval_free_groups_create(c, 2, &mem, &g);
        if (st == BASE_OK) {
            assert_true(k >= 8);
            eval_free_groups_destroy(g);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(g);
        assert_int_equal(a.n_live, 0);
    }
    kv_calibration_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_may_have_any_number_of_blocks),
        cmocka_unit_test(a_group_loses_what_its_dims_and_bits_say),
        cmocka_unit_test(a_key_keeps_its_length_and_zero_stays_zero),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
