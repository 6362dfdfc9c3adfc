#define _GNU_SOURCE
#include "CProcess.h"

#include "namespaces.h"
#include "vfork.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

_Static_assert(CPROCESS_O_PATH == O_PATH, "O_PATH differs on this architecture");

static void close_pair(int pair[2]) {
    if (pair[0] >= 0) close(pair[0]);
    if (pair[1] >= 0) close(pair[1]);
    pair[0] = pair[1] = -1;
}

static int open_pair(int pair[2]) {
    if (pipe2(pair, O_CLOEXEC) != 0) return errno;
    // Only our end: the two ends have flags of their own (none of a new pipe's), and a job expects a blocking stdout.
    return fcntl(pair[0], F_SETFL, O_NONBLOCK) != 0 ? errno : 0;
}

void cprocess_discard(pid_t pid) {
    kill(-pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/// What the child needs to know, and what it says when it fails. It shares our memory until it executes the program.
struct start {
    const char *path;
    char *const *argv;
    char *const *envp;
    int directory;
    int out;
    int err;
    const struct cprocess_confinement *confinement;
    int step;
    int error;
};

// The kernel's own calls: glibc's would change the user of all threads of the worker, whose memory the child shares.
static int switch_user(const struct cprocess_confinement *confinement) {
    if (syscall(SYS_setgroups, confinement->group_count, confinement->groups) != 0) return -1;
    gid_t group = confinement->group;
    if (syscall(SYS_setresgid, group, group, group) != 0) return -1;
    uid_t user = confinement->user;
    if (syscall(SYS_setresuid, user, user, user) != 0) return -1;
    // A worker that is not root keeps its capabilities over a change of user: the job has none of them.
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return (int)syscall(SYS_capset, &header, none);
}

static int confine(const struct cprocess_confinement *confinement) {
    if (confinement->data_limit) {
        struct rlimit limit = {.rlim_cur = confinement->data_limit, .rlim_max = confinement->data_limit};
        if (setrlimit(RLIMIT_DATA, &limit) != 0) return -1;
    }
    if (confinement->switch_user && switch_user(confinement) != 0) return -1;
    return confinement->deny_namespaces ? cprocess_deny_namespaces() : 0;
}

static int place_descriptors(const struct start *start) {
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0) return -1;
    // Ours are never among the first three: this process has those open from its start on.
    if (dup2(start->out, STDOUT_FILENO) < 0 || dup2(start->err, STDERR_FILENO) < 0) return -1;
    return 0;
}

static void default_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) {
        // Fails for SIGKILL, SIGSTOP and the two that belong to glibc, which are at their default in a new program.
        (void)sigaction(number, &action, NULL);
    }
}

static _Noreturn void fail(struct start *start, int step) {
    start->step = step;
    start->error = errno;
    _exit(127);
}

static void run_child(void *argument) {
    struct start *start = argument;
    default_signals();
    if (setsid() < 0 || place_descriptors(start) != 0) fail(start, CPROCESS_STEP_CONFINE);
    if (confine(start->confinement) != 0) fail(start, CPROCESS_STEP_CONFINE);
    // As the job's user: the worker's rights open no directory for it.
    if (fchdir(start->directory) != 0) fail(start, CPROCESS_STEP_DIRECTORY);
    // Libraries open descriptors without O_CLOEXEC; a job gets none of them.
    if (close_range(STDERR_FILENO + 1, ~0U, 0) != 0) fail(start, CPROCESS_STEP_CONFINE);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(start->path, start->argv, start->envp);
    fail(start, CPROCESS_STEP_EXEC);
}

/// Room for the child until it executes the program.
enum { STACK_SIZE = 32 << 10 };

/// What the kernel writes down of a process that begins now: see starttime in proc(5).
static uint64_t clock_ticks(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t tick = 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
    return ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) / tick;
}

static int start_child(struct start *start, struct cprocess_child *child, int *step) {
    // This thread waits as long as the child needs it.
    _Alignas(16) char stack[STACK_SIZE];
    int pidfd = -1;
    uint64_t before = clock_ticks();
    pid_t pid = cprocess_vfork(start->confinement->cgroup, stack, STACK_SIZE, run_child, start, &pidfd);
    int error = pid < 0 ? errno : start->error;
    uint64_t after = clock_ticks();
    *step = pid < 0 ? CPROCESS_STEP_FORK : start->step;
    if (pid >= 0 && error) {
        close(pidfd);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    child->pid = pid;
    child->pidfd = pidfd;
    child->started = before == after ? before : 0;
    return error;
}

int cprocess_spawn(const char *path, char *const argv[], char *const envp[], int directory,
                   const struct cprocess_confinement *confinement, struct cprocess_child *child, int *step) {
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    *step = CPROCESS_STEP_PIPE;
    int error = open_pair(out);
    if (!error) error = open_pair(err);
    if (!error) {
        struct start start = {
            .path = path, .argv = argv, .envp = envp, .directory = directory,
            .out = out[1], .err = err[1], .confinement = confinement,
        };
        error = start_child(&start, child, step);
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
