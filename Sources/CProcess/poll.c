#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

int cprocess_poll_open(void) { return epoll_create1(EPOLL_CLOEXEC); }

int cprocess_poll_add(int poll, int fd, uint64_t token) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = token}};
    return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

int cprocess_poll_remove(int poll, int fd) { return epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL); }

int cprocess_poll_wait(int poll, uint64_t *tokens, int capacity, int timeout_ms) {
    struct epoll_event events[64];
    int count = epoll_wait(poll, events, capacity < 64 ? capacity : 64, timeout_ms);
    if (count < 0) return errno == EINTR ? 0 : -1;
    for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
    return count;
}

int cprocess_wake_open(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

void cprocess_wake_signal(int fd) { (void)eventfd_write(fd, 1); }

void cprocess_wake_clear(int fd) {
    eventfd_t count;
    (void)eventfd_read(fd, &count);
}
