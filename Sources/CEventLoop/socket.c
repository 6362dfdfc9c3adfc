#include "CEventLoop.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

// RFC 8446, 5.1: a record begins with its type, a version of two bytes and its length of two bytes.
enum { TLS_HEADER = 5, TLS_FIRST_TYPE = 20, TLS_LAST_TYPE = 24, TLS_LARGEST = 16384 + 256 };

int ceventloop_begins_tls(int fd) {
    unsigned char first;
    if (recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) return -1;
    return first >= TLS_FIRST_TYPE && first <= TLS_LAST_TYPE;
}

bool ceventloop_has_tls_record(int fd) {
    unsigned char header[TLS_HEADER];
    struct pollfd input = {.fd = fd, .events = POLLIN};
    int have = 0, needed = TLS_HEADER;
    ssize_t peeked = recv(fd, header, TLS_HEADER, MSG_PEEK | MSG_DONTWAIT);
    if (peeked < 0) return errno != EAGAIN && errno != EWOULDBLOCK;
    if (peeked == TLS_HEADER) needed += header[3] << 8 | header[4];
    // A length that cannot be is for who decrypts to refuse.
    if (peeked == 0 || needed > TLS_HEADER + TLS_LARGEST || ioctl(fd, FIONREAD, &have) != 0) return true;
    int low = have >= needed ? 1 : needed;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
    // With less it is readable at its end, and when the kernel has no memory for the rest.
    return have >= needed || poll(&input, 1, 0) != 0;
}

int ceventloop_shutdown(int fd) { return shutdown(fd, SHUT_RDWR); }
