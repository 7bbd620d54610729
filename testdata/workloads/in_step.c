/* Works for the first 2 ms of each 10 ms of the clock, in step with a timer of 100 Hz, which would
 * sample all of the work or nothing. */
#include "workload.h"

static struct share shares[] = {{"pulse", 0}};

FUNCTION uint64_t pulse(uint64_t ns) { return spend(ns); }

int main(int argc, char **argv) {
    uint64_t until_ns = seconds_argument(argc, argv);
    while (thread_cpu_ns() < until_ns) {
        uint64_t next_ns = (clock_ns(CLOCK_MONOTONIC) / (10 * MS) + 1) * 10 * MS;
        struct timespec next = {.tv_sec = (time_t)(next_ns / SECOND), .tv_nsec = (long)(next_ns % SECOND)};
        bare_syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, (long)&next, 0);
        shares[0].ns += pulse(2 * MS);
    }
    report(rusage_ns(RUSAGE_SELF), shares, 1);
    return 0;
}
