/* Preloaded before libfaketime, which takes every timerfd for one that counts by the time of day, and so stops the timers
   of libdispatch, which count by the steady clock, when the time of day jumps. These go to the kernel as they are. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

int timerfd_settime(int timer, int flags, const struct itimerspec *value, struct itimerspec *old) {
    return (int)syscall(SYS_timerfd_settime, timer, flags, value, old);
}
