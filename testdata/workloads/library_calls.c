/* Works in a C library, in two threads: `library_calls SECONDS`. musl has no call frame information, so each stack goes through code
 * without any: `main` -> `work` -> the library -> `compare`. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTION __attribute__((noinline, noclone))
#define COUNT 2000

static double seconds;
static __thread volatile size_t sink;

FUNCTION static int compare(const void *one, const void *other) {
    int a = *(const int *)one, b = *(const int *)other;
    sink += 1;
    return (a > b) - (a < b);
}

FUNCTION static void work(unsigned seed) {
    static __thread int numbers[COUNT];
    char text[64];
    for (int i = 0; i < COUNT; i++) numbers[i] = (int)(seed = seed * 1103515245 + 12345);
    qsort(numbers, COUNT, sizeof *numbers, compare);
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "%d %g %s", numbers[i], numbers[i] / 3.0, "text");
        sink += strtod(text, NULL) > 0;
    }
    for (int i = 1; i < 200; i++) {
        char *memory = malloc(i * 16);
        memset(memory, i, i * 16);
        sink += memory[i];
        free(memory);
    }
}

FUNCTION static void repeat(void) {
    struct timespec now, begun;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    unsigned seed = 1;
    do {
        work(seed++);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while (now.tv_sec - begun.tv_sec + (now.tv_nsec - begun.tv_nsec) / 1e9 < seconds);
    sink += seed;
}

FUNCTION static void *run_thread(void *unused) {
    repeat();
    return unused;
}

int main(int argc, char **argv) {
    seconds = argc > 1 ? atof(argv[1]) : 1;
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_thread, NULL)) return 1;
    repeat();
    return pthread_join(thread, NULL) != 0;
}
