#define _GNU_SOURCE
#include "CService.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// The kernel sends PR_SET_PDEATHSIG when the thread that made the child ends, not only when the process does. So one
// thread, which never ends, starts all children; others hand their wish to it and wait.
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_t keeper;
static int has_keeper = 0;
static const struct service_child *wish = NULL;
static pid_t answer = 0;
static int answer_errno = 0;

// Runs in the child, between fork and exec: only calls that are safe in a signal handler.
static void become(const struct service_child *child, pid_t parent, int report) {
    if (child->has_own_group) {
        setpgid(0, 0);
    }
    int input = child->input;
    if (input < 0 && child->has_own_group) {
        input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    if (input >= 0) {
        dup2(input, STDIN_FILENO);
    }
    if (child->signal_at_our_death != 0) {
        prctl(PR_SET_PDEATHSIG, child->signal_at_our_death);
        // We may have died before the call.
        if (getppid() != parent) {
            _exit(127);
        }
    }
    if (child->output >= 0) {
        dup2(child->output, STDOUT_FILENO);
        dup2(child->output, STDERR_FILENO);
    }
    // Handlers are undone by exec; what is ignored stays so. The NATS library ignores SIGPIPE.
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(child->path, child->arguments, child->environment);
    int error = errno;
    ssize_t ignored = write(report, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

static pid_t start(const struct service_child *child) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        return -1;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become(child, parent, report[1]);
    }
    int error = errno;
    close(report[1]);
    if (pid > 0) {
        // Nothing arrives when exec succeeded: it closed the pipe.
        ssize_t count;
        do {
            count = read(report[0], &error, sizeof error);
        } while (count < 0 && errno == EINTR);
        if (count == (ssize_t)sizeof error) {
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
            }
            pid = -1;
        }
    }
    close(report[0]);
    errno = error;
    return pid;
}

static void *keep(void *unused) {
    (void)unused;
    pthread_mutex_lock(&guard);
    for (;;) {
        while (wish == NULL) {
            pthread_cond_wait(&changed, &guard);
        }
        answer = start(wish);
        answer_errno = errno;
        wish = NULL;
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

pid_t service_start_child(const struct service_child *child) {
    pthread_mutex_lock(&turn);
    pthread_mutex_lock(&guard);
    int error = 0;
    if (!has_keeper) {
        error = pthread_create(&keeper, NULL, keep, NULL);
        has_keeper = error == 0;
    }
    pid_t pid = -1;
    if (has_keeper) {
        wish = child;
        pthread_cond_broadcast(&changed);
        while (wish != NULL) {
            pthread_cond_wait(&changed, &guard);
        }
        pid = answer;
        error = answer_errno;
    }
    pthread_mutex_unlock(&guard);
    pthread_mutex_unlock(&turn);
    errno = error;
    return pid;
}

int service_child_descriptor(pid_t pid) {
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

char **service_environment(void) {
    return environ;
}
