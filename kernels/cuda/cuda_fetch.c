#include "kernels/cuda/cuda_fetch.h"

#include "kernels/cuda/cuda_check.h"

#include <string.h>

/* Event, and staging memory of n_bytes. */
static base_status prepare(cuda_fetch *fetch, size_t n_bytes)
{
    base_status st = BASE_OK;
    void *staging = NULL;
    if (fetch->done == NULL) {
        BASE_TRY(st, out,
                 cuda_to_status(cudaEventCreateWithFlags(&fetch->done, cudaEventDisableTiming),
                                "event"));
    }
    if (n_bytes > fetch->n_staging) {
        (void)cudaFreeHost(fetch->staging);
        fetch->staging = NULL;
        fetch->n_staging = 0;
        BASE_TRY(st, out,
                 cuda_to_status(cudaHostAlloc(&staging, n_bytes, cudaHostAllocDefault),
                                "page-locked memory"));
        fetch->staging = staging;
        fetch->n_staging = n_bytes;
    }
out:
    return st;
}

base_status cuda_fetch_begin(cuda_fetches *f, cudaStream_t stream, const char *device,
                             size_t n_bytes, void *to)
{
    base_status st = BASE_OK;
    cuda_fetch *fetch = &f->fetches[f->n_begun % KERN_MAX_FETCHES];

    if (f->n_begun - f->n_ended == KERN_MAX_FETCHES) {
        st = BASE_FAIL(BASE_BAD_INPUT, "more than %d fetches at once", KERN_MAX_FETCHES);
        goto out;
    }
    BASE_TRY(st, out, prepare(fetch, n_bytes));
    BASE_TRY(st, out,
             cuda_to_status(
                 cudaMemcpyAsync(fetch->staging, device, n_bytes, cudaMemcpyDeviceToHost, stream),
                 "fetch"));
    BASE_TRY(st, out, cuda_to_status(cudaEventRecord(fetch->done, stream), "fetch"));
    fetch->to = to;
    fetch->n_bytes = n_bytes;
    f->n_begun++;
out:
    return st;
}

base_status cuda_fetch_end(cuda_fetches *f)
{
    base_status st = BASE_OK;
    const cuda_fetch *fetch = &f->fetches[f->n_ended % KERN_MAX_FETCHES];

    if (f->n_begun == f->n_ended) {
        st = BASE_FAIL(BASE_BAD_INPUT, "no fetch to end");
        goto out;
    }
    f->n_ended++;
    BASE_TRY(st, out, cuda_to_status(cudaEventSynchronize(fetch->done), "waiting for the GPU"));
    memcpy(fetch->to, fetch->staging, fetch->n_bytes);
out:
    return st;
}

void cuda_fetch_reset(cuda_fetches *f)
{
    for (int32_t i = 0; i < KERN_MAX_FETCHES; i++) {
        (void)cudaFreeHost(f->fetches[i].staging);
        if (f->fetches[i].done != NULL) {
            (void)cudaEventDestroy(f->fetches[i].done);
        }
    }
    *f = (cuda_fetches){.n_begun = 0};
}
