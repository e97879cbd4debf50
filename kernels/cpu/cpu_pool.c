#include "kernels/cpu/cpu_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct pool_worker {
    cpu_pool *pool;
    int32_t thread;
    pthread_t id;
} pool_worker;

struct cpu_pool {
    base_alloc mem;
    int32_t n_threads;
    int32_t n_started;
    pool_worker *workers; /* [n_threads - 1] */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;  /* next < n_tasks, or stop */
    pthread_cond_t idle;  /* n_running became 0 */
    cpu_pool_fn fn;
    void *arg;
    int32_t n_tasks;
    int32_t next;      /* first task nobody has taken */
    int32_t n_running; /* tasks taken by workers and not finished */
    bool stop;
};

/* Runs tasks until none is left.  Called and returns with the lock held. */
static void take_tasks(cpu_pool *pool, int32_t thread)
{
    while (pool->next < pool->n_tasks) {
        const int32_t task = pool->next++;
        const cpu_pool_fn fn = pool->fn;
        void *arg = pool->arg;
        pool->n_running++;
        pthread_mutex_unlock(&pool->lock);
        fn(arg, task, thread);
        pthread_mutex_lock(&pool->lock);
        pool->n_running--;
    }
}

static void *worker_main(void *arg)
{
    const pool_worker *w = arg;
    cpu_pool *pool = w->pool;

    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        if (pool->next < pool->n_tasks) {
            take_tasks(pool, w->thread);
            if (pool->n_running == 0) {
                pthread_cond_signal(&pool->idle);
            }
        } else {
            pthread_cond_wait(&pool->work, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

base_status cpu_pool_create(int32_t n_threads, const base_alloc *mem, cpu_pool **pool_out)
{
    base_status st = BASE_OK;
    cpu_pool *pool = mem->get(mem->ctx, sizeof *pool);
    sigset_t all;
    sigset_t before;

    if (pool == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "thread pool");
        goto out;
    }
    pool->mem = *mem;
    pool->n_threads = n_threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->idle, NULL);
    pool->workers = mem->get(mem->ctx, (size_t)n_threads * sizeof *pool->workers);
    if (pool->workers == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "thread pool of %d", n_threads);
        goto out;
    }
    /* Signals go to the threads that expect them, not to these. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int32_t i = 0; i < n_threads - 1; i++) {
        pool_worker *w = &pool->workers[i];
        w->pool = pool;
        w->thread = i + 1;
        if (pthread_create(&w->id, NULL, worker_main, w) != 0) {
            st =
                BASE_FAIL(BASE_NO_MEMORY, "thread %d of %d could not be started", i + 1, n_threads);
            break;
        }
        pool->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (st == BASE_OK) {
        *pool_out = pool;
        pool = NULL;
    }

out:
    cpu_pool_destroy(pool);
    return st;
}

void cpu_pool_destroy(cpu_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int32_t i = 0; i < pool->n_started; i++) {
        pthread_join(pool->workers[i].id, NULL);
    }
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    const base_alloc mem = pool->mem;
    mem.put(mem.ctx, pool->workers);
    mem.put(mem.ctx, pool);
}

int32_t cpu_pool_threads(const cpu_pool *pool)
{
    return pool->n_threads;
}

void cpu_pool_run(cpu_pool *pool, int32_t n_tasks, cpu_pool_fn fn, void *arg)
{
    if (pool->n_threads == 1 || n_tasks <= 1) {
        for (int32_t task = 0; task < n_tasks; task++) {
            fn(arg, task, 0);
        }
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->next = 0;
    pool->n_tasks = n_tasks;
    if (n_tasks < pool->n_threads) {
        for (int32_t i = 1; i < n_tasks; i++) {
            pthread_cond_signal(&pool->work);
        }
    } else {
        pthread_cond_broadcast(&pool->work);
    }
    take_tasks(pool, 0);
    while (pool->n_running > 0) {
        pthread_cond_wait(&pool->idle, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}
