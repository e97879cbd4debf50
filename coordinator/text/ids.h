/* coordinator/text/ids.h - adding to text_ids, whose type is public in tokenizer.h. */
#ifndef COORDINATOR_TEXT_IDS_H
#define COORDINATOR_TEXT_IDS_H

#include "coordinator/text/tokenizer.h"

/* All or nothing.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_ids_add(text_ids *ids, const int32_t *more, size_t n_more);

#endif /* COORDINATOR_TEXT_IDS_H */
