#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char log_who[48] = "ropewalk";
static base_log_level log_level = BASE_LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void base_log_init(const char *who, base_log_level level)
{
    (void)snprintf(log_who, sizeof log_who, "%s", who);
    log_level = level;
}

base_status base_log_level_parse(const char *text, base_log_level *level_out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level_out = (base_log_level)i;
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT, "log level '%s', allowed error, warn, info, debug", text);
}

void base_log(base_log_level level, const char *fmt, ...)
{
    if (level > log_level) {
        return;
    }
    char line[1024];
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof line - n,
                          ".%03dZ %-5s %s: ", (int)(now.tv_nsec / 1000000), level_names[level],
                          log_who);

    va_list ap;
    va_start(ap, fmt);
    const int more = vsnprintf(line + n, sizeof line - n, fmt, ap);
    va_end(ap);
    if (more > 0) {
        n += (size_t)more;
    }
    if (n > sizeof line - 2) {
        n = sizeof line - 2;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)line[i] < 0x20) {
            line[i] = ' '; /* one event stays one line, whatever a client sent */
        }
    }
    line[n++] = '\n';
    const ssize_t written = write(STDERR_FILENO, line, n);
    (void)written; /* nowhere left to complain */
}
