/* A library that is loaded and unloaded. It is built twice with different values of FRAME, so that
 * the same function has different unwind rows. */
#include "../../workloads/workload.h"

#define NUMBERS 400

#ifndef FRAME
#define FRAME 64
#endif

FUNCTION static long fill_and_sort(uint64_t seed, int depth, int (*compare)(const void *, const void *)) {
    volatile char room[FRAME];
    room[0] = 1;
    if (depth > 0)
        return fill_and_sort(seed + 1, depth - 1, compare) + room[0];
    int numbers[NUMBERS];
    uint64_t state = seed * 2 + 88172645463325253ull;
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = (int)random_below(&state, 1000000);
    qsort(numbers, NUMBERS, sizeof numbers[0], compare);
    return numbers[NUMBERS / 2];
}

/* The exported function. It calls back into the program that loaded the library. */
long work(uint64_t seed, int (*compare)(const void *, const void *)) {
    return fill_and_sort(seed, 6, compare);
}
