#include "coordinator/text/added.h"

base_status text_added_init(text_added *added, const text_added_token *tokens, size_t n_tokens,
                            const base_alloc *mem)
{
    base_status st = BASE_OK;
    text_added a = {.mem = *mem, .edges.mem = *mem};
    size_t n_nodes_max = 1;
    uint32_t n_nodes = 1;

    for (size_t i = 0; i < n_tokens; i++) {
        n_nodes_max += tokens[i].bytes.n_bytes;
    }
    BASE_TRY(st, out, text_pairs_init(&a.edges, n_nodes_max, mem));
    a.leafs = mem->get(mem->ctx, n_nodes_max * sizeof *a.leafs);
    if (a.leafs == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "trie of %zu added tokens", n_tokens);
        goto out;
    }
    for (size_t i = 0; i < n_nodes_max; i++) {
        a.leafs[i].id = -1;
    }
    for (size_t i = 0; i < n_tokens; i++) {
        const base_view bytes = tokens[i].bytes;
        uint32_t node = 0;
        a.starts[(unsigned char)bytes.data[0]] = true;
        for (size_t b = 0; b < bytes.n_bytes; b++) {
            const unsigned char byte = (unsigned char)bytes.data[b];
            uint64_t next = text_pairs_get(&a.edges, node, byte);
            if (next == TEXT_PAIRS_NONE) {
                next = n_nodes++;
                text_pairs_set(&a.edges, node, byte, next);
            }
            node = (uint32_t)next;
        }
        a.leafs[node] = (text_added_leaf){tokens[i].id, tokens[i].special};
    }
    *added = a;
    return BASE_OK;

out:
    text_added_reset(&a);
    return st;
}

void text_added_reset(text_added *added)
{
    text_pairs_reset(&added->edges);
    added->mem.put(added->mem.ctx, added->leafs);
    added->leafs = NULL;
}

/* The longest token at text[at..); end == at if there is none. */
static text_added_match match_at(const text_added *added, base_view text, size_t at,
                                 bool with_special)
{
    text_added_match best = {at, at, -1};
    uint32_t node = 0;
    for (size_t i = at; i < text.n_bytes; i++) {
        const uint64_t next = text_pairs_get(&added->edges, node, (unsigned char)text.data[i]);
        if (next == TEXT_PAIRS_NONE) {
            break;
        }
        node = (uint32_t)next;
        const text_added_leaf leaf = added->leafs[node];
        if (leaf.id >= 0 && (with_special || !leaf.special)) {
            best.end = i + 1;
            best.id = leaf.id;
        }
    }
    return best;
}

text_added_match text_added_find(const text_added *added, base_view text, size_t from,
                                 bool with_special)
{
    for (size_t at = from; at < text.n_bytes; at++) {
        if (added->starts[(unsigned char)text.data[at]]) {
            const text_added_match m = match_at(added, text, at, with_special);
            if (m.end > at) {
                return m;
            }
        }
    }
    return (text_added_match){text.n_bytes, text.n_bytes, -1};
}
