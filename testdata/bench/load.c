/* Keeps CPUs busy below a recursion: `load THREADS SECONDS [FRAMES]`, 30 by default. Built with and
 * without frame pointers. */
#define _GNU_SOURCE
#include "../workloads/workload.h"

#include <pthread.h>

/* A typical depth: between 10 of a C program and 60 of a Java or Rust service. */
#define FRAMES 30

static uint64_t until_ns;
static int frames = FRAMES;

FUNCTION void descend(int levels) {
    if (levels > 1)
        descend(levels - 1);
    else
        while (clock_ns(CLOCK_MONOTONIC) < until_ns)
            churn();
    __asm__ volatile(""); /* keeps the call above from becoming a jump */
}

static void *thread(void *argument) {
    (void)argument;
    /* Three frames belong to the thread: this one and two of libc's. */
    descend(frames - 3);
    return NULL;
}

int main(int argc, char **argv) {
    int with_frames = argc == 4;
    long threads = argc == 3 || with_frames ? atol(argv[1]) : 0;
    double seconds = argc == 3 || with_frames ? atof(argv[2]) : 0;
    if (with_frames)
        frames = atoi(argv[3]);
    if (threads < 1 || threads > 1024 || !(seconds > 0) || frames < 4 || frames > 10000) {
        fprintf(stderr, "usage: %s THREADS SECONDS [FRAMES]\n", argv[0]);
        return 2;
    }
    until_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
    pthread_t ids[1024];
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, thread, NULL) != 0) {
            fprintf(stderr, "failed to start thread %ld\n", i);
            return 1;
        }
    for (long i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return 0;
}
