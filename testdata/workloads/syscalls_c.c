/* Half of the time below read(2), a fifth below getrandom(2), the rest in the program itself. A
 * sample in the kernel has the user stack of the system call. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>

static uint64_t state = 0x2545f4914f6cdd1dull;
static char buffer[256 * 1024];
static struct share shares[] = {{"read_zeros", 0}, {"draw_random", 0}, {"stay_in_user", 0}};

FUNCTION uint64_t read_zeros(int file, uint64_t ns) {
    uint64_t start = thread_cpu_ns(), now;
    do {
        bare_syscall(SYS_read, file, (long)buffer, sizeof buffer, 0);
        now = thread_cpu_ns();
    } while (now - start < ns);
    return now - start;
}

FUNCTION uint64_t draw_random(uint64_t ns) {
    uint64_t start = thread_cpu_ns(), now;
    do {
        bare_syscall(SYS_getrandom, (long)buffer, 16 * 1024, 0, 0);
        now = thread_cpu_ns();
    } while (now - start < ns);
    return now - start;
}

FUNCTION uint64_t stay_in_user(uint64_t ns) { return spend(ns); }

int main(int argc, char **argv) {
    uint64_t until_ns = seconds_argument(argc, argv);
    int file = (int)bare_syscall(SYS_openat, AT_FDCWD, (long)"/dev/zero", O_RDONLY, 0);
    if (file < 0) {
        fprintf(stderr, "failed to open `/dev/zero`: error %d\n", -file);
        return 1;
    }
    while (thread_cpu_ns() < until_ns) {
        uint64_t round = round_ns(&state);
        shares[0].ns += read_zeros(file, round * 50 / 100);
        shares[1].ns += draw_random(round * 20 / 100);
        shares[2].ns += stay_in_user(round * 30 / 100);
    }
    report(rusage_ns(RUSAGE_SELF), shares, 3);
    return 0;
}
