/* Starts processes at a rate: `starts RATE SECONDS [PROGRAM...]`. Starts /bin/true, or the programs
 * in turn with the argument 1. Prints the number of started processes. */
#define _GNU_SOURCE
#include "../workloads/workload.h"

#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
    double rate = argc >= 3 ? atof(argv[1]) : 0, seconds = argc >= 3 ? atof(argv[2]) : 0;
    if (!(rate > 0 && rate <= 100000) || !(seconds > 0)) {
        fprintf(stderr, "usage: %s RATE SECONDS [PROGRAM...]\n", argv[0]);
        return 2;
    }
    char *standard[] = {"/bin/true"}, **programs = argc > 3 ? argv + 3 : standard, *const environment[] = {NULL};
    uint64_t count = argc > 3 ? (uint64_t)argc - 3 : 1;
    uint64_t start = clock_ns(CLOCK_MONOTONIC), started = 0;
    while (started < (uint64_t)(rate * seconds)) {
        uint64_t due = start + (uint64_t)((double)started * 1e9 / rate);
        struct timespec next = {.tv_sec = (time_t)(due / SECOND), .tv_nsec = (long)(due % SECOND)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        if (clock_ns(CLOCK_MONOTONIC) > start + (uint64_t)(seconds * 1e9))
            break; /* the machine is too slow for the rate; the count says so */
        pid_t child;
        char *program = programs[started % count], *const arguments[] = {program, "1", NULL};
        int error = posix_spawn(&child, program, NULL, NULL, arguments, environment);
        if (error != 0) {
            fprintf(stderr, "failed to start %s: %s\n", program, strerror(error));
            return 1;
        }
        started++;
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    while (waitpid(-1, NULL, 0) > 0)
        ;
    printf("%llu\n", (unsigned long long)started);
    return 0;
}
