/* Uses CPU time in the kernel: `kernel_burner read SECONDS` reads zeros, `kernel_burner bpf SECONDS` runs a BPF program of
 * the name burn_in_bpf. */
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

/* r0 is multiplied and added to 20,000 times: the verifier goes through each. */
static int load(void) {
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
        .prog_name = "burn_in_bpf",
    };
    return bpf(BPF_PROG_LOAD, &attributes);
}

static int run(int program) {
    union bpf_attr attributes = {
        .test = {.prog_fd = program, .data_in = (uintptr_t)buffer, .data_size_in = 64, .repeat = 10},
    };
    return bpf(BPF_PROG_TEST_RUN, &attributes);
}

int main(int argc, char **argv) {
    double seconds = argc > 2 ? atof(argv[2]) : 1;
    int is_bpf = argc > 1 && !strcmp(argv[1], "bpf");
    int file = is_bpf ? load() : open("/dev/zero", O_RDONLY);
    if (file < 0) {
        perror(argv[0]);
        return 1;
    }
    /* The clock is a system call too. */
    for (int i = 0; i % 100 || clock() < seconds * CLOCKS_PER_SEC; i++) {
        if (is_bpf ? run(file) < 0 : read(file, buffer, sizeof buffer) < 0) {
            perror(argv[0]);
            return 1;
        }
    }
    /* Until its window is over, or nobody could tell any more where its code was. */
    if (argc > 3)
        sleep(atoi(argv[3]));
    return 0;
}
