/* tests/support/model_alloc.h - model_open with every allocation failed in turn. */
#ifndef TESTS_SUPPORT_MODEL_ALLOC_H
#define TESTS_SUPPORT_MODEL_ALLOC_H

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/model/model.h"

/* Until it succeeds, after more than n_least. */
static inline void check_model_allocations(const char *name, int n_least)
{
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        model *m = NULL;
        const base_status st = model_open(name, &mem, &m);
        if (st == BASE_OK) {
            assert_true(k > n_least);
            model_close(m);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(m);
        assert_int_equal(a.n_live, 0);
    }
}

#endif /* TESTS_SUPPORT_MODEL_ALLOC_H */
