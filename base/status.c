#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char last_error[512];
static _Thread_local char last_place[64];

static const struct {
    const char *name;
    const char *text;
    base_scope scope;
} table[] = {
#define X(name, scope, text) {#name, text, BASE_SCOPE_##scope},
#include "base/status.def"
#undef X
};

const char *base_status_name(base_status st)
{
    return table[st].name;
}

const char *base_status_text(base_status st)
{
    return table[st].text;
}

base_scope base_status_scope(base_status st)
{
    return table[st].scope;
}

const char *base_last_error(void)
{
    return last_error;
}

const char *base_last_error_place(void)
{
    return last_place;
}

base_status base_fail_at(base_status code, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(last_error, sizeof last_error, fmt, ap);
    va_end(ap);
    const char *name = strrchr(file, '/');
    (void)snprintf(last_place, sizeof last_place, "%s:%d", name != NULL ? name + 1 : file, line);
    return code;
}
