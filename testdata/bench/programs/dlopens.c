/* Loads two libraries in turn, works in each for some milliseconds and unloads it, so that the
 * second is loaded at the address of the first: `dlopens LIBRARY LIBRARY MS`, of CPU time. */
#include "../../workloads/workload.h"

#include <dlfcn.h>

typedef int compare_function(const void *, const void *);

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    uint64_t ms = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
    if (ms == 0 || ms > 3600000) {
        fprintf(stderr, "usage: %s LIBRARY LIBRARY MS\n", argv[0]);
        return 2;
    }
    for (int round = 0; thread_cpu_ns() < ms * MS; round++) {
        void *library = dlopen(argv[1 + round % 2], RTLD_NOW);
        long (*work)(uint64_t, compare_function *) = NULL;
        if (library != NULL)
            *(void **)&work = dlsym(library, "work");
        if (work == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        /* 3 to 30 ms: shorter and longer than the time between two samples. */
        uint64_t until_ns = thread_cpu_ns() + (uint64_t)(3 + round % 28) * MS;
        while (thread_cpu_ns() < until_ns)
            work((uint64_t)round, compare);
        dlclose(library);
    }
    return 0;
}
