/* Shared by the C workloads: functions that use a given amount of CPU time, and the report at the
 * end.
 *
 * All of them are inlined into their caller, so that the innermost function of a sample is the one
 * in the expected profile. System calls use the bare instruction: libc has no frame pointers, so a
 * call into libc would hide its caller from a walk by frame pointers. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#define INLINE static inline __attribute__((always_inline))
/* A function with its own frame and code: not inlined, not cloned, not merged with an identical
 * one. */
#define FUNCTION __attribute__((noinline, noclone, no_icf, used))

#define MS 1000000ull
#define SECOND 1000000000ull

INLINE long bare_syscall(long number, long a, long b, long c, long d) {
    long result;
    register long fourth __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                     : "rcx", "r11", "memory");
    return result;
}

INLINE uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    bare_syscall(SYS_clock_gettime, clock, (long)&now, 0, 0);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* CPU time of the calling thread in nanoseconds. */
INLINE uint64_t thread_cpu_ns(void) {
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* A chain of multiplications that the compiler cannot shorten. It takes about 50 us, so that the
 * clock read after it (0.5 us) takes 1 % of the time in every function alike. */
INLINE void churn(void) {
    uint64_t x = 88172645463325252ull;
    for (int i = 0; i < 40000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        __asm__ volatile("" : "+r"(x));
    }
}

/* Uses at least `ns` of the thread's CPU time, at most one churn more. Returns the time used. */
INLINE uint64_t spend(uint64_t ns) {
    uint64_t start = thread_cpu_ns(), now;
    do {
        churn();
        now = thread_cpu_ns();
    } while (now - start < ns);
    return now - start;
}

/* xorshift64: block lengths vary, so that a workload is in step with a timer only on purpose. */
INLINE uint64_t random_below(uint64_t *state, uint64_t limit) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % limit;
}

/* The length of the next round of blocks, 10 to 50 ms; each function uses its percentage of it. */
INLINE uint64_t round_ns(uint64_t *state) {
    return 10 * MS + random_below(state, 40 * MS);
}

/* The CPU seconds to use: the first argument, or 10. */
INLINE uint64_t seconds_argument(int argc, char **argv) {
    char *end = NULL;
    double seconds = argc > 1 ? strtod(argv[1], &end) : 10.0;
    if (argc > 2 || (argc > 1 && (*end != '\0' || !(seconds > 0 && seconds <= 3600)))) {
        fprintf(stderr, "usage: %s [SECONDS]   (more than 0, at most 3600)\n", argv[0]);
        exit(2);
    }
    return (uint64_t)(seconds * 1e9);
}

INLINE uint64_t timeval_ns(struct timeval t) {
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_usec * 1000;
}

/* CPU time of this process, or of its ended children: user and system time as the kernel accounts
 * it. */
INLINE uint64_t rusage_ns(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    return timeval_ns(usage.ru_utime) + timeval_ns(usage.ru_stime);
}

struct share {
    const char *function;
    uint64_t ns;
};

/* The last line of every workload: its CPU time, and the time of each function. */
INLINE void report(uint64_t cpu_ns, const struct share *shares, int count) {
    printf("{\"cpu_ns\": %llu, \"functions\": {", (unsigned long long)cpu_ns);
    for (int i = 0; i < count; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", shares[i].function, (unsigned long long)shares[i].ns);
    printf("}}\n");
}

#endif
