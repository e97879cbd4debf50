/* base/options.h - the command line of a program or of one of its verbs, over popt.
 *
 *   typedef struct settings { const char *model; int32_t ranks; bool json; } settings;
 *   static const base_option table[] = {
 *       {"model", 0, "DIR", "model folder", BASE_OPTION_TEXT(settings, model), .needed = true},
 *       {"ranks", 0, "N", "MPI ranks", BASE_OPTION_I32(settings, ranks, 1, 64)},
 *       {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(settings, json)},
 *   };
 *   static const base_command command = {"ropewalk serve", "--model DIR [options]", BASE_OPTIONS(table)};
 *
 * A field keeps what it held when its option is not given: that is the default, and --help shows it unless it
 * is outside the limits (which then means "not given").  Every program has --help and -h; --help wins over
 * whatever else is on the line and is right.
 * Threads.  One at a time: popt is not told of others. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/alloc.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define BASE_MAX_OPTIONS 64

typedef enum base_option_kind {
    BASE_OPTION_IS_FLAG, /* bool, true when given */
    BASE_OPTION_IS_TEXT, /* const char *, NULL when not given */
    BASE_OPTION_IS_LIST, /* const char **, one of each time it is given, then NULL; NULL when never */
    BASE_OPTION_IS_I32,
    BASE_OPTION_IS_I64,
    BASE_OPTION_IS_REAL, /* double, finite */
} base_option_kind;

typedef struct base_option {
    const char *name;     /* without the --; NULL: the one argument that is no option */
    char letter;          /* without the -; 0: none */
    const char *argument; /* how --help calls the value; NULL for a flag */
    const char *help;
    base_option_kind kind; /* this and the rest come from the macros below */
    size_t offset;         /* of the field */
    int64_t low, high;     /* of I32 and I64; low 1 of a TEXT: it may not be empty */
    double real_low, real_high;
    bool above;          /* REAL: real_low itself is not allowed */
    const char *choices; /* TEXT: "cpu, cuda"; NULL: any */
    bool needed;         /* refused without it */
} base_option;

/* What fills a field; the compiler refuses a field of another type. */
#define BASE_OPTION_INTO(type, field, member) \
    .offset = _Generic(&((type *)0)->field, member * : offsetof(type, field))
#define BASE_OPTION_FLAG(type, field) \
    .kind = BASE_OPTION_IS_FLAG, BASE_OPTION_INTO(type, field, bool)
#define BASE_OPTION_TEXT(type, field) \
    .kind = BASE_OPTION_IS_TEXT, BASE_OPTION_INTO(type, field, const char *), .low = 1
#define BASE_OPTION_TEXT_OR_EMPTY(type, field) \
    .kind = BASE_OPTION_IS_TEXT, BASE_OPTION_INTO(type, field, const char *)
#define BASE_OPTION_CHOICE(type, field, list) BASE_OPTION_TEXT(type, field), .choices = (list)
#define BASE_OPTION_LIST(type, field) \
    .kind = BASE_OPTION_IS_LIST, BASE_OPTION_INTO(type, field, const char **)
#define BASE_OPTION_I32(type, field, from, to) \
    .kind = BASE_OPTION_IS_I32, BASE_OPTION_INTO(type, field, int32_t), .low = (from), .high = (to)
#define BASE_OPTION_I64(type, field, from, to) \
    .kind = BASE_OPTION_IS_I64, BASE_OPTION_INTO(type, field, int64_t), .low = (from), .high = (to)
#define BASE_OPTION_REAL(type, field, from, to)                                             \
    .kind = BASE_OPTION_IS_REAL, BASE_OPTION_INTO(type, field, double), .real_low = (from), \
    .real_high = (to)
#define BASE_OPTION_REAL_ABOVE(type, field, from, to) \
    BASE_OPTION_REAL(type, field, from, to), .above = true

typedef struct base_command {
    const char *program; /* "ropewalk serve" */
    const char *usage;   /* after it in the first line of --help; may go on with lines of its own */
    const base_option *options;
    size_t n_options;
} base_command;

#define BASE_OPTIONS(table) (table), sizeof(table) / sizeof((table)[0])

/* What a reading left behind: the texts that fields point to. */
typedef struct base_options {
    bool help; /* asked for: no field was written */
    char **texts;
    size_t n_texts;
    const char **lists;
    base_alloc mem;
} base_options;

/* Fills the fields of *into, a struct of the type that the table names.  argv[0] is not looked at.
 * Ended with base_options_reset once no field is used any more, whatever this returned.
 * Errors: BAD_INPUT naming the option, its value and what is allowed (fields may be written); NO_MEMORY. */
BASE_MUST_CHECK base_status base_options_read(const base_command *command, int argc,
                                              const char *const *argv, const base_alloc *mem,
                                              void *into, base_options *options_out);
void base_options_reset(base_options *o); /* a zeroed struct is allowed */

/* Writes the text of --help; from holds the defaults. */
void base_options_help(const base_command *command, const void *from, FILE *out);

/* A number as options take it: decimal, whole text, low..high.  name is for the error, "--threads".
 * Errors: BAD_INPUT naming name, text and limits. */
BASE_MUST_CHECK base_status base_option_number(const char *name, const char *text, int64_t low,
                                               int64_t high, int64_t *value_out);

#endif /* BASE_OPTIONS_H */
