/* TurboQuant-MSE (arXiv 2504.19874, Algorithm 1): one codebook segment over the whole head, in a basis
 * turned by random signs and a Hadamard transform, with one corrected norm per position. */
#include "kvshard/policy/policy_impl.h"

static void plan_side(const kv_policy *policy, const kv_shape *shape, int32_t layer, int32_t head,
                      int32_t side, kv_side_plan *plan_out)
{
    const int32_t bits = side == 0 ? policy->k_bits : policy->v_bits;
    (void)layer;
    (void)head;
    *plan_out = (kv_side_plan){
        .rotated = bits != 16,
        .n_segments = 1,
        .segments = {{.kind = bits == 16 ? KERN_PLAIN : KERN_CODEBOOK,
                      .bits = bits,
                      .n_dims = shape->head_dim}},
    };
}

static const kv_policy_key keys[] = {
    {.name = "k", .offset = offsetof(kv_policy, k_bits), .low = 2, .high = 8, .also = 16},
    {.name = "v", .offset = offsetof(kv_policy, v_bits), .low = 2, .high = 8, .also = 16},
};

const kv_policy_impl kv_policy_impl_TQ = {
    .initial = {.kind = KV_POLICY_TQ, .k_bits = 4, .v_bits = 4},
    .keys = keys,
    .n_keys = 2,
    .plan_side = plan_side,
};
