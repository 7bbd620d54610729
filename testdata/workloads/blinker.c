/* Starts `blink` again and again, one process after the other, until the children have used their
 * CPU time. Reports only the time of the children. */
#define _GNU_SOURCE
#include "workload.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    uint64_t children_ns = seconds_argument(argc, argv);
    char self[PATH_MAX] = {0}, path[PATH_MAX + 8];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) {
        perror("failed to read the link /proc/self/exe");
        return 1;
    }
    snprintf(path, sizeof path, "%s/blink", dirname(self));
    char *const arguments[] = {"blink", NULL}, *const environment[] = {NULL};
    struct share shares[] = {{"flash", 0}};
    int ends[2];
    posix_spawn_file_actions_t actions;
    if (pipe2(ends, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], 3) != 0) {
        perror("failed to make a pipe");
        return 1;
    }
    while (rusage_ns(RUSAGE_CHILDREN) < children_ns) {
        pid_t child;
        int status, error = posix_spawn(&child, path, &actions, NULL, arguments, environment);
        if (error != 0) {
            fprintf(stderr, "failed to start `%s`: %s\n", path, strerror(error));
            return 1;
        }
        if (waitpid(child, &status, 0) < 0 || status != 0) {
            fprintf(stderr, "`%s` did not end well: status %d\n", path, status);
            return 1;
        }
        uint64_t spent;
        if (read(ends[0], &spent, sizeof spent) != sizeof spent) {
            fprintf(stderr, "`%s` did not say what it spent\n", path);
            return 1;
        }
        shares[0].ns += spent;
    }
    report(rusage_ns(RUSAGE_CHILDREN), shares, 1);
    return 0;
}
