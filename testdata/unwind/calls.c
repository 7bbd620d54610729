// Calls much of a C library, for unwinders of libraries without call frame information; musl's has none.
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int compare(const void *one, const void *other) { return *(const int *)one - *(const int *)other; }

static double sum_numbers(char *text) {
    double sum = 0;
    for (char *number = strtok(text, " ;"); number; number = strtok(NULL, " ;"))
        sum += strtod(number, NULL);
    return sum;
}

static void match(const char *text) {
    regex_t pattern;
    regmatch_t found[3];
    if (regcomp(&pattern, "([0-9]+) a;$", REG_EXTENDED) == 0) {
        regexec(&pattern, text, 3, found, 0);
        regfree(&pattern);
    }
}

int main(void) {
    int numbers[20];
    char text[4096];
    for (int round = 0;; round++) {
        for (int place = 0; place < 20; place++)
            numbers[place] = (place * 7919 + round) % 1000;
        qsort(numbers, 20, sizeof *numbers, compare);
        int length = 0;
        for (int place = 0; place < 4; place++)
            length += snprintf(text + length, sizeof text - length, "%d a;%.6f;", numbers[place], sqrt(numbers[place]));
        char *copy = strdup(text);
        match(copy);
        time_t moment = (time_t)sum_numbers(copy);
        free(copy);
        struct tm parts;
        strftime(text, sizeof text, "%c", gmtime_r(&moment, &parts));
        free(realloc(calloc(1, 100 + round % 5000), 300 + round % 9000));
    }
}
