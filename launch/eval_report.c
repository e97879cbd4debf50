#include "launch/eval_report.h"

#include "launch/eval_wins.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

static double nats(const eval_result *r)
{
    return r->teacher.nll / (double)r->teacher.n_tokens;
}

static double bits_per_byte(const eval_session *s, const eval_result *r)
{
    return nats(r) / log(2.0) * (double)s->text_tokens / (double)s->text_bytes;
}

/* Means over the rows of a comparison; the reference has none and is at no distance from itself. */
static eval_gap gap_means(const eval_gap *sum)
{
    const double n = (double)sum->n_rows;
    if (sum->n_rows == 0) {
        return (eval_gap){.top1 = 1.0, .top10 = 1.0};
    }
    return (eval_gap){.abs_error = sum->abs_error / n,
                      .kl = sum->kl / n,
                      .top1 = sum->top1 / n,
                      .top10 = sum->top10 / n,
                      .n_rows = sum->n_rows};
}

static eval_attn_mae layer_means(const eval_session *s, const eval_result *r)
{
    const int32_t n_layers = s->model->config.n_layers;
    eval_attn_mae mean = {0.0, 0.0};
    for (int32_t l = 0; l < n_layers; l++) {
        mean.offsets += r->layers[l].offsets / n_layers;
        mean.pairs += r->layers[l].pairs / n_layers;
    }
    return mean;
}

static int32_t right_of_length(const eval_session *s, const eval_result *r, int32_t length)
{
    int32_t n = 0;
    for (int32_t d = 0; d < s->options.n_depths; d++) {
        n += r->right[length][d];
    }
    return n;
}

static void print_head(void)
{
    (void)printf("%11s  %-14s  %-31s", "bytes/token", "K, V bits", "policy");
}

static void print_start(const eval_result *r)
{
    char bits[32];
    (void)snprintf(bits, sizeof bits, "%.3f, %.3f", r->k_bits, r->v_bits);
    (void)printf("%11.1f  %-14s  %-31s", r->bytes_per_token, bits, r->policy);
}

static void print_text(const eval_session *s)
{
    const eval_options *o = &s->options;
    (void)printf("\ntext %s: %" PRId64 " tokens, %" PRId64 " bytes, windows of %d\n", o->text,
                 s->text_tokens, s->text_bytes, o->window);
    print_head();
    (void)printf("  nats/token  bits/byte%s\n",
                 o->logits ? "  logit error        KL    top 1   top 10" : "");
    for (int32_t i = 0; i < o->n_policies; i++) {
        const eval_result *r = &s->results[i];
        print_start(r);
        (void)printf("  %10.4f  %9.4f", nats(r), bits_per_byte(s, r));
        if (o->logits) {
            const eval_gap gap = gap_means(&r->teacher.gap);
            (void)printf("  %11.4f  %8.5f  %6.2f%%  %6.2f%%", gap.abs_error, gap.kl,
                         100.0 * gap.top1, 100.0 * gap.top10);
        }
        (void)printf("\n");
    }
}

static void print_layers(const eval_session *s)
{
    const int32_t n_layers = s->model->config.n_layers;
    (void)printf("\nattention logits, mean absolute error by layer (no 1/sqrt(D)): 'offsets' one "
                 "token's query and "
                 "key at %d\noffsets in -%d..%d, 'pairs' real positions, keys in earlier blocks\n",
                 EVAL_OFFSETS, EVAL_MAX_OFFSET, EVAL_MAX_OFFSET);
    print_head();
    (void)printf("  %-7s  %8s", "measure", "mean");
    for (int32_t l = 0; l < n_layers; l++) {
        (void)printf("  %8d", l);
    }
    (void)printf("\n");
    for (int32_t i = 0; i < 2 * s->options.n_policies; i++) {
        const eval_result *r = &s->results[i / 2];
        const bool pairs = i % 2 == 1;
        const eval_attn_mae mean = layer_means(s, r);
        print_start(r);
        (void)printf("  %-7s  %8.4f", pairs ? "pairs" : "offsets",
                     pairs ? mean.pairs : mean.offsets);
        for (int32_t l = 0; l < n_layers; l++) {
            (void)printf("  %8.4f", pairs ? r->layers[l].pairs : r->layers[l].offsets);
        }
        (void)printf("\n");
    }
}

static void print_win(const eval_session *s, int32_t policy, bool pairs, bool true_bits)
{
    char cell[32];
    eval_wins wins;
    if (eval_wins_find(s, policy, pairs, true_bits, &wins)) {
        (void)snprintf(cell, sizeof cell, "%d/%d", wins.n_layers, s->model->config.n_layers);
        (void)printf("  %8s  %7.1f%%", cell, 100.0 * wins.cut);
    } else {
        (void)printf("  %8s  %8s", "-", "-");
    }
}

/* A row for each policy that has a tq to compare with. */
static void print_wins(const eval_session *s)
{
    (void)printf("\nthe same against uniform tq: layers won and cut of the mean error, at the same "
                 "nominal bits of K and at\nthe same true bits (tq between two widths: in logs)\n");
    print_head();
    (void)printf("  %-7s  %8s  %8s  %8s  %8s\n", "measure", "nominal", "cut", "true", "cut");
    for (int32_t i = 0; i < 2 * s->options.n_policies; i++) {
        const bool pairs = i % 2 == 1;
        eval_wins unused;
        if (!eval_wins_find(s, i / 2, pairs, false, &unused) &&
            !eval_wins_find(s, i / 2, pairs, true, &unused)) {
            continue;
        }
        print_start(&s->results[i / 2]);
        (void)printf("  %-7s", pairs ? "pairs" : "offsets");
        print_win(s, i / 2, pairs, false);
        print_win(s, i / 2, pairs, true);
        (void)printf("\n");
    }
}

static void print_right(int32_t right, int32_t total)
{
    char cell[32];
    (void)snprintf(cell, sizeof cell, "%d/%d", right, total);
    (void)printf("  %8s", cell);
}

static void print_needle(const eval_session *s)
{
    const eval_options *o = &s->options;
    (void)printf(
        "\nneedle: right answers by depth and length in tokens; %d number%s hidden, seed %" PRIu64
        "\n",
        o->n_keys, o->n_keys == 1 ? "" : "s", o->seed);
    print_head();
    (void)printf("  depth");
    for (int32_t l = 0; l < o->n_lengths; l++) {
        (void)printf("  %8d", o->lengths[l]);
    }
    (void)printf("\n");
    for (int32_t i = 0; i < o->n_policies; i++) {
        const eval_result *r = &s->results[i];
        for (int32_t d = 0; d < o->n_depths; d++) {
            print_start(r);
            (void)printf("  %4.0f%%", 100.0 * eval_session_depth(o, d));
            for (int32_t l = 0; l < o->n_lengths; l++) {
                print_right(r->right[l][d], o->n_trials);
            }
            (void)printf("\n");
        }
        print_start(r);
        (void)printf("    all");
        for (int32_t l = 0; l < o->n_lengths; l++) {
            print_right(right_of_length(s, r, l), o->n_depths * o->n_trials);
        }
        (void)printf("\n");
    }
}

static void print_task(const eval_session *s)
{
    (void)printf("\ntask %s: mean score of %d questions\n", s->options.task, s->n_items);
    print_head();
    (void)printf("   score\n");
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        print_start(&s->results[i]);
        (void)printf("  %6.4f\n", s->results[i].task_score);
    }
}

void eval_report_tables(const eval_session *s)
{
    const model_config *c = &s->model->config;
    (void)printf("model %s: %d layers, %d KV heads of %d; bytes/token and bits count codes, norms "
                 "and padding\n",
                 s->model->name, c->n_layers, c->n_kv_heads, c->head_dim);
    if (s->options.text != NULL) {
        print_text(s);
    }
    if (s->options.logits) {
        print_layers(s);
        print_wins(s);
    }
    if (s->options.n_lengths > 0) {
        print_needle(s);
    }
    if (s->options.task != NULL) {
        print_task(s);
    }
}

/* JSON knows no NaN. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *json_layers(const eval_session *s, const eval_result *r, bool pairs)
{
    json_t *list = json_array();
    for (int32_t l = 0; l < s->model->config.n_layers; l++) {
        (void)json_array_append_new(list,
                                    number(pairs ? r->layers[l].pairs : r->layers[l].offsets));
    }
    return list;
}

static json_t *json_win(const eval_session *s, int32_t policy, bool pairs, bool true_bits)
{
    eval_wins wins;
    return eval_wins_find(s, policy, pairs, true_bits, &wins)
               ? json_pack("{s:i, s:o}", "layers_won", wins.n_layers, "cut", number(wins.cut))
               : json_null();
}

static json_t *json_wins(const eval_session *s, int32_t policy, bool pairs)
{
    return json_pack("{s:o, s:o}", "nominal", json_win(s, policy, pairs, false), "true_bits",
                     json_win(s, policy, pairs, true));
}

static json_t *json_right(const eval_session *s, const eval_result *r)
{
    json_t *lengths = json_array();
    for (int32_t l = 0; l < s->options.n_lengths; l++) {
        json_t *depths = json_array();
        for (int32_t d = 0; d < s->options.n_depths; d++) {
            (void)json_array_append_new(depths, json_integer(r->right[l][d]));
        }
        (void)json_array_append_new(lengths, depths);
    }
    return lengths;
}

static json_t *json_policy(const eval_session *s, int32_t policy)
{
    const eval_result *r = &s->results[policy];
    const eval_options *o = &s->options;
    json_t *out = json_pack("{s:s, s:f, s:{s:f, s:f}}", "policy", r->policy, "bytes_per_token",
                            r->bytes_per_token, "bits_per_element", "k", r->k_bits, "v", r->v_bits);
    if (o->text != NULL) {
        (void)json_object_set_new(out, "text",
                                  json_pack("{s:o, s:o, s:I}", "nats_per_token", number(nats(r)),
                                            "bits_per_byte", number(bits_per_byte(s, r)), "tokens",
                                            (json_int_t)r->teacher.n_tokens));
    }
    if (o->logits) {
        const eval_gap gap = gap_means(&r->teacher.gap);
        (void)json_object_set_new(
            out, "logits",
            json_pack("{s:o, s:o, s:o, s:o, s:{s:o, s:o}, s:{s:o, s:o}}", "abs_error",
                      number(gap.abs_error), "kl", number(gap.kl), "top1", number(gap.top1),
                      "top10", number(gap.top10), "attention_mae", "offsets",
                      json_layers(s, r, false), "pairs", json_layers(s, r, true), "against_tq",
                      "offsets", json_wins(s, policy, false), "pairs", json_wins(s, policy, true)));
    }
    if (o->n_lengths > 0) {
        (void)json_object_set_new(out, "needle", json_pack("{s:o}", "right", json_right(s, r)));
    }
    if (o->task != NULL) {
        (void)json_object_set_new(out, "task", json_pack("{s:o}", "score", number(r->task_score)));
    }
    return out;
}

static json_t *json_needle(const eval_options *o)
{
    json_t *lengths = json_array();
    json_t *depths = json_array();
    for (int32_t l = 0; l < o->n_lengths; l++) {
        (void)json_array_append_new(lengths, json_integer(o->lengths[l]));
    }
    for (int32_t d = 0; d < o->n_depths; d++) {
        (void)json_array_append_new(depths, json_real(eval_session_depth(o, d)));
    }
    return json_pack("{s:o, s:o, s:i, s:i, s:I}", "lengths", lengths, "depths", depths, "trials",
                     o->n_trials, "keys", o->n_keys, "seed", (json_int_t)o->seed);
}

base_status eval_report_json(const eval_session *s)
{
    const eval_options *o = &s->options;
    char hash[BASE_HASH_TEXT_BYTES];
    json_t *policies = json_array();
    base_hash_text(s->model->hash, hash);
    for (int32_t i = 0; i < o->n_policies; i++) {
        (void)json_array_append_new(policies, json_policy(s, i));
    }
    json_t *root = json_pack("{s:s, s:s, s:o}", "model", s->model->name, "model_hash", hash,
                             "policies", policies);
    if (root == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "JSON of the results");
    }
    if (o->text != NULL) {
        (void)json_object_set_new(root, "text",
                                  json_pack("{s:s, s:I, s:I, s:i}", "file", o->text, "tokens",
                                            (json_int_t)s->text_tokens, "bytes",
                                            (json_int_t)s->text_bytes, "window", o->window));
    }
    if (o->n_lengths > 0) {
        (void)json_object_set_new(root, "needle", json_needle(o));
    }
    if (o->task != NULL) {
        (void)json_object_set_new(
            root, "task", json_pack("{s:s, s:i}", "file", o->task, "questions", s->n_items));
    }
    const int rc = json_dumpf(root, stdout, JSON_REAL_PRECISION(9));
    json_decref(root);
    (void)printf("\n");
    return rc == 0 ? BASE_OK : BASE_FAIL(BASE_IO, "cannot write to stdout");
}
