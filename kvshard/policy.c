#include "kvshard/policy.h"

#include "base/view.h"
#include "kvshard/policy/policy_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAX_KEYS 31 /* of one policy: bits of `seen`, with one for calib */
#define CALIB    "calib"

static const struct {
    const char *name;
    const kv_policy_impl *impl;
} policies[] = {
#define X(name, text) {text, &kv_policy_impl_##name},
#include "kvshard/policies.def"
#undef X
};

#define N_POLICIES ((int32_t)(sizeof policies / sizeof policies[0]))

const kv_policy_impl *kv_policy_impl_of(kv_policy_kind kind)
{
    return policies[kind].impl;
}

/* Cuts *rest at the first `mark`: what stands before it, and what follows. */
static base_view cut(base_view *rest, char mark)
{
    base_view head = *rest;
    const char *at = rest->n_bytes == 0 ? NULL : memchr(rest->data, mark, rest->n_bytes);
    if (at == NULL) {
        *rest = (base_view){NULL, 0};
    } else {
        head.n_bytes = (size_t)(at - head.data);
        *rest = (base_view){at + 1, rest->n_bytes - head.n_bytes - 1};
    }
    return head;
}

/* Text in an error, cut to a length that leaves room for the rest. */
#define SHOWN(view) \
    ((view).n_bytes > 40 ? 40 : (int)(view).n_bytes), ((view).data == NULL ? "" : (view).data)

/* Names as "a, b, c". */
static void add_name(char *list, size_t n_bytes, const char *name)
{
    const size_t used = strlen(list);
    (void)snprintf(list + used, n_bytes - used, "%s%s", used == 0 ? "" : ", ", name);
}

static base_status fail_unknown_policy(base_view name)
{
    char known[256] = "";
    for (int32_t i = 0; i < N_POLICIES; i++) {
        add_name(known, sizeof known, policies[i].name);
    }
    return BASE_FAIL(BASE_BAD_INPUT, "policy '%.*s' is unknown; known are %s", SHOWN(name), known);
}

static base_status fail_unknown_key(const char *policy, const kv_policy_impl *impl, base_view key)
{
    char known[256] = "";
    for (int32_t i = 0; i < impl->n_keys; i++) {
        add_name(known, sizeof known, impl->keys[i].name);
    }
    if (impl->calibration != NULL) {
        add_name(known, sizeof known, CALIB);
    }
    return BASE_FAIL(BASE_BAD_INPUT, "policy %s: key '%.*s' is unknown; known are %s", policy,
                     SHOWN(key), impl->n_keys == 0 ? "none" : known);
}

/* Digits only, so that one value has one spelling but for leading zeros.  -1: not a number, or above
 * what any key allows. */
static int32_t read_number(base_view text)
{
    int32_t value = 0;
    if (text.n_bytes == 0) {
        return -1;
    }
    for (size_t i = 0; i < text.n_bytes; i++) {
        const char c = text.data[i];
        if (c < '0' || c > '9' || value > 1000000) {
            return -1;
        }
        value = 10 * value + (c - '0');
    }
    return value;
}

/* The file's name is no part of kv_policy: kv_policy_calib finds it again. */
static base_status check_calib(const char *name, base_view value, uint32_t *seen)
{
    if ((*seen & 1u << MAX_KEYS) != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "policy %s: calib is given twice", name);
    }
    *seen |= 1u << MAX_KEYS;
    return value.n_bytes > 0 ? BASE_OK
                             : BASE_FAIL(BASE_BAD_INPUT, "policy %s: calib names no file", name);
}

static bool is_allowed(const kv_policy_key *key, int32_t number)
{
    for (int32_t i = 0; i < key->n_only; i++) {
        if (number == key->only[i]) {
            return true;
        }
    }
    return key->only == NULL &&
           ((number >= key->low && number <= key->high) || number == key->also);
}

static void add_allowed(char *list, size_t n_bytes, const kv_policy_key *key)
{
    for (int32_t i = 0; i < key->n_only; i++) {
        char number[16];
        (void)snprintf(number, sizeof number, "%d", key->only[i]);
        add_name(list, n_bytes, number);
    }
    if (key->only == NULL) {
        (void)snprintf(list, n_bytes, "%d..%d", key->low, key->high);
        if (key->also < key->low || key->also > key->high) {
            const size_t used = strlen(list);
            (void)snprintf(list + used, n_bytes - used, " or %d", key->also);
        }
    }
}

static base_status set_key(const char *name, const kv_policy_impl *impl, base_view key,
                           base_view value, uint32_t *seen, kv_policy *policy)
{
    if (impl->calibration != NULL && base_view_equal(key, base_view_of(CALIB))) {
        return check_calib(name, value, seen);
    }
    for (int32_t i = 0; i < impl->n_keys; i++) {
        const kv_policy_key *known = &impl->keys[i];
        if (!base_view_equal(key, base_view_of(known->name))) {
            continue;
        }
        if (known->flag && value.data == NULL) {
            value = base_view_of("1");
        }
        if ((*seen & 1u << i) != 0) {
            return BASE_FAIL(BASE_BAD_INPUT, "policy %s: %s is given twice", name, known->name);
        }
        *seen |= 1u << i;
        const int32_t number = read_number(value);
        if (!is_allowed(known, number)) {
            char allowed[128] = "";
            add_allowed(allowed, sizeof allowed, known);
            return BASE_FAIL(BASE_BAD_INPUT, "policy %s: %s is %.*s, allowed %s", name, known->name,
                             SHOWN(value), allowed);
        }
        memcpy((char *)policy + known->offset, &number, sizeof number);
        return BASE_OK;
    }
    return fail_unknown_key(name, impl, key);
}

base_status kv_policy_parse(const char *text, kv_policy *policy_out)
{
    base_view rest = base_view_of(text);
    const base_view name = cut(&rest, ':');
    int32_t i = 0;

    while (i < N_POLICIES && !base_view_equal(name, base_view_of(policies[i].name))) {
        i++;
    }
    if (i == N_POLICIES) {
        return fail_unknown_policy(name);
    }
    const kv_policy_impl *impl = policies[i].impl;
    assert(impl->n_keys <= MAX_KEYS);

    kv_policy policy = impl->initial;
    uint32_t seen = 0;
    while (rest.data != NULL) { /* a ':' or ',' went before: a pair must follow */
        base_view value = cut(&rest, ',');
        const base_view key = cut(&value, '=');
        const base_status st = set_key(policies[i].name, impl, key, value, &seen, &policy);
        if (st != BASE_OK) {
            return st;
        }
    }
    *policy_out = policy;
    return BASE_OK;
}

base_view kv_policy_calib(const char *text)
{
    base_view rest = base_view_of(text);
    (void)cut(&rest, ':');
    while (rest.data != NULL) {
        base_view value = cut(&rest, ',');
        const base_view key = cut(&value, '=');
        if (base_view_equal(key, base_view_of(CALIB))) {
            return value;
        }
    }
    return (base_view){NULL, 0};
}

void kv_policy_text(const kv_policy *policy, char text_out[KV_MAX_POLICY_TEXT])
{
    const kv_policy_impl *impl = kv_policy_impl_of(policy->kind);
    int n = snprintf(text_out, KV_MAX_POLICY_TEXT, "%s", policies[policy->kind].name);
    char mark = ':';

    for (int32_t i = 0; i < impl->n_keys; i++) {
        int32_t value;
        memcpy(&value, (const char *)policy + impl->keys[i].offset, sizeof value);
        if (impl->keys[i].flag && value == 0) {
            continue;
        }
        n += snprintf(text_out + n, (size_t)(KV_MAX_POLICY_TEXT - n), "%c%s=%d", mark,
                      impl->keys[i].name, value);
        assert(n < KV_MAX_POLICY_TEXT);
        mark = ',';
    }
}
