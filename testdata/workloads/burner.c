/* Uses CPU time in one function, which only its symbols or its debug information can name: `burner SECONDS`. FUNCTION is
 * that function's name, SALT a number that makes its code another one. */
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
    /* What runs here before an exec, as in a container, has used time already. */
    clock_t begun = clock();
    while (clock() - begun < seconds * CLOCKS_PER_SEC) {
        FUNCTION();
    }
    return 0;
}
