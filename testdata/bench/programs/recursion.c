/* Works at the bottom of a recursion, and on the way down and up again: `recursion FRAMES MS`, of
 * CPU time.
 *
 * The frames have one of three sizes, so that neighbouring frames differ. */
#include "../../workloads/workload.h"

static uint64_t state = 0x9e3779b97f4a7c15ull;

FUNCTION uint64_t descend(int levels, uint64_t work);

/* About 2 us of work, of varying length. */
INLINE uint64_t step(uint64_t work) {
    uint64_t x = work;
    for (uint64_t i = random_below(&state, 1500); i > 0; i--) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

/* Calls the next level from a frame with SIZE additional bytes. */
#define LEVEL(NAME, SIZE)                                                                                              \
    FUNCTION uint64_t NAME(int levels, uint64_t work) {                                                                \
        volatile char room[SIZE];                                                                                      \
        room[0] = (char)work;                                                                                          \
        uint64_t below = descend(levels, step(work));                                                                  \
        return below + (uint64_t)room[0];                                                                              \
    }
LEVEL(narrow, 8)
LEVEL(middling, 120)
LEVEL(wide, 500)

FUNCTION uint64_t descend(int levels, uint64_t work) {
    if (levels <= 1) {
        for (int i = 0; i < 20; i++) /* 1 ms; the way down and up takes a third of it at 900 frames */
            churn();
        return work;
    }
    /* Two frames per level: this one and the sized one. */
    switch (levels % 3) {
    case 0:
        return narrow(levels - 2, work) + 1;
    case 1:
        return middling(levels - 2, work) + 2;
    default:
        return wide(levels - 2, work) + 3;
    }
}

int main(int argc, char **argv) {
    int frames = argc == 3 ? atoi(argv[1]) : 0;
    uint64_t ms = argc == 3 ? strtoull(argv[2], NULL, 10) : 0, sum = 0;
    if (frames < 1 || frames > 20000 || ms == 0 || ms > 3600000) {
        fprintf(stderr, "usage: %s FRAMES MS\n", argv[0]);
        return 2;
    }
    while (thread_cpu_ns() < ms * MS)
        sum += descend(frames, sum);
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
