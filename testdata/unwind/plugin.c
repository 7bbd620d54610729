// What `loads` loads and unloads. Its thread-local variables are found through descriptors, whose slow path keeps the stack
// pointer in rbx.
#include <stdio.h>

static __thread unsigned long counts[100];
__thread unsigned long last;

__attribute__((noinline)) static unsigned long count(unsigned long value) { return counts[value % 100] += value; }

unsigned long run(unsigned long value) {
    char text[40];
    snprintf(text, sizeof text, "%lu %lu", count(value), last);
    last = value;
    return count(value + 1) + (unsigned long)text[0];
}
