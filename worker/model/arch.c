#include "worker/model/arch.h"

static const arch *const table[] = {
#define X(NAME, impl, model_type, class_name) &arch_##impl,
#include "worker/model/archs.def"
#undef X
};

const arch *arch_of(model_arch id)
{
    return table[id];
}
