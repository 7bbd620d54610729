// Runs a program one instruction at a time and keeps its call stack by watching each call: what an unwinder should find.
//
//   stepper STEPS_MAX ONE_IN SIGNAL_EVERY PROGRAM [ARGUMENT...]
//
// At the first visit of each instruction, and at one in ONE_IN of the others, a record goes to standard output: registers,
// true stack, and the bytes of the stack. With SIGNAL_EVERY above 0 the program gets SIGUSR1 about once in that many
// instructions, as soon as it has a handler. The stepper ends after STEPS_MAX instructions, or with the program.
//
// Records, little-endian, each behind a letter and its length in 4 bytes:
//   M  the text of /proc/PID/maps, again before the next S when it has changed
//   V  the vDSO's bytes
//   S  registers by DWARF number and rip (17 words); 1 if it was drawn, 0 when it is a first visit only; the number of
//      frames, the frames' addresses, innermost first; then parts of memory: address, length, bytes
//   E  steps, visits of new instructions, and the wait status
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t u64;

// A frame that has a caller: the address to go back to, and where on the stack it lies. A frame is gone when the stack
// pointer is above that, however that came about: by a return, a longjmp or a caught exception.
struct frame {
    u64 address, slot;
    // Of code that a signal interrupted, when the handler runs on a stack of its own: that stack. 0 otherwise.
    u64 other_low, other_high;
};

// Bytes below the stack pointer that functions may use. What was popped lies there, and is still read from there.
enum { RED_ZONE = 128 };

enum { FRAMES_MAX = 4096, SEEN_BITS = 20, PART_MAX = 1 << 20, CODE_BYTES = 12 };

static struct frame frames[FRAMES_MAX];
static int depth;
static u64 alternate_low, alternate_high;

// Where the handler of SIGUSR1 and others return to: the program says so when it installs them.
static u64 restorer;

// Instructions by their address: what kind each is. Emptied when the program maps or protects memory.
enum kind { UNKNOWN, OTHER, CALL, SYSCALL };
static struct { u64 address; enum kind kind; } seen[1 << SEEN_BITS];
static struct { u64 address; } visited[1 << SEEN_BITS];
static u64 visits;

static pid_t child;
static int memory = -1;
static u64 random_state = 0x9e3779b97f4a7c15;

static void fail(const char *what) {
    fprintf(stderr, "stepper: %s: %s\n", what, strerror(errno));
    if (child > 0) kill(child, SIGKILL);
    exit(1);
}

static u64 draw(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void put(const void *bytes, size_t length) {
    if (fwrite(bytes, 1, length, stdout) != length) fail("write");
}

static void put_head(char letter, uint32_t length) {
    put(&letter, 1);
    put(&length, 4);
}

static size_t peek(u64 address, void *bytes, size_t length) {
    ssize_t got = pread(memory, bytes, length, (off_t)address);
    return got < 0 ? 0 : (size_t)got;
}

static u64 peek_word(u64 address) {
    u64 word = 0;
    peek(address, &word, sizeof word);
    return word;
}

static char maps[1 << 18];

static void put_maps(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", child);
    int fd = open(path, O_RDONLY);
    size_t length = 0;
    for (ssize_t got; fd >= 0 && (got = read(fd, maps + length, sizeof maps - length - 1)) > 0;) length += (size_t)got;
    close(fd);
    maps[length] = 0;
    put_head('M', (uint32_t)length);
    put(maps, length);
}

static void put_vdso(void) {
    char *line = strstr(maps, "[vdso]");
    if (!line) return;
    while (line > maps && line[-1] != '\n') line--;
    u64 low = strtoull(line, &line, 16), high = strtoull(line + 1, NULL, 16);
    static char bytes[1 << 16];
    size_t length = high - low < sizeof bytes ? high - low : sizeof bytes;
    peek(low, bytes, length);
    put_head('V', (uint32_t)length);
    put(bytes, length);
}

static enum kind classify(u64 address) {
    u64 place = (address * 0x9e3779b97f4a7c15) >> (64 - SEEN_BITS);
    if (seen[place].address == address && seen[place].kind != UNKNOWN) return seen[place].kind;
    unsigned char code[CODE_BYTES] = {0};
    peek(address, code, sizeof code);
    enum kind kind = OTHER;
    int at = 0;
    // Prefixes: 66 and REX mean nothing to calls, F2 and 3E are `bnd` and `notrack`.
    while (at < 4 && (code[at] == 0x66 || code[at] == 0xf2 || code[at] == 0xf3 || code[at] == 0x3e || code[at] == 0x67)) at++;
    if ((code[at] & 0xf0) == 0x40) at++;
    if (code[at] == 0xe8 || (code[at] == 0xff && (code[at + 1] >> 3 & 7) == 2)) kind = CALL;
    if (code[at] == 0x0f && code[at + 1] == 0x05) kind = SYSCALL;
    seen[place].address = address;
    seen[place].kind = kind;
    return kind;
}

// Whether an instruction is reached for the first time. When the table is full everything has been seen.
static int visit(u64 address) {
    u64 place = (address * 0x9e3779b97f4a7c15) >> (64 - SEEN_BITS);
    for (int tries = 0; tries < 64; tries++, place = (place + 1) % (1 << SEEN_BITS)) {
        if (visited[place].address == address) return 0;
        if (visited[place].address == 0) {
            visited[place].address = address;
            visits++;
            return 1;
        }
    }
    return 0;
}

static void push(struct frame frame) {
    if (depth == FRAMES_MAX) fail("too deep");
    frames[depth++] = frame;
}

static void pop_above(u64 sp) {
    for (int place = depth; place-- > 0;) {
        // Left the signal's own stack: all that ran on it is over.
        if (frames[place].other_high && (sp < frames[place].other_low || sp > frames[place].other_high)) depth = place;
        if (frames[place].other_high) break;
    }
    while (depth && !frames[depth - 1].other_high && frames[depth - 1].slot < sp) depth--;
}

static void put_stop(const struct user_regs_struct *r, u64 is_drawn) {
    static struct { u64 address, length; char bytes[PART_MAX]; } part;
    u64 registers[] = {r->rax, r->rdx, r->rcx, r->rbx, r->rsi, r->rdi, r->rbp, r->rsp, r->r8, r->r9, r->r10, r->r11, r->r12,
                       r->r13, r->r14, r->r15, r->rip};
    u64 count = (u64)depth + 1;
    // One part of memory for each stack in use: from the stack pointer to behind the outermost return address.
    u64 lows[16], highs[16];
    int parts = 0, last = depth;
    lows[0] = r->rsp - RED_ZONE;
    for (int place = depth; place-- >= 0;) {
        int ends = place < 0 || frames[place].other_high;
        if (!ends) continue;
        u64 high = place + 1 < last ? frames[place + 1].slot : lows[parts];
        highs[parts] = high + 1024;
        if (place >= 0) {
            if (frames[place].other_high && highs[parts] > frames[place].other_high) highs[parts] = frames[place].other_high;
            if (++parts == 16) fail("too many stacks");
            lows[parts] = frames[place].slot - RED_ZONE;
            last = place;
        }
    }
    parts++;
    u64 bytes = 0;
    for (int at = 0; at < parts; at++) {
        if (highs[at] < lows[at]) highs[at] = lows[at];
        if (highs[at] - lows[at] > PART_MAX) highs[at] = lows[at] + PART_MAX;
        bytes += 16 + highs[at] - lows[at];
    }
    put_head('S', (uint32_t)(sizeof registers + 16 + 8 * count + bytes));
    put(registers, sizeof registers);
    put(&is_drawn, 8);
    put(&count, 8);
    put(&r->rip, 8);
    for (int place = depth; place-- > 0;) put(&frames[place].address, 8);
    for (int at = 0; at < parts; at++) {
        part.address = lows[at];
        part.length = highs[at] - lows[at];
        memset(part.bytes, 0, part.length);
        // What lies behind the end of the stack cannot be read, and is left zero.
        peek(part.address, part.bytes, part.length);
        put(&part, 16 + part.length);
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    u64 steps_max = strtoull(argv[1], NULL, 10), one_in = strtoull(argv[2], NULL, 10);
    u64 signal_every = strtoull(argv[3], NULL, 10);
    // Both on one processor, so that a step does not wake another: this takes half of the time off.
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    sched_setaffinity(0, sizeof here, &here);
    child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        // Addresses that are the same each time, so that what went wrong can be looked at again.
        personality(ADDR_NO_RANDOMIZE);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(126);
        execv(argv[4], argv + 4);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) < 0) fail("wait");
    if (!WIFSTOPPED(status)) {
        fprintf(stderr, "stepper: the program did not start (status %#x)\n", status);
        return WIFEXITED(status) && WEXITSTATUS(status) == 126 ? 3 : 1;
    }
    ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", child);
    memory = open(path, O_RDONLY);
    if (memory < 0) fail(path);
    pid_t thread = child;
    struct user_regs_struct before, after;
    if (ptrace(PTRACE_GETREGS, thread, 0, &before)) fail("PTRACE_GETREGS");
    u64 steps = 0;
    int has_maps = 0, has_vdso = 0, has_handler = 0;
    int signal = 0;
    for (;; steps++) {
        if (steps >= steps_max) break;
        // The first instruction of a thread is behind its clone; there is no caller to it.
        int is_new = visit(before.rip), is_drawn = draw() % one_in == 0;
        if (is_new || is_drawn) {
            if (!has_maps) put_maps();
            if (!has_vdso) put_vdso();
            has_maps = has_vdso = 1;
            put_stop(&before, (u64)is_drawn);
        }
        enum kind kind = classify(before.rip);
        if (!signal && has_handler && signal_every && draw() % signal_every == 0) signal = SIGUSR1;
        if (ptrace(PTRACE_SINGLESTEP, thread, 0, (long)signal)) fail("PTRACE_SINGLESTEP");
        if (waitpid(thread, &status, __WALL) < 0) fail("wait");
        if (!WIFSTOPPED(status)) break;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_CLONE << 8)) {
            // From here on the new thread is followed; the old one waits until it is gone.
            unsigned long id;
            ptrace(PTRACE_GETEVENTMSG, thread, 0, &id);
            thread = (pid_t)id;
            if (waitpid(thread, &status, __WALL) < 0) fail("wait for a thread");
            depth = 0;
            signal = 0;
            if (ptrace(PTRACE_GETREGS, thread, 0, &before)) fail("PTRACE_GETREGS");
            continue;
        }
        if (ptrace(PTRACE_GETREGS, thread, 0, &after)) fail("PTRACE_GETREGS");
        // A signal that is blocked is kept by the kernel, and an ordinary step was taken. The kernel's frame has more than
        // 700 bytes, and lies below or on the other stack.
        int is_alternate = after.rsp >= alternate_low && after.rsp < alternate_high &&
                           !(before.rsp >= alternate_low && before.rsp < alternate_high);
        int entered = signal && restorer && (is_alternate || after.rsp + 700 < before.rsp) && peek_word(after.rsp) == restorer;
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (entered) {
            // The kernel made a frame: the address of the trampoline, then the context.
            struct frame frame = {before.rip, after.rsp + 8, 0, 0};
            if (is_alternate) {
                frame.slot = before.rsp;
                frame.other_low = alternate_low;
                frame.other_high = alternate_high;
            }
            push(frame);
            push((struct frame){peek_word(after.rsp), after.rsp, 0, 0});
        } else {
            if (kind == CALL && after.rsp == before.rsp - 8) {
                u64 address = peek_word(after.rsp);
                if (address - before.rip < 16) push((struct frame){address, after.rsp, 0, 0});
            }
            pop_above(after.rsp);
            if (kind == SYSCALL) {
                u64 number = before.rax;
                if (number == SYS_mmap || number == SYS_munmap || number == SYS_mprotect || number == SYS_mremap) {
                    has_maps = 0;
                    memset(seen, 0, sizeof seen);
                }
                if (number == SYS_rt_sigaction && before.rsi) restorer = peek_word(before.rsi + 16);
                if (number == SYS_rt_sigaction && before.rdi == SIGUSR1) has_handler = 1;
                if (number == SYS_sigaltstack && before.rdi) {
                    alternate_low = peek_word(before.rdi);
                    alternate_high = alternate_low + peek_word(before.rdi + 16);
                }
            }
        }
        before = after;
    }
    u64 last[3] = {steps, visits, (u64)status};
    put_head('E', sizeof last);
    put(last, sizeof last);
    fflush(stdout);
    kill(child, SIGKILL);
    return 0;
}
