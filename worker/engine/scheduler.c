#include "worker/engine/scheduler.h"

#include "kernels/page.h"

/* Tokens of its prompt that s takes of `budget`. */
static int64_t prompt_part(const sched_seq *s, int64_t budget)
{
    const int64_t left = s->n_prompt - s->position;
    if (left <= budget) {
        if (s->has_credit) {
            return left;
        }
        /* All but the block that would end in a token. */
        const int64_t end = (s->n_prompt - 1) / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
        return end > s->position ? end - s->position : 0;
    }
    const int64_t end = (s->position + budget) / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
    return end > s->position ? end - s->position : 0;
}

int32_t scheduler_choose(const sched_seq *seqs, int32_t n_seqs, int32_t prefill_chunk,
                         sched_pick *picks_out)
{
    int32_t n_picks = 0;
    int64_t budget = prefill_chunk;

    for (int32_t i = 0; i < n_seqs; i++) {
        if (seqs[i].position >= seqs[i].n_prompt && seqs[i].has_credit) {
            picks_out[n_picks++] = (sched_pick){i, 1, true};
        }
    }
    for (int32_t i = 0; i < n_seqs && budget > 0; i++) {
        if (seqs[i].position >= seqs[i].n_prompt) {
            continue;
        }
        const int64_t n = prompt_part(&seqs[i], budget);
        if (n > 0) {
            picks_out[n_picks++] =
                (sched_pick){i, (int32_t)n, seqs[i].position + n == seqs[i].n_prompt};
            budget -= n;
        }
    }
    return n_picks;
}
