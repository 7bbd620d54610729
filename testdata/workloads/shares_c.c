/* Four functions use 10, 20, 30 and 40 % of the CPU time. Two of them have a common caller, whose
 * total is 70 %. */
#include "workload.h"

static uint64_t state = 0x9e3779b97f4a7c15ull;
static struct share shares[] = {{"tenth", 0}, {"fifth", 0}, {"upper", 0}, {"three_tenths", 0}, {"two_fifths", 0}};

FUNCTION uint64_t tenth(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t fifth(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t three_tenths(uint64_t ns) { return spend(ns); }
FUNCTION uint64_t two_fifths(uint64_t ns) { return spend(ns); }

FUNCTION uint64_t upper(uint64_t round) {
    uint64_t small = three_tenths(round * 30 / 100);
    uint64_t large = two_fifths(round * 40 / 100);
    shares[3].ns += small;
    shares[4].ns += large;
    return small + large;
}

FUNCTION void run(uint64_t until_ns) {
    while (thread_cpu_ns() < until_ns) {
        uint64_t round = round_ns(&state);
        shares[0].ns += tenth(round * 10 / 100);
        shares[1].ns += fifth(round * 20 / 100);
        shares[2].ns += upper(round);
    }
}

int main(int argc, char **argv) {
    run(seconds_argument(argc, argv));
    report(rusage_ns(RUSAGE_SELF), shares, 5);
    return 0;
}
