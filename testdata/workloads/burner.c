/* Uses CPU time in one function, which has a name only in the symbols or the debug information:
 * `burner SECONDS`. FUNCTION is that function's name; another SALT makes another build of the code. */
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void FUNCTION(void) {
    for (int i = 0; i < 200000; i++) {
        sink += i + SALT;
    }
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    /* Before an exec, as in a container, this process has already used CPU time. */
    clock_t begun = clock();
    while (clock() - begun < seconds * CLOCKS_PER_SEC) {
        FUNCTION();
    }
    return 0;
}
