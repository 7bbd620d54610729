/* A JIT compiler that keeps its code in memory of some kind: `memory KIND SECONDS`. It generates
 * two functions, the second beyond the first page, describes them in a perf map, and uses half of
 * its CPU time in each. The kinds, and their names in the kernel's list of mappings:
 *
 *   memfd    a memory file, mapped with an offset over private memory: `/memfd:code`
 *   sysv     SysV shared memory: `/SYSV00000000`
 *   shared   shared memory without a name: `/dev/zero`
 *   deleted  a file that was deleted when it was mapped
 *   linked   a file in `/dev/shm` that still exists
 *   named    private memory with a name: `[anon:code]` */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
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

enum { PAGE = 4096, BYTES = 16 * PAGE, NEAR = 64, FAR = 2 * PAGE + 64 };

static char *map(int protection, int flags, int file, long offset) {
    char *memory = mmap(NULL, BYTES, protection, flags, file, offset);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return memory;
}

static void fill(char *memory) {
    memcpy(memory + NEAR, CODE, sizeof CODE);
    memcpy(memory + FAR, CODE, sizeof CODE);
}

/* Maps the code from the second page of a file on. */
static char *map_file(int file) {
    char *code = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fill(code);
    if (file < 0 || pwrite(file, code, BYTES, PAGE) != BYTES ||
        mmap(code, BYTES, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, PAGE) == MAP_FAILED) {
        perror("file");
        exit(1);
    }
    return code;
}

static char *make(const char *kind) {
    if (!strcmp(kind, "memfd"))
        return map_file(memfd_create("code", 0));
    if (!strcmp(kind, "deleted")) {
        char path[] = "/tmp/codeXXXXXX";
        int file = mkstemp(path);
        unlink(path);
        return map_file(file);
    }
    if (!strcmp(kind, "linked")) {
        char path[64];
        snprintf(path, sizeof path, "/pilotlight-code-%d", getpid());
        return map_file(shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
    }
    char *code;
    if (!strcmp(kind, "sysv")) {
        int segment = shmget(IPC_PRIVATE, BYTES, 0600 | IPC_CREAT);
        code = shmat(segment, NULL, SHM_EXEC);
        shmctl(segment, IPC_RMID, NULL);
        if (code == (void *)-1) {
            perror("shmat");
            exit(1);
        }
    } else {
        int is_shared = !strcmp(kind, "shared");
        code = map(PROT_READ | PROT_WRITE, (is_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
#ifdef PR_SET_VMA
        if (!is_shared)
            prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, code, BYTES, "code");
#endif
    }
    fill(code);
    mprotect(code, BYTES, PROT_READ | PROT_EXEC);
    return code;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 1;
    const char *kind = argv[1];
    double seconds = atof(argv[2]);
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", getpid());
    char *code = make(kind);
    FILE *names = fopen(path, "w");
    if (!names)
        return 1;
    fprintf(names, "%lx %zx made_near\n%lx %zx made_far\n", (long)code + NEAR, sizeof CODE, (long)code + FAR, sizeof CODE);
    fclose(names);
    while (clock() < seconds * CLOCKS_PER_SEC) {
        ((void (*)(uint64_t))(code + NEAR))(1000000);
        ((void (*)(uint64_t))(code + FAR))(1000000);
    }
    snprintf(path, sizeof path, "/pilotlight-code-%d", getpid());
    shm_unlink(path);
    return 0;
}
