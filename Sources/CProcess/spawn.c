#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

_Static_assert(CPROCESS_O_PATH == O_PATH, "O_PATH differs on this architecture");

int cprocess_set_nonblocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -1;
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

static void close_pair(int pair[2]) {
    if (pair[0] >= 0) close(pair[0]);
    if (pair[1] >= 0) close(pair[1]);
    pair[0] = pair[1] = -1;
}

static int open_pair(int pair[2]) {
    if (pipe2(pair, O_CLOEXEC) != 0) return errno;
    // Only our end: the two ends have flags of their own, and a job expects a blocking stdout.
    if (cprocess_set_nonblocking(pair[0], 1) != 0) return errno;
    return 0;
}

static int set_actions(posix_spawn_file_actions_t *actions, int directory, int out, int err) {
    int error = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!error) error = posix_spawn_file_actions_adddup2(actions, out, STDOUT_FILENO);
    if (!error) error = posix_spawn_file_actions_adddup2(actions, err, STDERR_FILENO);
    if (!error) error = posix_spawn_file_actions_addfchdir_np(actions, directory);
    // Libraries open descriptors without O_CLOEXEC; a job gets none of them.
    if (!error) error = posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1);
    return error;
}

static int set_attributes(posix_spawnattr_t *attributes) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_setsigmask(attributes, &none);
    if (!error) error = posix_spawnattr_setsigdefault(attributes, &all);
    short flags = POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (!error) error = posix_spawnattr_setflags(attributes, flags);
    return error;
}

static int spawn(const char *path, char *const argv[], char *const envp[], int directory, int out, int err,
                 pid_t *pid, int *step) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    *step = CPROCESS_STEP_PREPARE;
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (error) {
        posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    error = set_actions(&actions, directory, out, err);
    if (!error) error = set_attributes(&attributes);
    if (!error) {
        *step = CPROCESS_STEP_EXEC;
        error = posix_spawn(pid, path, &actions, &attributes, argv, envp);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

void cprocess_discard(pid_t pid) {
    kill(-pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

int cprocess_spawn(const char *path, char *const argv[], char *const envp[], int directory,
                   struct cprocess_child *child, int *step) {
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    *step = CPROCESS_STEP_PIPE;
    int error = open_pair(out);
    if (!error) error = open_pair(err);
    if (!error) error = spawn(path, argv, envp, directory, out[1], err[1], &child->pid, step);
    if (!error) {
        child->pidfd = pidfd_open(child->pid, 0);
        if (child->pidfd < 0) {
            error = errno;
            *step = CPROCESS_STEP_WATCH;
            cprocess_discard(child->pid);
        }
    }
    if (error) {
        close_pair(out);
        close_pair(err);
        return error;
    }
    close(out[1]);
    close(err[1]);
    child->out = out[0];
    child->err = err[0];
    *step = CPROCESS_STEP_NONE;
    return 0;
}

static int64_t microseconds(struct timeval time) { return (int64_t)time.tv_sec * 1000000 + time.tv_usec; }

int cprocess_reap(pid_t pid, int *code, int *signal, struct cprocess_usage *usage) {
    int status = 0;
    struct rusage used = {0};
    pid_t found;
    do {
        found = wait4(pid, &status, WNOHANG, &used);
    } while (found < 0 && errno == EINTR);
    if (found <= 0) return found;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    *signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    usage->user_us = microseconds(used.ru_utime);
    usage->system_us = microseconds(used.ru_stime);
    usage->max_rss_kib = used.ru_maxrss;
    return 1;
}

int cprocess_peek(pid_t *dead) {
    siginfo_t info;
    info.si_pid = 0;
    int result;
    do {
        result = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL);
    } while (result < 0 && errno == EINTR);
    if (result < 0) return errno == ECHILD ? 0 : -1;
    if (info.si_pid == 0) return 1;
    *dead = info.si_pid;
    return 2;
}

int cprocess_pidfd(pid_t pid) { return pidfd_open(pid, 0); }

int cprocess_pidfd_kill(int pidfd, int signal) { return pidfd_send_signal(pidfd, signal, NULL, 0); }

int cprocess_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

int cprocess_openat(int directory, const char *path, int flags, mode_t mode) {
    int fd;
    do {
        fd = openat(directory, path, flags, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}
