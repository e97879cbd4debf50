/* launch/report.h - what `generate` shows of one stream: text as it comes, then a table or JSON.
 *
 * Threads.  report_take from the channel's poller, the rest before and after the call. */
#ifndef LAUNCH_REPORT_H
#define LAUNCH_REPORT_H

#include "base/bytes.h"
#include "base/status.h"
#include "proto/inference_codec.h"

#include <stdbool.h>

typedef struct report {
    bool stream_text; /* text to stdout as it comes */
    bool progress;    /* prefill progress to stderr */
    bool terminal;    /* progress overwrites its line */
    bool has_finished;
    bool failed; /* memory ran out while collecting */
    base_bytes text;
    base_bytes ids;  /* int32_t */
    base_bytes stop; /* Finished.stop */
    base_bytes policy;
    base_bytes blocks;           /* int32_t per rank */
    inference_finished finished; /* views point into the buffers above */
    int64_t shown_progress;
} report;

void report_init(report *r, bool stream_text, bool progress, bool terminal);
void report_reset(report *r);

/* client_on_event: ctx is the report. */
void report_take(void *ctx, const inference_event *event);

/* A table of context, cache and times, to stderr. */
void report_print_table(const report *r);
/* One JSON object to stdout (design.md section 5).  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status report_print_json(const report *r);

#endif /* LAUNCH_REPORT_H */
