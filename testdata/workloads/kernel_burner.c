/* Uses CPU time in the kernel: `kernel_burner read SECONDS` reads zeros, `kernel_burner bpf
 * SECONDS` runs a BPF program named burn_in_bpf, `kernel_burner turns SECONDS` runs six BPF
 * programs in turn. Each of these is loaded after the previous one was unloaded, usually at the
 * same address. Prints for each program its name, its address, and a time at which it ran
 * (CLOCK_MONOTONIC). */
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static int bpf(int command, union bpf_attr *attributes) {
    return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* 20,000 multiplications and additions of r0: the verifier checks each. */
static int load(const char *name) {
    struct bpf_insn program[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 1, .imm = 20000},
        {.code = BPF_ALU64 | BPF_MUL | BPF_K, .dst_reg = 0, .imm = 31},
        {.code = BPF_ALU64 | BPF_ADD | BPF_X, .dst_reg = 0, .src_reg = 1},
        {.code = BPF_ALU64 | BPF_SUB | BPF_K, .dst_reg = 1, .imm = 1},
        {.code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = 1, .off = -4, .imm = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attributes = {
        .prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
        .insns = (uintptr_t)program,
        .insn_cnt = sizeof program / sizeof *program,
        .license = (uintptr_t) "Apache-2.0",
    };
    strncpy(attributes.prog_name, name, sizeof attributes.prog_name - 1);
    return bpf(BPF_PROG_LOAD, &attributes);
}

static int run(int program) {
    union bpf_attr attributes = {
        .test = {.prog_fd = program, .data_in = (uintptr_t)buffer, .data_size_in = 64, .repeat = 10},
    };
    return bpf(BPF_PROG_TEST_RUN, &attributes);
}

/* The address of a BPF program, 0 if it is not loaded. */
static unsigned long find(const char *name) {
    unsigned long address = 0;
    char line[1024];
    FILE *symbols = fopen("/proc/kallsyms", "r");
    while (symbols && fgets(line, sizeof line, symbols)) {
        const char *found = strstr(line, name);
        if (found && found[strlen(name)] == '\t')
            address = strtoul(line, NULL, 16);
    }
    if (symbols)
        fclose(symbols);
    return address;
}

static int run_in_turn(double seconds) {
    enum { TURNS = 6 };
    for (int turn = 0; turn < TURNS; turn++) {
        char name[16];
        snprintf(name, sizeof name, "burn_turn_%d", turn);
        int program = load(name);
        if (program < 0)
            return -1;
        /* Other programs that are loaded or unloaded at the same time may hide it. */
        unsigned long address = 0;
        for (int i = 0; i < 100 && !address; i++)
            address = find(name);
        struct timespec time;
        clock_t end = clock() + seconds / TURNS * CLOCKS_PER_SEC;
        for (int i = 0; i == 0 || clock() < end; i++) {
            if (run(program) < 0)
                return -1;
            if (i == 0)
                clock_gettime(CLOCK_MONOTONIC, &time);
        }
        printf("%s %lx %llu\n", name, address, time.tv_sec * 1000000000ull + time.tv_nsec);
        fflush(stdout);
        close(program);
        /* The kernel frees its memory after a grace period. */
        while (find(name))
            usleep(10000);
        usleep(100000);
    }
    return 0;
}

int main(int argc, char **argv) {
    double seconds = argc > 2 ? atof(argv[2]) : 1;
    int is_bpf = argc > 1 && !strcmp(argv[1], "bpf");
    if (argc > 1 && !strcmp(argv[1], "turns")) {
        if (run_in_turn(seconds) < 0) {
            perror(argv[0]);
            return 1;
        }
        return 0;
    }
    int file = is_bpf ? load("burn_in_bpf") : open("/dev/zero", O_RDONLY);
    if (file < 0) {
        perror(argv[0]);
        return 1;
    }
    /* Reading the clock is a system call too. */
    for (int i = 0; i % 100 || clock() < seconds * CLOCKS_PER_SEC; i++) {
        if (is_bpf ? run(file) < 0 : read(file, buffer, sizeof buffer) < 0) {
            perror(argv[0]);
            return 1;
        }
    }
    /* Wait until its window has ended, so that the collector sees the unload only then. */
    if (argc > 3)
        sleep(atoi(argv[3]));
    return 0;
}
