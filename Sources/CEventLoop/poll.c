#define _GNU_SOURCE
#include "CEventLoop.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

int ceventloop_open(void) { return epoll_create1(EPOLL_CLOEXEC); }

int ceventloop_add(int poll, int fd, uint64_t token) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = token}};
    return epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

int ceventloop_set_output(int poll, int fd, uint64_t token, bool output) {
    struct epoll_event event = {.events = output ? EPOLLIN | EPOLLOUT : EPOLLIN, .data = {.u64 = token}};
    return epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
}

int ceventloop_remove(int poll, int fd) { return epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL); }

int ceventloop_wait(int poll, uint64_t *tokens, int capacity, int timeout_ms) {
    struct epoll_event events[64];
    int count = epoll_wait(poll, events, capacity < 64 ? capacity : 64, timeout_ms);
    if (count < 0) return errno == EINTR ? 0 : -1;
    for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
    return count;
}

int ceventloop_wake_open(int poll) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
    if (fd >= 0 && epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void ceventloop_wake(int fd) { (void)eventfd_write(fd, 1); }
