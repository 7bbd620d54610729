// A thread; the stepper follows it from its first instruction.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) static long work(long depth) { return depth ? work(depth - 1) * 3 + depth : random(); }

static void *run(void *argument) {
    char text[40];
    snprintf(text, sizeof text, "%ld", work((long)argument));
    return (void *)(long)text[0];
}

int main(void) {
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, run, (void *)20)) return 1;
    return pthread_join(thread, &result);
}
