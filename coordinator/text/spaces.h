/* coordinator/text/spaces.h - how a SentencePiece-style tokenizer.json writes spaces.
 *
 * In tokens every space is U+2581, and text begins with one more of them, which decoding takes
 * away.  Conversions say so in two ways: a normalizer (Prepend, Replace) or a pre_tokenizer
 * (Metaspace). */
#ifndef COORDINATOR_TEXT_SPACES_H
#define COORDINATOR_TEXT_SPACES_H

#include <stdbool.h>

#define TEXT_SPACE_MARK "\xe2\x96\x81" /* U+2581 */

typedef enum text_space_prefix {
    TEXT_PREFIX_NEVER,
    TEXT_PREFIX_FIRST,  /* only where the text begins */
    TEXT_PREFIX_ALWAYS, /* also behind each added token */
} text_space_prefix;

typedef struct text_spaces {
    text_space_prefix prefix;
    /* By the normalizer: added tokens marked as normalized are looked for in what it made, and a
     * prefix is put even in front of a mark.  By Metaspace: neither. */
    bool by_normalizer;
    bool split; /* no token spans the beginning of a mark */
    bool strip; /* decoding takes one space from the front */
} text_spaces;

#endif /* COORDINATOR_TEXT_SPACES_H */
