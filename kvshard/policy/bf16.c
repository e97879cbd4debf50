/* The reference policy: rows as they are, 16 bits. */
#include "kvshard/policy/policy_impl.h"

static void plan_side(const kv_policy *policy, const kv_shape *shape, int32_t layer, int32_t head,
                      int32_t side, kv_side_plan *plan_out)
{
    (void)policy;
    (void)layer;
    (void)head;
    (void)side;
    *plan_out = (kv_side_plan){
        .n_segments = 1,
        .segments = {{.kind = KERN_PLAIN, .bits = 16, .n_dims = shape->head_dim}},
    };
}

const kv_policy_impl kv_policy_impl_BF16 = {
    .initial = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16},
    .plan_side = plan_side,
};
