/* Two functions below 200 levels of a recursive function use a quarter and three quarters of the
 * time. */
#include "workload.h"

static uint64_t state = 0xd1342543de82ef95ull;
static struct share shares[] = {{"bottom_left", 0}, {"bottom_right", 0}};

FUNCTION uint64_t bottom_left(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t bottom_right(uint64_t ns) { return spend(ns); }

FUNCTION void descend(int levels, uint64_t until_ns) {
    if (levels > 1) {
        descend(levels - 1, until_ns);
    } else {
        while (thread_cpu_ns() < until_ns) {
            uint64_t round = round_ns(&state);
            shares[0].ns += bottom_left(round * 25 / 100);
            shares[1].ns += bottom_right(round * 75 / 100);
        }
    }
    __asm__ volatile(""); /* keeps the call above from becoming a jump */
}

int main(int argc, char **argv) {
    descend(200, seconds_argument(argc, argv));
    report(rusage_ns(RUSAGE_SELF), shares, 2);
    return 0;
}
