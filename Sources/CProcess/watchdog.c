#define _GNU_SOURCE
#include "CProcess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The watchdog is forked from a process with many threads and executes nothing, so that it needs no program of its own and
// shares the memory of its parent. Between the fork and its end it may therefore only make system calls: no malloc, no
// stdio, no lock that another thread may have held.

enum { CONTROL = 3, LIFE = 4, TIMER = 5, LAST = 5 };
enum { MAX_PROCESSES = 8192, MARKER = 256, MILLISECOND = 1000000 };

/// What the parent sends, in one write.
struct order {
    int64_t deadline;
    int64_t grace;
    int32_t leader;
    int32_t unused;
};

struct process {
    pid_t pid;
    pid_t parent;
    unsigned long long started;
    int is_member;
};

// One watchdog to a process: a forked copy of these is its own.
static char marker[MARKER];
static size_t marker_length;
static struct order orders;
static pid_t parent;
static int is_parent_gone;
static struct process table[MAX_PROCESSES];
static char entries[32768];
static char environment[16384 + MARKER];

static int64_t boot_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void path_of(char *path, pid_t pid, const char *name) {
    char digits[16];
    int count = 0;
    do digits[count++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    memcpy(path, "/proc/", 6);
    path += 6;
    while (count > 0) *path++ = digits[--count];
    *path++ = '/';
    strcpy(path, name);
}

static unsigned long long number(const char **text) {
    unsigned long long value = 0;
    while (**text == ' ' || **text == '-') ++*text;
    while (**text >= '0' && **text <= '9') value = value * 10 + (unsigned)(*(*text)++ - '0');
    return value;
}

/// Fields 3, 4, 6 and 22 of /proc/<pid>/stat, see proc(5). 0, or -1 when there is no living process.
static int look(pid_t pid, struct process *process, pid_t *session) {
    char path[48], text[1024];
    path_of(path, pid, "stat");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0) return -1;
    text[length] = 0;
    const char *rest = strrchr(text, ')');
    if (!rest || strlen(rest) < 4) return -1;
    char state = rest[2];
    if (state == 'Z' || state == 'X') return -1;
    rest += 3;
    process->pid = pid;
    process->parent = (pid_t)number(&rest);
    number(&rest);
    *session = (pid_t)number(&rest);
    for (int field = 7; field < 22; field++) number(&rest);
    process->started = number(&rest);
    return 0;
}

/// Whether the marker stands in the environment that the process was started with.
static int is_marked(pid_t pid) {
    char path[48];
    path_of(path, pid, "environ");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    size_t kept = 0;
    int found = 0;
    ssize_t length;
    while (!found && (length = read(fd, environment + kept, 16384)) > 0) {
        size_t filled = kept + (size_t)length;
        found = memmem(environment, filled, marker, marker_length) != NULL;
        kept = filled < marker_length ? filled : marker_length;
        memmove(environment, environment + filled - kept, kept);
    }
    close(fd);
    return found;
}

static int take_entries(const char *bytes, long length, int count) {
    for (long at = 0; at < length && count < MAX_PROCESSES;) {
        // struct linux_dirent64: inode and offset of 8 bytes, the length of the entry, its type, its name.
        unsigned short size;
        memcpy(&size, bytes + at + 16, sizeof size);
        const char *name = bytes + at + 19;
        at += size;
        if (*name < '0' || *name > '9') continue;
        pid_t pid = (pid_t)number(&name), session = 0;
        struct process *process = &table[count];
        if (pid == getpid() || look(pid, process, &session) != 0) continue;
        process->is_member = (orders.leader > 0 && session == orders.leader) || is_marked(pid);
        count++;
    }
    return count;
}

/// Fills the table with the living processes; returns how many there are.
static int list(void) {
    int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return 0;
    int count = 0;
    long length;
    while ((length = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0)
        count = take_entries(entries, length, count);
    close(fd);
    return count;
}

/// What descends from a member is one, whatever it made of its session and environment.
static void spread(int count) {
    for (int changed = 1; changed;) {
        changed = 0;
        for (int child = 0; child < count; child++) {
            if (table[child].is_member) continue;
            for (int other = 0; other < count; other++) {
                if (!table[other].is_member || table[other].pid != table[child].parent) continue;
                table[child].is_member = changed = 1;
                break;
            }
        }
    }
}

/// Sends a signal to everything of the attempt (0: none); returns how many processes it has.
static int signal_members(int signal) {
    int count = list(), members = 0;
    spread(count);
    for (int index = 0; index < count; index++) {
        if (!table[index].is_member) continue;
        members++;
        if (signal == 0) continue;
        // The pidfd holds whoever has the pid now; the start time tells whether that is still the one we mean.
        int fd = pidfd_open(table[index].pid, 0);
        if (fd < 0) continue;
        struct process now;
        pid_t session;
        if (look(table[index].pid, &now, &session) == 0 && now.started == table[index].started)
            pidfd_send_signal(fd, signal, NULL, 0);
        close(fd);
    }
    return members;
}

static void take_orders(void) {
    struct order next;
    ssize_t length;
    while ((length = read(CONTROL, &next, sizeof next)) == (ssize_t)sizeof next) orders = next;
    if (length == 0) is_parent_gone = 1;
}

static void set_timer(int64_t deadline) {
    if (deadline < 1) deadline = 1;
    struct itimerspec time = {.it_value = {deadline / 1000000000, deadline % 1000000000}};
    timerfd_settime(TIMER, TFD_TIMER_ABSTIME, &time, NULL);
}

/// Waits until that time, or for orders; of a parent that is gone none come any more.
static void wait_until(int64_t time) {
    set_timer(time);
    struct pollfd watched[2] = {{TIMER, POLLIN, 0}, {CONTROL, POLLIN, 0}};
    poll(watched, is_parent_gone ? 1 : 2, -1);
    if (!is_parent_gone) take_orders();
}

/// Waits until that time without taking orders: what has begun to end is not given more time.
static void rest(int64_t nanoseconds) {
    struct timespec time = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    if (!is_parent_gone) {
        int64_t deadline = orders.deadline, grace = orders.grace;
        take_orders();
        orders.deadline = deadline;
        orders.grace = grace;
    }
}

/// TERM, then KILL until nothing is left; and again what may come later, as long as the parent lives.
static void end_attempt(void) {
    int64_t end = boot_now() + orders.grace;
    signal_members(SIGTERM);
    while (boot_now() < end && signal_members(0) > 0) rest(20 * MILLISECOND);
    int64_t pause = 10 * MILLISECOND;
    for (int quiet = 0; quiet < 2 || !is_parent_gone;) {
        if (signal_members(SIGKILL) > 0) {
            quiet = 0;
            pause = 10 * MILLISECOND;
        } else {
            quiet++;
            if (pause < 500 * MILLISECOND) pause *= 2;
        }
        rest(pause);
    }
}

static void watch(int control) __attribute__((noreturn));
static void watch(int control) {
    setsid();
    prctl(PR_SET_NAME, "job-watchdog");
    // Nothing of the parent's is held: not its locks, not its output, not its directory.
    int life = pidfd_open(parent, 0), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    // Asked after the pidfd was opened: as long as this is so, it names our parent and nobody else.
    if (getppid() != parent) is_parent_gone = 1;
    if (chdir("/") != 0 || null < 0) _exit(1);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    // Past the places that they are to have, so that none is written over before it was moved.
    control = fcntl(control, F_DUPFD_CLOEXEC, LAST + 1);
    if (!is_parent_gone) life = fcntl(life, F_DUPFD_CLOEXEC, LAST + 1);
    int timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (control < 0 || timer < 0 || (life < 0 && !is_parent_gone)) _exit(1);
    timer = fcntl(timer, F_DUPFD_CLOEXEC, LAST + 1);
    if (dup2(control, CONTROL) < 0 || dup2(timer, TIMER) < 0) _exit(1);
    if (!is_parent_gone && dup2(life, LIFE) < 0) _exit(1);
    close_range(LAST + 1, ~0U, 0);
    take_orders();
    while (!is_parent_gone && boot_now() < orders.deadline) wait_until(orders.deadline);
    // Stopped in the middle of starting the process: it may not go on with that later.
    if (!is_parent_gone && orders.leader == 0) pidfd_send_signal(LIFE, SIGKILL, NULL, 0);
    end_attempt();
    _exit(0);
}

int cprocess_watchdog_start(const char *attempt, int64_t deadline, int64_t grace, struct cprocess_watchdog *watchdog) {
    if (strlen(attempt) >= MARKER) return EINVAL;
    int control[2];
    if (pipe2(control, O_CLOEXEC | O_NONBLOCK) != 0) return errno;
    sigset_t all, before;
    sigfillset(&all);
    // In the watchdog for good: only SIGKILL ends it.
    pthread_sigmask(SIG_SETMASK, &all, &before);
    parent = getpid();
    pid_t pid = _Fork();
    if (pid == 0) {
        strcpy(marker, attempt);
        // With the NUL that ends it, or the marker of one attempt could be the beginning of another's.
        marker_length = strlen(attempt) + 1;
        orders = (struct order){.deadline = deadline, .grace = grace};
        close(control[1]);
        watch(control[0]);
    }
    int error = pid < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(control[0]);
    if (!error) {
        watchdog->pid = pid;
        watchdog->control = control[1];
        watchdog->pidfd = pidfd_open(pid, 0);
        if (watchdog->pidfd >= 0) return 0;
        error = errno;
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    close(control[1]);
    return error;
}

int cprocess_watchdog_order(int control, pid_t leader, int64_t deadline, int64_t grace) {
    struct order order = {.deadline = deadline, .grace = grace, .leader = leader};
    return write(control, &order, sizeof order) == (ssize_t)sizeof order ? 0 : errno;
}

void cprocess_watchdog_end(int pidfd) {
    pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    siginfo_t info;
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR) {
    }
}
