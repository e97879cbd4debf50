#include "worker/boot/member.h"

#include "base/log.h"
#include "worker/boot/choice.h"
#include "worker/boot/host.h"
#include "worker/boot/room.h"
#include "worker/boot/transport.h"

#include <stdio.h>
#include <string.h>

base_status member_meet(member *m, const boot_world *world, const seat_wishes *wishes)
{
    base_status st = BASE_OK;

    *m = (member){.world = *world, .wishes = *wishes};
    BASE_TRY(st, out,
             world->n_ranks == 1 ? comm_self_create(&base_heap, &m->ranks)
                                 : comm_mpi_create(&base_heap, &m->ranks));
    st = seats_agree(m->ranks, world, wishes, &m->seat);
out:
    return st;
}

/* The chosen thing's reason is of interest where there is more than one rank. */
static void say(const member *m, const char *why)
{
    if (m->world.rank == 0 && m->world.n_ranks > 1) {
        BASE_INFO("%s", why);
    }
}

base_status member_read(member *m, const char *folder, base_view rope_text)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, model_read(folder, rope_text, &base_heap, &m->model));
    st = boot_compare(m->ranks, "model", m->model->hash);
out:
    return st;
}

static base_status choose_weights(member *m, int64_t cache_bytes, double fraction)
{
    base_status st = BASE_OK;
    const model *whole = m->model;
    room r;
    model_split split;
    char why[CHOICE_TEXT];
    char no_split[CHOICE_TEXT];
    choice_weights_case c = {.wish = m->wishes.weights,
                             .device = m->seat.device,
                             .n_ranks = m->world.n_ranks,
                             .whole_bytes = whole->whole_bytes,
                             .cache_bytes = cache_bytes};

    BASE_TRY(st, out, room_measure(&m->seat, &m->world, fraction, &r));
    const bool once = m->seat.device == KERN_DEVICE_CPU && whole->mapped; /* for all of a host */
    const int64_t beside =
        room_beside(&r, once ? whole->whole_bytes / r.n_sharing : whole->whole_bytes);
    BASE_TRY(st, out, boot_least(m->ranks, beside, &c.beside_bytes));
    if (model_split_make(&whole->config, m->world.rank, c.n_ranks, &split) != BASE_OK) {
        (void)snprintf(no_split, sizeof no_split, "%s", base_last_error());
        c.no_split = no_split;
    }
    BASE_TRY(st, out, choice_of_weights(&c, &m->splits, why));
    say(m, why);
out:
    return st;
}

base_status member_load(member *m, int64_t cache_bytes, double fraction)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, choose_weights(m, cache_bytes, fraction));
    st = model_load(m->model, m->splits ? m->world.rank : 0, m->splits ? m->world.n_ranks : 1);
out:
    return st;
}

base_status member_connect(member *m, const member_lines *lines)
{
    base_status st = BASE_OK;
    const bool on_gpu = m->seat.device == KERN_DEVICE_CUDA;
    const char *merge = NULL;
    char why[CHOICE_TEXT];

    m->n_threads = lines->n_threads > 0 ? lines->n_threads : host_threads(m->world.n_local);
    BASE_TRY(st, out, choice_of_merge(&m->seat, m->wishes.merge, m->splits, &merge, why));
    say(m, why);
    BASE_TRY(st, out,
             on_gpu ? kern_ctx_create_cuda(m->seat.gpu, &base_heap, &m->ctx)
                    : kern_ctx_create_cpu(m->n_threads, &base_heap, &m->ctx));
    if (!on_gpu || m->world.n_ranks == 1) {
        m->tensors = m->ranks;
        goto out;
    }
    const transport_place place = {.ctx = m->ctx,
                                   .host = m->ranks,
                                   .who = m->seat.who,
                                   .shared_gpu = lines->shared_gpu,
                                   .splits = m->splits,
                                   .head_dim = m->model->config.head_dim,
                                   .max_rows = lines->max_rows,
                                   .max_words = lines->max_words,
                                   .limit_ms = lines->limit_ms,
                                   .or_less =
                                       lines->or_less || strcmp(m->wishes.merge, "auto") == 0};
    st = transport_open(merge, &place, &base_heap, &m->tensors);
out:
    return st;
}

void member_end(member *m)
{
    if (m->tensors != m->ranks) {
        comm_destroy(m->tensors);
    }
    kern_ctx_destroy(m->ctx);
    model_close(m->model);
    comm_destroy(m->ranks);
}
