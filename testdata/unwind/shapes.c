// Functions with every shape of frame that a C compiler makes: saved registers, arrays of any size, realigned stacks, tail
// calls, callbacks out of libc, jumps out of several frames. What it computes means nothing.
#include <alloca.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define APART __attribute__((noinline, noclone))

static volatile uint64_t sink;
static jmp_buf back;

APART static uint64_t leaf(uint64_t value) { return value * 31 + 7; }

APART static uint64_t many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    uint64_t x = leaf(a) ^ b, y = leaf(c) + d, z = leaf(e) - f, w = leaf(g) | h;
    for (int round = 0; round < 2; round++) x += leaf(y + z), y ^= leaf(z + w), z += leaf(w + x), w ^= leaf(x + y);
    return x + y + z + w;
}

APART static uint64_t on_alloca(size_t bytes) {
    char *block = alloca(bytes);
    memset(block, 3, bytes);
    sink += many(1, 2, 3, 4, 5, 6, 7, (uint64_t)block[bytes / 2]);
    return (uint64_t)block[bytes - 1];
}

APART static uint64_t on_array(size_t count) {
    uint64_t block[count];
    for (size_t at = 0; at < count; at++) block[at] = leaf(at);
    return leaf(block[count / 2]);
}

APART static uint64_t on_pages(unsigned at) {
    // Larger than a page, so that the compiler touches each with -fstack-clash-protection.
    volatile char block[20000];
    block[at % sizeof block] = 1;
    return leaf(at) + (uint64_t)block[(at * 7) % sizeof block];
}

APART static uint64_t realigned(uint64_t value) {
    _Alignas(64) volatile uint64_t block[8];
    block[value % 8] = leaf(value);
    return many(value, 1, 2, 3, 4, 5, 6, block[value % 8]);
}

APART static uint64_t realigned_array(size_t count) {
    _Alignas(32) volatile uint64_t block[4];
    uint64_t array[count];
    for (size_t at = 0; at < count; at++) array[at] = leaf(at);
    block[count % 4] = array[count - 1];
    return leaf(block[count % 4]) + on_alloca(count);
}

__attribute__((force_align_arg_pointer)) APART static uint64_t aligned_entry(uint64_t value) {
    return leaf(value) + many(value, 2, 4, 6, 8, 10, 12, 14);
}

APART static uint64_t tail_end(uint64_t value) { return value ? leaf(value) + 1 : sink; }
APART static uint64_t tail_middle(uint64_t value) { return tail_end(value ^ 5); }
APART static uint64_t tail_start(uint64_t value) {
    sink += many(value, 1, 1, 1, 1, 1, 1, 1);
    return tail_middle(value + 1);
}

APART static int compare(const void *left, const void *right) {
    return (int)(leaf(*(const uint32_t *)left) % 97) - (int)(leaf(*(const uint32_t *)right) % 97);
}

APART static uint64_t recursion(unsigned depth) { return depth ? recursion(depth - 1) * 3 + leaf(depth) : leaf(1); }

APART static void jump_out(unsigned depth) {
    if (depth == 0) longjmp(back, 1);
    sink += on_alloca(16 + depth);
    if (sink != 1) jump_out(depth - 1);
    sink++;
}

typedef uint64_t (*function)(uint64_t);
APART static uint64_t by_pointer(function *table, unsigned count) {
    uint64_t sum = 0;
    for (unsigned at = 0; at < count; at++) sum += table[at](at + 1);
    return sum;
}

int main(void) {
    function table[] = {leaf, realigned, aligned_entry, tail_start, tail_middle};
    sink += by_pointer(table, sizeof table / sizeof *table);
    for (unsigned round = 1; round < 4; round++) {
        sink += on_alloca(100 * round) + on_array(10 * round) + on_pages(4000 * round) + realigned_array(3 * round);
    }
    uint32_t numbers[12];
    for (unsigned at = 0; at < 12; at++) numbers[at] = (uint32_t)leaf(at) % 50;
    qsort(numbers, 12, sizeof *numbers, compare);
    sink += recursion(30);
    if (setjmp(back) == 0) jump_out(4);
    // Through the linkage table, the loader's lazy binding, libc, and the vDSO.
    char text[64];
    snprintf(text, sizeof text, "%d %s %.3f", 12, "word", 1.5);
    sink += strtoul(text, NULL, 10) + strlen(text);
    struct timespec now;
    for (int round = 0; round < 2; round++) clock_gettime(CLOCK_MONOTONIC, &now), time(NULL);
    char *block = malloc(100000);
    free(realloc(block, 200000));
    printf("%s %d\n", text, (int)(sink & 1));
    return 0;
}
