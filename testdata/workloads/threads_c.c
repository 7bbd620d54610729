/* Four threads, named like their functions, use 10, 20, 30 and 40 % of the program's CPU time at
 * the same time. */
#define _GNU_SOURCE
#include "workload.h"

#include <pthread.h>

static uint64_t total_ns;
static struct share shares[] = {{"north", 0}, {"east", 0}, {"south", 0}, {"west", 0}};

FUNCTION uint64_t north(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t east(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t south(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t west(uint64_t ns) { return spend(ns); }

static uint64_t (*const functions[])(uint64_t) = {north, east, south, west};

static void *thread(void *argument) {
    long i = (long)argument;
    pthread_setname_np(pthread_self(), shares[i].function);
    shares[i].ns = functions[i](total_ns * (uint64_t)(i + 1) / 10);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[4];
    total_ns = seconds_argument(argc, argv);
    for (long i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, thread, (void *)i) != 0) {
            fprintf(stderr, "failed to start thread %s\n", shares[i].function);
            return 1;
        }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    report(rusage_ns(RUSAGE_SELF), shares, 4);
    return 0;
}
