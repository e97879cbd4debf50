/* launch/eval_report.h - the results of `ropewalk eval`: tables, or one JSON object, on stdout. */
#ifndef LAUNCH_EVAL_REPORT_H
#define LAUNCH_EVAL_REPORT_H

#include "launch/eval_session.h"

/* A table for each part that was asked for; the first column is true bytes per token. */
void eval_report_tables(const eval_session *s);
/* Errors: NO_MEMORY, IO. */
BASE_MUST_CHECK base_status eval_report_json(const eval_session *s);

#endif /* LAUNCH_EVAL_REPORT_H */
