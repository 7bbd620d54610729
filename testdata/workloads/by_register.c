/* Uses CPU time in assembler: `by_register SECONDS`. */
#include <stdlib.h>
#include <time.h>

#define FUNCTION __attribute__((noinline, noclone))

unsigned long multiply(unsigned long number, unsigned long rounds);

FUNCTION static unsigned long work(unsigned long number) {
    unsigned long sum = 0;
    for (int i = 0; i < 10; i++) sum += multiply(number + i, 100);
    return sum + 1;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    unsigned long sum = 0;
    while (clock() < seconds * CLOCKS_PER_SEC) sum += work(sum);
    return sum == 42;
}
