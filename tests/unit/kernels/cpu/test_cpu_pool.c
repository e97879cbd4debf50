#include "kernels/cpu/cpu_pool.h"

#include "base/alloc.h"
#include "tests/support/test.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { MAX_TASKS = 1000, MAX_THREADS = 8 };

typedef struct tally {
    int32_t n_runs[MAX_TASKS];
    atomic_bool busy[MAX_THREADS];
    atomic_int n_clashes; /* two tasks on one thread at once */
} tally;

static void count_task(void *arg, int32_t task, int32_t thread)
{
    tally *t = arg;
    if (atomic_exchange(&t->busy[thread], true)) {
        atomic_fetch_add(&t->n_clashes, 1);
    }
    t->n_runs[task]++;
    atomic_store(&t->busy[thread], false);
}

static void every_task_runs_once(void **state)
{
    (void)state;
    static const int32_t n_threads[] = {1, 2, 3, 8};
    static const int32_t n_tasks[] = {0, 1, 2, 5, 999, 1000};
    for (size_t i = 0; i < 4; i++) {
        cpu_pool *pool = NULL;
        CHECK_STATUS(cpu_pool_create(n_threads[i], &base_heap, &pool), BASE_OK);
        assert_int_equal(cpu_pool_threads(pool), n_threads[i]);
        for (size_t j = 0; j < 6 * 50; j++) {
            tally t = {.n_clashes = 0};
            cpu_pool_run(pool, n_tasks[j % 6], count_task, &t);
            for (int32_t task = 0; task < MAX_TASKS; task++) {
                assert_int_equal(t.n_runs[task], task < n_tasks[j % 6]);
            }
            assert_int_equal(atomic_load(&t.n_clashes), 0);
        }
        cpu_pool_destroy(pool);
    }
}

static void a_pool_that_never_ran_ends(void **state)
{
    (void)state;
    cpu_pool *pool = NULL;
    CHECK_STATUS(cpu_pool_create(4, &base_heap, &pool), BASE_OK);
    cpu_pool_destroy(pool);
    cpu_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(a_pool_that_never_ran_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
