// Signal handlers, on the stack that was interrupted and on one of their own. The stepper sends SIGUSR1 at any instruction.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APART __attribute__((noinline, noclone))

static volatile unsigned long sink;
static sigjmp_buf back;
static volatile int *volatile nowhere;

APART static void work(unsigned long count) {
    for (unsigned long at = 0; at < count; at++) {
        char text[32];
        sink += (unsigned long)snprintf(text, sizeof text, "%lu", at * 12345);
    }
}

APART static void deeper(unsigned depth) {
    if (depth) deeper(depth - 1);
    else work(2);
    sink++;
}

static void on_user1(int number) { deeper((unsigned)number % 3 + 1); }

static void on_user2(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    sink += (unsigned long)number;
    raise(SIGUSR1);
}

static void on_fault(int number) {
    deeper(2);
    siglongjmp(back, number);
}

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

int main(int argc, char **argv) {
    (void)argv;
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, NULL);
    int flags = argc > 1 ? SA_ONSTACK : 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_user2;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(SIGUSR2, &action, NULL);
    handle(SIGSEGV, on_fault, flags);
    handle(SIGUSR1, on_user1, flags);
    for (volatile int round = 0; round < 3; round++) {
        work(3);
        raise(SIGUSR2);
        if (sigsetjmp(back, 1) == 0) *nowhere = 1;
        char *block = malloc(1000u << round);
        memset(block, round, 1000);
        free(block);
    }
    return (int)(sink & 1);
}
