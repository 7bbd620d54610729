// Calls assembler without call frame information, whose frame is in a register.
#include <stdio.h>

unsigned long multiply(unsigned long number, unsigned long rounds);

static __attribute__((noinline)) unsigned long work(unsigned long number) { return multiply(number, 5) + 1; }

int main(void) {
    unsigned long sum = 0;
    for (int i = 0; i < 20; i++) sum += work(sum);
    printf("%lu\n", sum);
    return 0;
}
