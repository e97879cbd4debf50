/* base/log.h - one line of text per event, on stderr.
 *
 *   2026-01-31T10:00:00.123Z info  worker rank 0: ready, 512 blocks
 *
 * Levels by meaning: error = we could not do as asked, warn = odd but going on,
 * info = lifetime of an object, debug = per step.  A line is written by one
 * write(2), so lines of threads and ranks do not mix.  Any thread. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/status.h"

typedef enum base_log_level {
    BASE_LOG_ERROR,
    BASE_LOG_WARN,
    BASE_LOG_INFO,
    BASE_LOG_DEBUG,
} base_log_level;

/* who ("coordinator", "worker rank 2") is copied, at most 47 bytes; lines above level are dropped.
 * Call once before the first thread starts. */
void base_log_init(const char *who, base_log_level level);

/* "error", "warn", "info", "debug".  Errors: BAD_INPUT naming the value. */
BASE_MUST_CHECK base_status base_log_level_parse(const char *text, base_log_level *level_out);

void base_log(base_log_level level, const char *fmt, ...) BASE_PRINTF(2, 3);

#define BASE_ERROR(...) base_log(BASE_LOG_ERROR, __VA_ARGS__)
#define BASE_WARN(...)  base_log(BASE_LOG_WARN, __VA_ARGS__)
#define BASE_INFO(...)  base_log(BASE_LOG_INFO, __VA_ARGS__)
#define BASE_DEBUG(...) base_log(BASE_LOG_DEBUG, __VA_ARGS__)

#endif /* BASE_LOG_H */
