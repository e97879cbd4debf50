#include "worker/boot/transport.h"

#include "base/log.h"
#include "kernels/comm/comm_lsa.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/comm/comm_ways.h"

static base_status open_nccl(const transport_place *place, comm_way way, const base_alloc *mem,
                             comm **comm_out)
{
    const comm_nccl_options options = {.host = place->host,
                                       .ctx = place->ctx,
                                       .who = place->who,
                                       .way = way,
                                       .shared_gpu = place->shared_gpu};
    return comm_nccl_create(&options, mem, comm_out);
}

/* In front of NCCL, which has what lsa has not. */
static base_status open_lsa(const transport_place *place, const base_alloc *mem, comm **comm_out)
{
    base_status st = BASE_OK;
    comm *beneath = NULL;

    BASE_TRY(st, out,
             open_nccl(place, place->splits ? COMM_NCCL_A2A : COMM_NCCL_AG, mem, &beneath));
    const comm_lsa_options options = {.host = place->host,
                                      .ctx = place->ctx,
                                      .tensors = beneath,
                                      .head_dim = place->head_dim,
                                      .max_rows = place->max_rows,
                                      .max_words = place->max_words,
                                      .limit_ms = place->limit_ms};
    st = comm_lsa_create(&options, mem, comm_out);
    if (st == BASE_UNAVAILABLE && place->or_less) {
        BASE_WARN("exchange by %s instead of lsa: %s", comm_name(beneath), base_last_error());
        *comm_out = beneath;
        st = BASE_OK;
    }
    beneath = st == BASE_OK ? NULL : beneath;
out:
    comm_destroy(beneath);
    return st;
}

base_status transport_open(const char *name, const transport_place *place, const base_alloc *mem,
                           comm **comm_out)
{
    const comm_way way = comm_way_find(name);
    switch (way) {
    case COMM_MPI: return comm_mpi_create(mem, comm_out);
    case COMM_LSA: return open_lsa(place, mem, comm_out);
    case COMM_NCCL_AG:
    case COMM_NCCL_AR:
    case COMM_NCCL_A2A: return open_nccl(place, way, mem, comm_out);
    case COMM_N_WAYS: break;
    }
    return BASE_FAIL(BASE_BAD_INPUT, "no transport is named %s", name);
}
