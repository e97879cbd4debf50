#include "base/options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <popt.h>
#include <stdlib.h>
#include <string.h>

#define HELP_ID       (BASE_MAX_OPTIONS + 1)
#define MAX_NAME      64
#define SHOWN_IN_FULL 100 /* bytes of a value in an error */

/* popt's number of option i is i + 1: it keeps 0 and -1 for itself. */
static const base_option *option_of(const base_command *command, int id)
{
    return &command->options[id - 1];
}

static const base_option *argument_of(const base_command *command)
{
    for (size_t i = 0; i < command->n_options; i++) {
        if (command->options[i].name == NULL) {
            return &command->options[i];
        }
    }
    return NULL;
}

/* How errors call it: "--threads", or "MODEL_FOLDER". */
static void name_write(const base_option *option, char name_out[MAX_NAME])
{
    (void)snprintf(name_out, MAX_NAME, "%s%s", option->name != NULL ? "--" : "",
                   option->name != NULL ? option->name : option->argument);
}

base_status base_option_number(const char *name, const char *text, int64_t low, int64_t high,
                               int64_t *value_out)
{
    char *end = NULL;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < low || value > high) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s is %.*s, allowed %lld..%lld", name, SHOWN_IN_FULL,
                         *text != '\0' ? text : "empty", (long long)low, (long long)high);
    }
    *value_out = value;
    return BASE_OK;
}

static base_status real_read(const base_option *o, const char *name, const char *text,
                             double *value_out)
{
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < o->real_low ||
        value > o->real_high || (o->above && value <= o->real_low)) {
        const char *shown = *text != '\0' ? text : "empty";
        return o->above ? BASE_FAIL(BASE_BAD_INPUT, "%s is %.*s, allowed above %g, up to %g", name,
                                    SHOWN_IN_FULL, shown, o->real_low, o->real_high)
                        : BASE_FAIL(BASE_BAD_INPUT, "%s is %.*s, allowed %g..%g", name,
                                    SHOWN_IN_FULL, shown, o->real_low, o->real_high);
    }
    *value_out = value;
    return BASE_OK;
}

/* choices is "cpu, cuda". */
static bool is_choice(const char *choices, const char *text)
{
    const size_t n_bytes = strlen(text);
    for (const char *at = choices;; at += 2) {
        const size_t n = strcspn(at, ",");
        if (n == n_bytes && memcmp(at, text, n) == 0) {
            return true;
        }
        at += n;
        if (*at == '\0') {
            return false;
        }
    }
}

static base_status text_check(const base_option *o, const char *name, const char *text)
{
    if (o->low > 0 && *text == '\0') {
        return BASE_FAIL(BASE_BAD_INPUT, "%s is empty", name);
    }
    if (o->choices != NULL && !is_choice(o->choices, text)) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s is '%.*s', allowed %s", name, SHOWN_IN_FULL, text,
                         o->choices);
    }
    return BASE_OK;
}

/* text is NULL for a flag. */
static base_status field_fill(const base_option *o, const char *text, void *into)
{
    base_status st = BASE_OK;
    char name[MAX_NAME];
    void *field = (char *)into + o->offset;
    int64_t number = 0;

    name_write(o, name);
    switch (o->kind) {
    case BASE_OPTION_IS_FLAG: *(bool *)field = true; break;
    case BASE_OPTION_IS_TEXT:
        BASE_TRY(st, out, text_check(o, name, text));
        *(const char **)field = text;
        break;
    case BASE_OPTION_IS_LIST: break; /* lists_fill: it takes all of them at once */
    case BASE_OPTION_IS_I32:
        BASE_TRY(st, out, base_option_number(name, text, o->low, o->high, &number));
        *(int32_t *)field = (int32_t)number;
        break;
    case BASE_OPTION_IS_I64: st = base_option_number(name, text, o->low, o->high, field); break;
    case BASE_OPTION_IS_REAL: st = real_read(o, name, text, field); break;
    }
out:
    return st;
}

/* What popt is told.  defaults: the struct whose values --help shows; NULL while a line is read, when popt
 * hands over every value as text. */
static void table_make(const base_command *command, const void *defaults,
                       struct poptOption table[BASE_MAX_OPTIONS + 2])
{
    size_t n = 0;
    assert(command->n_options <= BASE_MAX_OPTIONS);
    for (size_t i = 0; i < command->n_options; i++) {
        const base_option *o = &command->options[i];
        if (o->name == NULL) {
            continue;
        }
        /* popt only reads through it, when it shows a default. */
        void *field = (void *)((uintptr_t)defaults + o->offset);
        unsigned int how = o->kind == BASE_OPTION_IS_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING;
        bool shown = false;
        if (defaults != NULL && o->kind == BASE_OPTION_IS_TEXT) {
            shown = *(const char **)field != NULL;
        } else if (defaults != NULL && o->kind == BASE_OPTION_IS_I32) {
            how = POPT_ARG_INT;
            shown = *(int32_t *)field >= o->low && *(int32_t *)field <= o->high;
        } else if (defaults != NULL && o->kind == BASE_OPTION_IS_I64) {
            how = POPT_ARG_LONGLONG;
            shown = *(int64_t *)field >= o->low && *(int64_t *)field <= o->high;
        } else if (defaults != NULL && o->kind == BASE_OPTION_IS_REAL) {
            how = POPT_ARG_DOUBLE;
            shown = *(double *)field >= o->real_low && *(double *)field <= o->real_high;
        }
        table[n++] = (struct poptOption){.longName = o->name,
                                         .shortName = o->letter,
                                         .argInfo = how | (shown ? POPT_ARGFLAG_SHOW_DEFAULT : 0),
                                         .arg = shown ? field : NULL,
                                         .val = (int)i + 1,
                                         .descrip = o->help,
                                         .argDescrip = o->argument};
    }
    table[n++] = (struct poptOption){.longName = "help",
                                     .shortName = 'h',
                                     .argInfo = POPT_ARG_NONE,
                                     .val = HELP_ID,
                                     .descrip = "this text"};
    table[n] = (struct poptOption)POPT_TABLEEND;
}

/* Every option of the line in order: ids[n], and its text in o->texts[n] (NULL for a flag). */
static base_status line_read(const base_command *command, poptContext popt, int *ids,
                             base_options *o)
{
    int id = 0;
    while ((id = poptGetNextOpt(popt)) > 0) {
        if (id == HELP_ID) {
            o->help = true;
            return BASE_OK;
        }
        ids[o->n_texts] = id;
        o->texts[o->n_texts++] = poptGetOptArg(popt);
    }
    if (id < -1) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s: %s", poptBadOption(popt, POPT_BADOPTION_NOALIAS),
                         poptStrerror(id));
    }
    const base_option *argument = argument_of(command);
    const char *text = poptGetArg(popt);
    if (text != NULL && argument != NULL) {
        const size_t n_bytes = strlen(text) + 1;
        char *copy = base_heap.get(base_heap.ctx, n_bytes); /* as popt's texts */
        if (copy == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "%zu bytes of a command line", n_bytes);
        }
        ids[o->n_texts] = (int)(argument - command->options) + 1;
        o->texts[o->n_texts++] = memcpy(copy, text, n_bytes);
        text = poptGetArg(popt);
    }
    return text == NULL
               ? BASE_OK
               : BASE_FAIL(BASE_BAD_INPUT, "unexpected argument '%.*s'", SHOWN_IN_FULL, text);
}

/* Each list option that is given gets its texts and a NULL out of o->lists. */
static void lists_fill(const base_command *command, const int *ids, base_options *o, void *into)
{
    const char **at = o->lists;
    for (size_t i = 0; i < command->n_options; i++) {
        const base_option *option = &command->options[i];
        const char **begin = at;
        if (option->kind != BASE_OPTION_IS_LIST) {
            continue;
        }
        for (size_t k = 0; k < o->n_texts; k++) {
            if (ids[k] == (int)i + 1) {
                *at++ = o->texts[k];
            }
        }
        if (at != begin) {
            at++; /* NULL already */
            *(const char ***)(void *)((char *)into + option->offset) = begin;
        }
    }
}

static base_status needed_check(const base_command *command, const int *ids, size_t n_ids)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const base_option *o = &command->options[i];
        bool given = !o->needed;
        for (size_t k = 0; k < n_ids && !given; k++) {
            given = ids[k] == (int)i + 1;
        }
        if (!given) {
            char name[MAX_NAME];
            name_write(o, name);
            return BASE_FAIL(BASE_BAD_INPUT, "%s is missing", name);
        }
    }
    return BASE_OK;
}

base_status base_options_read(const base_command *command, int argc, const char *const *argv,
                              const base_alloc *mem, void *into, base_options *options_out)
{
    base_status st = BASE_OK;
    base_options *o = options_out;
    struct poptOption table[BASE_MAX_OPTIONS + 2];
    const size_t n_args = argc > 0 ? (size_t)argc : 1;
    const char **args = NULL;
    int *ids = NULL;
    poptContext popt = NULL;

    *o = (base_options){.mem = *mem};
    args = mem->get(mem->ctx, (n_args + 1) * sizeof *args);
    ids = mem->get(mem->ctx, n_args * sizeof *ids);
    o->texts = mem->get(mem->ctx, n_args * sizeof *o->texts);
    o->lists = mem->get(mem->ctx, (n_args + command->n_options) * sizeof *o->lists);
    if (args == NULL || ids == NULL || o->texts == NULL || o->lists == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "a command line of %zu words", n_args);
        goto out;
    }
    args[0] = command->program;
    for (size_t i = 1; i < n_args; i++) {
        args[i] = argv[i];
    }
    table_make(command, NULL, table);
    popt = poptGetContext(command->program, (int)n_args, args, table, 0);
    if (popt == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "command line");
        goto out;
    }
    BASE_TRY(st, out, line_read(command, popt, ids, o));
    if (o->help) {
        goto out;
    }
    for (size_t i = 0; i < o->n_texts; i++) {
        BASE_TRY(st, out, field_fill(option_of(command, ids[i]), o->texts[i], into));
    }
    lists_fill(command, ids, o, into);
    st = needed_check(command, ids, o->n_texts);

out:
    if (popt != NULL) {
        (void)poptFreeContext(popt);
    }
    mem->put(mem->ctx, ids);
    mem->put(mem->ctx, args);
    return st;
}

void base_options_reset(base_options *o)
{
    for (size_t i = 0; i < o->n_texts; i++) {
        base_heap.put(base_heap.ctx, o->texts[i]); /* popt took it from malloc */
    }
    if (o->mem.put != NULL) {
        o->mem.put(o->mem.ctx, o->texts);
        o->mem.put(o->mem.ctx, o->lists);
    }
    *o = (base_options){.help = false};
}

void base_options_help(const base_command *command, const void *from, FILE *out)
{
    struct poptOption table[BASE_MAX_OPTIONS + 2];
    const char *args[] = {command->program, NULL};

    table_make(command, from, table);
    poptContext popt = poptGetContext(command->program, 1, args, table, 0);
    if (popt != NULL) {
        poptSetOtherOptionHelp(popt, command->usage);
        poptPrintHelp(popt, out, 0);
        (void)poptFreeContext(popt);
    }
}
