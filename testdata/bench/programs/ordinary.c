/* Ordinary work with many calls into and out of libc: sorting with a callback, formatting, parsing,
 * allocating, writing.
 *
 *   ordinary MS [REST_MS]     of CPU time; with REST_MS it rests for this long after each 2 ms */
#include "../../workloads/workload.h"

#include <string.h>

#define WORDS 300

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Makes words of random length and letters, sorts them, and sums their letters. */
FUNCTION double sort_words(uint64_t *state) {
    char *words[WORDS];
    double sum = 0;
    for (int i = 0; i < WORDS; i++) {
        char text[64];
        snprintf(text, sizeof text, "%.*f", (int)random_below(state, 12), (double)random_below(state, 1000000) / 7);
        words[i] = strdup(text);
        if (words[i] == NULL)
            abort();
    }
    qsort(words, WORDS, sizeof words[0], compare);
    for (int i = 0; i < WORDS; i++) {
        sum += strtod(words[i], NULL);
        free(words[i]);
    }
    return sum;
}

int main(int argc, char **argv) {
    uint64_t ms = argc == 2 || argc == 3 ? strtoull(argv[1], NULL, 10) : 0, state = 88172645463325252ull;
    uint64_t rest_ms = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (ms == 0 || ms > 3600000 || rest_ms > 3600000) {
        fprintf(stderr, "usage: %s MS [REST_MS]\n", argv[0]);
        return 2;
    }
    struct timespec rest = {.tv_sec = (time_t)(rest_ms / 1000), .tv_nsec = (long)(rest_ms % 1000 * MS)};
    FILE *sink = fopen("/dev/null", "w");
    if (sink == NULL)
        return 1;
    for (uint64_t now, rested = 0; (now = thread_cpu_ns()) < ms * MS;) {
        if (rest_ms > 0 && now - rested > 2 * MS) {
            nanosleep(&rest, NULL);
            rested = now;
        }
        fprintf(sink, "%g\n", sort_words(&state));
    }
    fclose(sink);
    return 0;
}
