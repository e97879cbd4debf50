/* base/clock.h - monotonic time and short sleeps.  Any thread. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t base_now_us(void); /* CLOCK_MONOTONIC; only differences mean anything */
int64_t base_now_ns(void); /* the same clock */
void base_sleep_us(int64_t us);

#endif /* BASE_CLOCK_H */
