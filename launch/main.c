/* ropewalk: one program for people.  Each verb is a file of its own. */
#include "kernels/cpu/cpu_library.h"
#include "launch/commands.h"
#include "launch/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, const char **argv);
    const char *text;
} verbs[] = {
    {"serve", command_serve, "start a coordinator and a group of ranks on this machine"},
    {"generate", command_generate, "send one prompt and print what comes back"},
    {"tokenize", command_tokenize, "text on stdin to token ids, or back"},
    {"inspect", command_inspect, "what a model folder holds, and what its cache costs"},
    {"eval", command_eval, "measure policies side by side: text, logits, retrieval, own questions"},
    {"calibrate", command_calibrate, "measure a model for the block-gtq cache"},
    {"doctor", command_doctor, "check this machine, and say what to do about each fault"},
    {"bench", command_bench, "time the attention of one layer, or a whole step, op by op"},
};

#define N_VERBS (sizeof verbs / sizeof verbs[0])

static void help(FILE *out)
{
    (void)fprintf(out, "usage: ropewalk VERB [options]      ropewalk VERB --help\n\n");
    for (size_t i = 0; i < N_VERBS; i++) {
        (void)fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].text);
    }
}

int main(int argc, char **argv)
{
    cpu_library_start_again(getenv("OPENBLAS_CORETYPE"), argv);
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help(stdout);
        return 0;
    }
    for (size_t i = 0; i < N_VERBS; i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            return verbs[i].run(argc - 1, (const char **)(argv + 1));
        }
    }
    (void)fprintf(stderr, "ropewalk: unknown verb '%s'\n\n", argv[1]);
    help(stderr);
    return EXIT_USAGE;
}
