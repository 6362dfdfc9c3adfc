#define _GNU_SOURCE
#include "CService.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

// Written once, before the handlers are installed; a handler only reads it.
static int writing_end = -1;

static void pass_on(int number) {
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    // A full pipe means that enough is waiting to be read: this one may be dropped.
    ssize_t ignored = write(writing_end, &byte, 1);
    (void)ignored;
    errno = saved;
}

int service_signal_pipe(void) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -1;
    }
    writing_end = ends[1];
    struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        // A signal that was ignored when we started (nohup) stays ignored.
        struct sigaction before;
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) {
            continue;
        }
        if (sigaction(numbers[i], &action, NULL) != 0) {
            return -1;
        }
    }
    return ends[0];
}
