#ifndef CPROCESS_VFORK_H
#define CPROCESS_VFORK_H

#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// Starts a child that shares this process's memory and runs a function on a stack of its own, while this thread
/// waits until it has executed a program or ended. All signals are blocked in the child.
///
/// The function must not return, and may call only what is safe in a child of vfork: no locks, no memory, and none of
/// glibc's functions that change all threads (setuid and its kin).
///
/// cgroup is an open directory of a cgroup2 file system in which the child begins, or -1. Returns the child's id, and
/// its pidfd (close-on-exec); -1 with errno.
pid_t cprocess_vfork(int cgroup, void *stack, size_t stack_size, void (*run)(void *), void *argument, int *pidfd);

#endif
