#include "kvshard/calibration.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "worker/model/model.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

/* What a user weighs against each other before serving. */
static const char *const shown_policies[] = {"bf16",         "tq:k=8,v=8",   "tq:k=4,v=4",
                                             "tq:k=3,v=3",   "tq:k=2,v=2",   "block-gtq:k=3,v=3",
                                             "kivi:k=4,v=4", "kivi:k=2,v=2", "kivi:k=2,v=2,g=128"};

typedef struct cache_row {
    char policy[KV_MAX_POLICY_TEXT];
    char hash[BASE_HASH_TEXT_BYTES];
    double k_bits, v_bits, bytes_per_token;
    int64_t bytes_at_max_context;
} cache_row;

/* path: of the model's folder.  NOT_FOUND: the policy needs a calibration that is not there. */
static base_status cache_row_make(const model *m, const char *path, const char *text,
                                  cache_row *row_out)
{
    const model_config *c = &m->config;
    kv_calibration *calibration = NULL;
    kv_policy policy;
    kv_format *format = NULL;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};

    base_status st = kv_policy_parse(text, &policy);
    if (st == BASE_OK) {
        st = kv_calibration_open(text, path, m->hash, &shape, &base_heap, &calibration);
    }
    if (st == BASE_OK) {
        st = kv_format_create_calibrated(&policy, &shape, calibration, &base_heap, &format);
        kv_calibration_destroy(calibration);
    }
    if (st != BASE_OK) {
        return st;
    }
    kv_policy_text(&policy, row_out->policy);
    base_hash_text(format->policy_hash, row_out->hash);
    row_out->k_bits = format->k_bits_per_element;
    row_out->v_bits = format->v_bits_per_element;
    row_out->bytes_per_token = kv_format_bytes_per_token(format);
    row_out->bytes_at_max_context = (int64_t)(row_out->bytes_per_token * (double)c->max_context);
    kv_format_destroy(format);
    return BASE_OK;
}

static void print_table(const model *m, const char *hash, const cache_row *rows, size_t n_rows)
{
    const model_config *c = &m->config;
    (void)printf("model       %s (%s)\n", m->name, hash);
    (void)printf("layers      %d, width %d, mlp %d\n", c->n_layers, c->width, c->ffn_width);
    (void)printf("heads       %d query, %d key-value, head dim %d\n", c->n_heads, c->n_kv_heads,
                 c->head_dim);
    (void)printf("vocabulary  %d%s\n", c->n_vocab, c->tied_embeddings ? ", tied head" : "");
    (void)printf("context     %" PRId64 " positions, rope theta %g\n\n", c->max_context,
                 c->rope_theta);
    (void)printf("%-31s %8s %8s %14s %20s\n", "cache", "K bits", "V bits", "bytes a token",
                 "MB at full context");
    for (size_t i = 0; i < n_rows; i++) {
        (void)printf("%-31s %8.3f %8.3f %14.0f %20.1f\n", rows[i].policy, rows[i].k_bits,
                     rows[i].v_bits, rows[i].bytes_per_token,
                     (double)rows[i].bytes_at_max_context / 1e6);
    }
}

static base_status print_json(const model *m, const char *hash, const cache_row *rows,
                              size_t n_rows)
{
    const model_config *c = &m->config;
    json_t *caches = json_array();
    for (size_t i = 0; i < n_rows; i++) {
        (void)json_array_append_new(
            caches, json_pack("{s:s, s:s, s:{s:f, s:f}, s:f, s:I}", "policy", rows[i].policy,
                              "policy_hash", rows[i].hash, "bits_per_element", "k", rows[i].k_bits,
                              "v", rows[i].v_bits, "bytes_per_token", rows[i].bytes_per_token,
                              "bytes_at_max_context", (json_int_t)rows[i].bytes_at_max_context));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:I, s:f, s:o}", "model", m->name,
        "model_hash", hash, "layers", c->n_layers, "width", c->width, "heads", c->n_heads,
        "kv_heads", c->n_kv_heads, "head_dim", c->head_dim, "ffn_width", c->ffn_width, "vocab_size",
        c->n_vocab, "tied_embeddings", c->tied_embeddings, "max_context",
        (json_int_t)c->max_context, "rope_theta", c->rope_theta, "caches", caches);
    if (root == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "JSON of the model");
    }
    const int rc = json_dumpf(root, stdout, JSON_REAL_PRECISION(9));
    json_decref(root);
    (void)printf("\n");
    return rc == 0 ? BASE_OK : BASE_FAIL(BASE_IO, "cannot write to stdout");
}

typedef struct inspect_settings {
    const char *path;
    bool json;
} inspect_settings;

static const base_option table[] = {
    {NULL, 0, "MODEL_FOLDER", "", BASE_OPTION_TEXT(inspect_settings, path), .needed = true},
    {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(inspect_settings, json)},
};
static const base_command command = {"ropewalk inspect", "MODEL_FOLDER [--json]",
                                     BASE_OPTIONS(table)};

int command_inspect(int argc, const char **argv)
{
    enum { N_ROWS = sizeof shown_policies / sizeof shown_policies[0] };
    inspect_settings s = {.json = false};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;
    model *m = NULL;
    cache_row rows[N_ROWS];
    size_t n_rows = 0;
    char hash[BASE_HASH_TEXT_BYTES];

    if (!options_open(&command, argc, argv, &s, &line, &exit_status)) {
        goto out;
    }
    BASE_TRY(st, out, model_open(s.path, &base_heap, &m));
    for (size_t i = 0; i < N_ROWS; i++) {
        st = cache_row_make(m, s.path, shown_policies[i], &rows[n_rows]);
        if (st != BASE_OK && st != BASE_NOT_FOUND) { /* without calibration the row is left out */
            goto out;
        }
        n_rows += st == BASE_OK;
    }
    st = BASE_OK;
    base_hash_text(m->hash, hash);
    if (s.json) {
        st = print_json(m, hash, rows, n_rows);
    } else {
        print_table(m, hash, rows, n_rows);
    }
out:
    model_close(m);
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    base_options_reset(&line);
    return exit_status;
}
