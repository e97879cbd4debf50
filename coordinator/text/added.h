/* coordinator/text/added.h - finding added tokens in text: leftmost, then longest.
 *
 * A trie over the bytes of the tokens.
 * Time.    O(bytes searched x longest token), in practice O(bytes): a search leaves the trie at
 *          the first byte that no token continues with.
 * Threads. Only read after init. */
#ifndef COORDINATOR_TEXT_ADDED_H
#define COORDINATOR_TEXT_ADDED_H

#include "base/view.h"
#include "coordinator/text/pairs.h"

#include <stdbool.h>

#define TEXT_MAX_ADDED       65536
#define TEXT_MAX_ADDED_BYTES 256 /* of one token */

typedef struct text_added_token {
    base_view bytes; /* 1..TEXT_MAX_ADDED_BYTES */
    int32_t id;
    bool special;
} text_added_token;

typedef struct text_added_leaf {
    int32_t id; /* -1: no token ends here */
    bool special;
} text_added_leaf;

typedef struct text_added {
    text_pairs edges;       /* (node, byte) -> node; node 0 is the root */
    text_added_leaf *leafs; /* [node] */
    bool starts[256];       /* bytes that some token starts with */
    base_alloc mem;
} text_added;

/* Ended with text_added_reset; so may be a zeroed text_added whose mem and edges.mem are set.
 * Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_added_init(text_added *added, const text_added_token *tokens,
                                            size_t n_tokens, const base_alloc *mem);
void text_added_reset(text_added *added);

typedef struct text_added_match {
    size_t begin; /* text.n_bytes if there is none */
    size_t end;
    int32_t id;
} text_added_match;

/* The first match at or after from.  Special tokens count only with_special. */
text_added_match text_added_find(const text_added *added, base_view text, size_t from,
                                 bool with_special);

#endif /* COORDINATOR_TEXT_ADDED_H */
