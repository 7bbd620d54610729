// Loads a library, calls it, and unloads it again, several times; its path is beside the program's.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    (void)argc;
    char path[4096];
    const char *slash = strrchr(argv[0], '/');
    snprintf(path, sizeof path, "%.*s/plugin.so", (int)(slash - argv[0]), argv[0]);
    unsigned long sum = 0;
    for (unsigned long round = 0; round < 3; round++) {
        void *library = dlopen(path, round & 1 ? RTLD_NOW : RTLD_LAZY);
        if (!library) return 1;
        unsigned long (*run)(unsigned long) = (unsigned long (*)(unsigned long))dlsym(library, "run");
        sum += run(round) + run(round + 1);
        dlclose(library);
    }
    printf("%lu\n", sum);
    return 0;
}
