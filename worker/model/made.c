#include "worker/model/made.h"

#include <stdint.h>

#define TENSORS_PER_PART 64

/* Tensors in the order they were made; a list of parts, since their number is not known before. */
struct made_part {
    made_part *next;
    void *tensors[TENSORS_PER_PART];
    int32_t n_tensors;
};

void *made_tensors_add(made_tensors *m, size_t n_bytes)
{
    if (m->parts == NULL || m->parts->n_tensors == TENSORS_PER_PART) {
        made_part *p = m->mem.get(m->mem.ctx, sizeof *p);
        if (p == NULL) {
            return NULL;
        }
        p->next = m->parts;
        m->parts = p;
    }
    void *tensor = m->mem.get(m->mem.ctx, n_bytes);
    if (tensor != NULL) {
        m->parts->tensors[m->parts->n_tensors++] = tensor;
    }
    return tensor;
}

void made_tensors_reset(made_tensors *m)
{
    while (m->parts != NULL) {
        made_part *p = m->parts;
        m->parts = p->next;
        for (int32_t i = 0; i < p->n_tensors; i++) {
            m->mem.put(m->mem.ctx, p->tensors[i]);
        }
        m->mem.put(m->mem.ctx, p);
    }
}
