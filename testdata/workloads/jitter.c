/* A JIT compiler: generates one function, describes it in a jitdump, uses CPU time in it, then
 * stays alive: `jitter SECONDS STAY_SECONDS`. The dump is jit-PID.dump in the working directory, in
 * the format of the kernel's tools/perf/Documentation/jitdump-specification.txt. */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const unsigned char CODE[] = {
    0x55,             /* push %rbp */
    0x48, 0x89, 0xe5, /* mov %rsp,%rbp */
    0x48, 0xff, 0xcf, /* dec %rdi */
    0x75, 0xfb,       /* jne to the dec */
    0x5d,             /* pop %rbp */
    0xc3,             /* ret */
};
static const char NAME[] = "hot_in_lua";
static const char FILE_NAME[] = "/srv/hot.lua";

struct record {
    uint32_t kind, bytes;
    uint64_t time;
};
struct line {
    uint64_t address;
    uint32_t line, column;
    char file[sizeof FILE_NAME];
} __attribute__((packed));

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void write_dump(FILE *dump, const void *code) {
    uint64_t address = (uintptr_t)code;
    struct {
        uint32_t magic, version, bytes, machine, pad, pid;
        uint64_t time, flags;
    } header = {0x4a695444, 1, sizeof header, EM_X86_64, 0, getpid(), now(), 0};
    fwrite(&header, sizeof header, 1, dump);

    /* Line 7 is the loop, line 9 the code after it. */
    struct {
        struct record record;
        uint64_t address, count;
        struct line lines[3];
    } __attribute__((packed)) debug = {{2, sizeof debug, now()}, address, 3, {{address, 6, 0, ""}, {address + 4, 7, 0, ""}, {address + 9, 9, 0, ""}}};
    for (int i = 0; i < 3; i++)
        strcpy(debug.lines[i].file, FILE_NAME);
    fwrite(&debug, sizeof debug, 1, dump);

    struct {
        struct record record;
        uint32_t pid, thread;
        uint64_t place, address, bytes, number;
    } load = {{0, sizeof load + sizeof NAME + sizeof CODE, now()}, getpid(), getpid(), address, address, sizeof CODE, 1};
    fwrite(&load, sizeof load, 1, dump);
    fwrite(NAME, sizeof NAME, 1, dump);
    fwrite(CODE, sizeof CODE, 1, dump);
    fflush(dump);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    char path[64];
    snprintf(path, sizeof path, "jit-%d.dump", getpid());
    FILE *dump = fopen(path, "w+");
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!dump || code == MAP_FAILED)
        return 1;
    memcpy(code, CODE, sizeof CODE);
    mprotect(code, 4096, PROT_READ | PROT_EXEC);
    write_dump(dump, code);
    /* A profiler finds the dump by this executable mapping. */
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(dump), 0) == MAP_FAILED)
        return 1;
    while (clock() < seconds * CLOCKS_PER_SEC)
        ((void (*)(uint64_t))code)(1000000);
    if (argc > 2)
        sleep(atoi(argv[2]));
    return 0;
}
