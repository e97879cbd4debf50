/* launch/process.h - child programs of one command: started together, ended together.
 *
 * Children get SIGTERM when this process dies, however it dies, so nothing is orphaned.
 * Threads.  main() only, before rpc_init: nothing forks later. */
#ifndef LAUNCH_PROCESS_H
#define LAUNCH_PROCESS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_MAX_PATH 4096

/* The path of a program that lies beside this one.  Errors: NOT_FOUND naming it. */
BASE_MUST_CHECK base_status process_sibling(const char *name, char path_out[PROCESS_MAX_PATH]);

/* Starts argv[0] (looked up in PATH if it has no slash) with this environment.  log_path: where
 * its stdout and stderr go, appended; NULL: this process' stderr.  Errors: IO (argv[0] and reason). */
BASE_MUST_CHECK base_status process_start(char *const argv[], const char *log_path, pid_t *pid_out);

/* A new file for a child to write; path ends with XXXXXX, which become its own.  Errors: IO. */
BASE_MUST_CHECK base_status process_make_file(char *path);

/* What the first line of a log that has `mark`, from byte `begin` on, says behind it.  Empty: none has it, or there is no log,
 * path NULL. */
void process_said(const char *path, long begin, const char *mark, char *text_out, size_t n_bytes);

/* True while it runs; afterwards *exit_out is its exit status, or 128 + signal. */
bool process_alive(pid_t pid, int *exit_out);

/* SIGTERM, up to grace_ms, SIGKILL, reap.  pid <= 0 does nothing. */
void process_end(pid_t pid, int64_t grace_ms);

#endif /* LAUNCH_PROCESS_H */
