/* tests/support/forward_alloc.h - forward_create with every allocation failed in turn, on CPUs. */
#ifndef TESTS_SUPPORT_FORWARD_ALLOC_H
#define TESTS_SUPPORT_FORWARD_ALLOC_H

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/model/forward.h"

/* Until it succeeds, and then with the bytes that it says.  The memory of its context fails too.  Collective. */
static inline void check_forward_allocations(const model *m, const kv_format *format, comm *ranks,
                                             const forward_limits *limits)
{
    base_status st = BASE_NO_MEMORY;
    int k = 0;
    for (; st != BASE_OK; k++) {
        failing_alloc a = {.fail_at = -1};
        const base_alloc mem = {failing_get, failing_put, &a};
        kern_ctx *ctx = NULL;
        forward *f = NULL;
        CHECK_STATUS(kern_ctx_create_cpu(1, &mem, &ctx), BASE_OK);
        const int n_before = a.n_live;
        a = (failing_alloc){.fail_at = k, .n_live = n_before};
        st = forward_create(m, format, ctx, ranks, limits, &mem, &f);
        if (st == BASE_OK) {
            assert_int_equal(
                a.n_bytes, forward_scratch_bytes(&m->config, &m->split, limits, comm_size(ranks)));
        } else {
            assert_int_equal(st, BASE_NO_MEMORY);
            assert_null(f);
        }
        forward_destroy(f);
        assert_int_equal(a.n_live, n_before);
        kern_ctx_destroy(ctx);
        assert_int_equal(a.n_live, 0);
    }
    assert_true(k > 3);
}

#endif /* TESTS_SUPPORT_FORWARD_ALLOC_H */
