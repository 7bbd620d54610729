# Writes a C program of 2,000 functions that call each other at random, about 30 deep, with frames
# of many sizes. As in real programs, return addresses vary from sample to sample, so that a cache
# of return addresses has no unrealistic advantage.
#
#   awk -f varied.awk >varied.c; varied THREADS SECONDS
BEGIN {
    functions = 2000
    srand(1)
    print "#define _GNU_SOURCE\n#include \"workload.h\"\n#include <pthread.h>"
    print "typedef uint64_t function(int levels, uint64_t state);"
    print "static function *const functions[" functions "];"
    print "static uint64_t until_ns;"
    print "FUNCTION void work(void) { churn(); }"
    print "INLINE uint64_t next(uint64_t x) { x ^= x << 13; x ^= x >> 7; return x ^ x << 17; }"
    for (i = 0; i < functions; i++) {
        # Up to four values that are live across the call, and 4 to 256 bytes of locals, so that
        # prologues differ.
        print "FUNCTION uint64_t f" i "(int levels, uint64_t state) {"
        print "    volatile char room[" int(4 * 2 ^ (rand() * 6)) "];"
        print "    uint64_t x = next(state + " i ");\n    room[0] = (char)x;"
        kept = int(rand() * 5)
        for (j = 0; j < kept; j++)
            print "    uint64_t kept" j " = x * " 2 * int(rand() * 100000) + 1 "u + (x >> " 3 + j ");"
        print "    uint64_t below = 0;"
        print "    if (levels <= 0)\n        work();\n    else"
        print "        below = functions[x % " functions "](levels - 1, x);"
        printf "    return below + (uint64_t)room[0]"
        for (j = 0; j < kept; j++)
            printf " + kept%d", j
        print ";\n}"
    }
    print "static function *const functions[" functions "] = {"
    for (i = 0; i < functions; i++)
        print "    f" i ","
    print "};"
    print "static void *thread(void *argument) {"
    print "    uint64_t state = (uint64_t)argument * 2 + 88172645463325253ull, sum = 0;"
    print "    while (clock_ns(CLOCK_MONOTONIC) < until_ns) {"
    print "        state = next(state);"
    # 20 to 40, with the thread's own three frames.
    print "        sum += functions[state % " functions "](16 + (int)((state >> 40) % 21), state);"
    print "    }\n    return (void *)sum;\n}"
    print "int main(int argc, char **argv) {"
    print "    long threads = argc == 3 ? atol(argv[1]) : 0;"
    print "    until_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(argc == 3 ? atof(argv[2]) * 1e9 : 0);"
    print "    pthread_t ids[1024];"
    print "    for (long i = 0; i < threads && i < 1024; i++)"
    print "        if (pthread_create(&ids[i], NULL, thread, (void *)i) != 0)"
    print "            return 1;"
    print "    for (long i = 0; i < threads && i < 1024; i++)"
    print "        pthread_join(ids[i], NULL);"
    print "    return 0;\n}"
}
