#define _GNU_SOURCE
#include "namespaces.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
enum { NATIVE = AUDIT_ARCH_X86_64 };
#elif defined(__aarch64__)
enum { NATIVE = AUDIT_ARCH_AARCH64 };
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define ANSWER(error) RETURN(SECCOMP_RET_ERRNO | (error))
/// Goes on with the next instruction if equal, else skips one.
#define IF(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)

#define NAMESPACES \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

// As systemd's RestrictNamespaces= (src/shared/seccomp-util.c): clone3 passes its flags where no filter can see them,
// and libraries that are told ENOSYS use clone, whose flags are its first argument.
int cprocess_deny_namespaces(void) {
    struct sock_filter program[] = {
        LOAD(arch),
        IF(NATIVE),
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
        // Another system call convention (32-bit programs): no way to tell its numbers here.
        ANSWER(EPERM),
        LOAD(nr),
        IF(SYS_clone3),
        ANSWER(ENOSYS),
        IF(SYS_unshare),
        ANSWER(EPERM),
        IF(SYS_setns),
        ANSWER(EPERM),
#if defined(__x86_64__)
        // The x32 convention has the same architecture and numbers from here on.
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        ANSWER(EPERM),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
        LOAD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1),
        ANSWER(EPERM),
        RETURN(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}
