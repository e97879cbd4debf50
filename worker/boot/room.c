#include "worker/boot/room.h"

#include "worker/boot/host.h"

base_status room_measure(const seat_plan *plan, const boot_world *world, double fraction,
                         room *room_out)
{
    base_status st = BASE_OK;
    kern_gpu gpu;
    room r = {.fraction = fraction};

    if (plan->device == KERN_DEVICE_CUDA) {
        BASE_TRY(st, out, kern_gpu_describe(plan->gpu, &gpu));
        r.free_bytes = gpu.free_bytes;
        r.n_sharing = plan->n_sharing;
        r.fraction = fraction == 0.0 ? ROOM_GPU_FRACTION : fraction;
    } else {
        BASE_TRY(st, out, host_memory_available(&r.free_bytes));
        r.n_sharing = world->n_local;
        r.fraction = fraction == 0.0 ? ROOM_HOST_FRACTION : fraction;
    }
    *room_out = r;
out:
    return st;
}

int64_t room_beside(const room *r, int64_t n_bytes)
{
    return (int64_t)((double)(r->free_bytes - r->n_sharing * n_bytes) * r->fraction / r->n_sharing);
}
