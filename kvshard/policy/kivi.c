/* KIVI (arXiv 2402.02750): affine codes in the model's own basis.  K shares a scale and a min along positions,
 * because K has channels that are large everywhere; V shares them along channels.
 *
 * What differs from the paper: its residual of R positions slides one by one for V and in steps of R for K;
 * here both are whole blocks, the open one and `window` positions before it, which is never less than
 * KIVI keeps with R = window.  It has no sinks; the variant KIVI-KV2* keeps 32 positions, for which s=128
 * stands: a K group must not be stretched by sinks, and blocks begin at multiples of 128 for every policy. */
#include "kvshard/policy/policy_impl.h"

static void plan_side(const kv_policy *policy, const kv_shape *shape, int32_t layer, int32_t head,
                      int32_t side, kv_side_plan *plan_out)
{
    const int32_t bits = side == 0 ? policy->k_bits : policy->v_bits;
    const kern_segment_kind affine = side == 0 ? KERN_AFFINE_CHANNEL : KERN_AFFINE_POSITION;
    const bool fits = side == 0 || policy->group <= shape->head_dim;
    (void)layer;
    (void)head;
    *plan_out = (kv_side_plan){
        .n_segments = 1,
        .segments = {{.kind = bits == 16 ? KERN_PLAIN : affine,
                      .bits = bits,
                      .n_dims = shape->head_dim,
                      .group = fits ? policy->group : shape->head_dim}},
    };
}

static const int32_t widths[] = {2, 4, 8, 16};
static const int32_t groups[] = {32, 64, 128};
static const int32_t windows[] = {0, 128, 256, 384, 512, 640, 768, 896, 1024};
static const int32_t sinks[] = {0, 128};

static const kv_policy_key keys[] = {
    {.name = "k", .offset = offsetof(kv_policy, k_bits), .only = widths, .n_only = 4},
    {.name = "v", .offset = offsetof(kv_policy, v_bits), .only = widths, .n_only = 4},
    {.name = "g", .offset = offsetof(kv_policy, group), .only = groups, .n_only = 3},
    {.name = "w", .offset = offsetof(kv_policy, window), .only = windows, .n_only = 9},
    {.name = "s", .offset = offsetof(kv_policy, sinks), .only = sinks, .n_only = 2},
};

const kv_policy_impl kv_policy_impl_KIVI = {
    .initial = {.kind = KV_POLICY_KIVI, .k_bits = 2, .v_bits = 2, .group = 32, .window = 128},
    .keys = keys,
    .n_keys = 5,
    .plan_side = plan_side,
};
