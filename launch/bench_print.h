/* launch/bench_print.h - what a benchmark found, as tables for people. */
#ifndef LAUNCH_BENCH_PRINT_H
#define LAUNCH_BENCH_PRINT_H

#include <jansson.h>

/* To standard output.  root: the JSON object of any `ropewalk bench`, whose "bench" names it. */
void bench_print(const json_t *root);

#endif /* LAUNCH_BENCH_PRINT_H */
