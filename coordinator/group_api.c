/* ropewalk.v1.Group: one Attach call is one group, from its Hello to its loss. */
#include "coordinator/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>

/* The model that a Hello speaks of: the one that is served, or a new one for the first group.
 * Reading the tokenizer takes long, so it happens without the mutex. */
static base_status agree_on_model(coordinator *c, const group_hello *hello)
{
    base_status st = BASE_OK;
    coord_model *made = NULL;

    coord_lock(c);
    const coord_model *served = c->model;
    coord_unlock(c);
    if (served == NULL) {
        BASE_TRY(st, out, coord_model_create(hello, &c->mem, &made));
        coord_lock(c);
        if (c->model == NULL) {
            c->model = made;
            made = NULL;
        }
        served = c->model;
        coord_unlock(c);
    }
    BASE_TRY(st, out, coord_model_check_same(served, hello));

out:
    coord_model_destroy(made);
    return st;
}

static base_status join(coordinator *c, rpc_call *call, const group_hello *hello)
{
    base_status st = BASE_OK;
    coord_group *group = NULL;
    const group_down welcome = {.kind = GROUP_DOWN_WELCOME,
                                .protocol = GROUP_PROTOCOL,
                                .build = base_view_of(ROPEWALK_BUILD)};

    coord_lock(c);
    if (c->n_groups >= COORD_MAX_GROUPS) {
        st = BASE_FAIL(BASE_OUT_OF_RANGE, "%d groups are attached, the limit is %d",
                       (int)c->n_groups, COORD_MAX_GROUPS);
        goto out;
    }
    BASE_TRY(st, out, coord_group_create(hello, call, base_now_us(), &c->mem, &group));
    BASE_TRY(st, out, coord_send_down(c, group, &welcome));
    coord_group **last = &c->groups;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = group;
    c->n_groups++;
    rpc_call_set_user(call, group);
    group = NULL;
    BASE_INFO("group attached: model %.*s, policy %.*s, ranks %d, max_context %lld",
              (int)hello->model.n_bytes, hello->model.data, (int)hello->policy.n_bytes,
              hello->policy.data, (int)hello->ranks, (long long)hello->max_context);
    rpc_server_set_serving(c->clients, !c->draining);
    coord_dispatch(c);

out:
    coord_unlock(c);
    coord_group_destroy(group);
    return st;
}

static void take_hello(coordinator *c, rpc_call *call, const group_up *up)
{
    base_status st = BASE_OK;

    if (up->kind != GROUP_UP_HELLO) {
        rpc_call_finish(call, RPC_INVALID_ARGUMENT, "the first message must be hello");
        return;
    }
    BASE_TRY(st, out, coord_model_check_protocol(&up->hello));
    BASE_TRY(st, out, agree_on_model(c, &up->hello));
    BASE_TRY(st, out, join(c, call, &up->hello));

out:
    if (st != BASE_OK) {
        BASE_ERROR("attach refused: %s", base_last_error());
        rpc_call_finish(call,
                        st == BASE_BAD_INPUT || st == BASE_BAD_FILE ? RPC_FAILED_PRECONDITION
                                                                    : rpc_code_of(st),
                        base_last_error());
    }
}

static void on_up(void *ctx, rpc_call *call, base_view message)
{
    coordinator *c = ctx;
    group_up *up = NULL;

    base_status st = group_up_decode(message, &c->mem, &up);
    if (st == BASE_OK && rpc_call_user(call) == NULL) {
        take_hello(c, call, up);
    } else {
        coord_lock(c);
        coord_group *group = rpc_call_user(call);
        if (st == BASE_OK && group != NULL) {
            st = coord_take_up(c, group, up);
        }
        if (st != BASE_OK && group != NULL) {
            char reason[512]; /* losing the group may fail in its own ways */
            (void)snprintf(reason, sizeof reason, "%s", base_last_error());
            coord_lose_group(c, group, rpc_code_of(st), reason);
        } else if (st != BASE_OK) {
            rpc_call_finish(call, rpc_code_of(st), base_last_error());
        }
        coord_unlock(c);
    }
    c->mem.put(c->mem.ctx, up);
}

static void on_half_close(void *ctx, rpc_call *call)
{
    coordinator *c = ctx;

    coord_lock(c);
    coord_group *group = rpc_call_user(call);
    if (group != NULL) {
        coord_lose_group(c, group, RPC_OK, "it has detached");
    }
    coord_unlock(c);
    rpc_call_finish(call, RPC_OK, NULL); /* one without a group */
}

static void on_close(void *ctx, rpc_call *call)
{
    coordinator *c = ctx;

    coord_lock(c);
    coord_group *group = rpc_call_user(call);
    if (group != NULL) {
        coord_lose_group(c, group, RPC_UNAVAILABLE, "its stream has ended");
    }
    coord_unlock(c);
}

rpc_method coord_group_method(coordinator *c)
{
    return (rpc_method){
        .path = "/ropewalk.v1.Group/Attach",
        .client_streams = true,
        .ctx = c,
        .on_message = on_up,
        .on_half_close = on_half_close,
        .on_close = on_close,
    };
}
