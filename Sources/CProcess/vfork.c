#define _GNU_SOURCE
#include "vfork.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// clone3 has no function in glibc (2.36), and glibc's clone cannot start a child in a cgroup. The child has a stack of
// its own, so it cannot return from the call: what it runs is called right behind it.
static long clone_and_call(struct clone_args *arguments, void (*run)(void *), void *argument) {
#if defined(__x86_64__)
    long result = SYS_clone3;
    register void (*function)(void *) __asm__("r8") = run;
    register void *data __asm__("r9") = argument;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r9, %%rdi\n\t"
                     "callq *%%r8\n\t"
                     "hlt\n"
                     "1:"
                     : "+a"(result)
                     : "D"(arguments), "S"(sizeof *arguments), "r"(function), "r"(data)
                     : "rcx", "r11", "memory", "cc");
    return result;
#elif defined(__aarch64__)
    register long number __asm__("x8") = SYS_clone3;
    register long result __asm__("x0") = (long)arguments;
    register long size __asm__("x1") = sizeof *arguments;
    register void (*function)(void *) __asm__("x9") = run;
    register void *data __asm__("x10") = argument;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x10\n\t"
                     "blr x9\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(result)
                     : "r"(number), "r"(size), "r"(function), "r"(data)
                     : "x30", "memory", "cc");
    return result;
#else
#error "Write the call of clone3 for this architecture."
#endif
}

pid_t cprocess_vfork(int cgroup, void *stack, size_t stack_size, void (*run)(void *), void *argument, int *pidfd) {
    struct clone_args arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    if (cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
    arguments.exit_signal = SIGCHLD;
    arguments.stack = (uint64_t)(uintptr_t)stack;
    arguments.stack_size = stack_size;
    // A handler of ours must never run in the child, whose memory is ours too.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    long pid = clone_and_call(&arguments, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid >= 0) return (pid_t)pid;
    errno = (int)-pid;
    return -1;
}
