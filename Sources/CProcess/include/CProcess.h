#ifndef CPROCESS_H
#define CPROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// What Swift's Glibc module cannot express: posix_spawn with the GNU file actions, pidfds, waitid, and the
// parts of /proc that tell which processes belong to a job. Nothing here keeps state.

/// Which part of cprocess_spawn failed.
enum cprocess_step {
    CPROCESS_STEP_NONE = 0,
    /// A pipe or memory could not be had.
    CPROCESS_STEP_PIPE = 1,
    /// The process could not be made.
    CPROCESS_STEP_FORK = 2,
    /// The process could not be confined, or its descriptors could not be put in place.
    CPROCESS_STEP_CONFINE = 3,
    /// The working directory may not be entered by the user that the process runs as.
    CPROCESS_STEP_DIRECTORY = 4,
    /// The program could not be executed.
    CPROCESS_STEP_EXEC = 5,
};

/// What holds a process that is started, from its first instruction on.
struct cprocess_confinement {
    /// An open directory of a cgroup2 file system in which the process begins; -1: in the cgroup of this one.
    int cgroup;
    /// Whether it runs as another user, without any capability. This process must be allowed to switch.
    int switch_user;
    uid_t user;
    gid_t group;
    const gid_t *groups;
    size_t group_count;
    /// Whether neither it nor what it starts may make or enter namespaces. Set-user-id programs give no rights then.
    int deny_namespaces;
    /// RLIMIT_DATA in bytes, of each of its processes; 0: as it is here.
    uint64_t data_limit;
};

/// A process that was started.
struct cprocess_child {
    pid_t pid;
    /// A pidfd of the process, close-on-exec.
    int pidfd;
    /// The read ends of its stdout and stderr, non-blocking, close-on-exec.
    int out;
    int err;
    /// When it began, in clock ticks after boot, as starttime in proc(5); 0: has to be looked up there.
    uint64_t started;
};

/// Starts a program as the leader of a session of its own, with stdin from /dev/null, stdout and stderr into
/// pipes, every signal at its default, none blocked, and no other descriptor open.
///
/// Returns 0, or the errno of the step that is stored in *step. Blocks until the program was executed or refused.
int cprocess_spawn(const char *path, char *const argv[], char *const envp[], int directory,
                   const struct cprocess_confinement *confinement, struct cprocess_child *child, int *step);

/// Kills a child with its group and waits for it: for a child that was started and cannot be watched.
void cprocess_discard(pid_t pid);

/// A process that ends everything of an attempt at its deadline, and at once when its parent has died.
struct cprocess_watchdog {
    pid_t pid;
    /// A pidfd of it, close-on-exec.
    int pidfd;
    /// Where its orders go, non-blocking, close-on-exec. It ends the attempt when this is closed.
    int control;
};

/// Forks a watchdog of this process, which must not be stopped or ended by anything but cprocess_watchdog_end.
///
/// attempt is what stands in the environment of every process of the attempt, "NAME=value", and of no other, under 256
/// bytes; deadline is in nanoseconds of CLOCK_BOOTTIME, grace in nanoseconds from SIGTERM to SIGKILL. A watchdog whose time
/// comes before it was told the attempt's process kills its parent: it is stopped, and could start that process later.
/// Returns 0, or an errno.
int cprocess_watchdog_start(const char *attempt, int64_t deadline, int64_t grace, struct cprocess_watchdog *watchdog);
/// Tells the watchdog the attempt's process, once there is one (0 until then), and another deadline. Returns 0, or an errno:
/// then the last deadline stands. What has begun to end ends all the same.
int cprocess_watchdog_order(int control, pid_t leader, int64_t deadline, int64_t grace);
/// Ends the watchdog and reaps it: nothing of the attempt is left.
void cprocess_watchdog_end(int pidfd);

/// The resources that a reaped process and the children it waited for have used.
struct cprocess_usage {
    int64_t user_us;
    int64_t system_us;
    int64_t max_rss_kib;
};

/// Reaps a child that is dead: 1 when it was reaped, 0 when it is alive, -1 (errno) otherwise.
/// *signal is 0 for a process that exited by itself with *code.
int cprocess_reap(pid_t pid, int *code, int *signal, struct cprocess_usage *usage);

/// Looks at all children without reaping any: 0 when there are none, 1 when all are alive, 2 when *dead waits
/// to be reaped, -1 (errno) otherwise.
int cprocess_peek(pid_t *dead);

/// A pidfd, close-on-exec; -1 (errno ESRCH when the process is gone).
int cprocess_pidfd(pid_t pid);
/// Sends a signal to exactly the process that a pidfd names; 0, or -1 (errno).
int cprocess_pidfd_kill(int pidfd, int signal);

/// Makes this process the one to which orphaned descendants fall; 0, or -1 (errno).
int cprocess_become_subreaper(void);

/// What /proc/<pid>/stat says.
struct cprocess_stat {
    pid_t pid;
    pid_t parent;
    pid_t group;
    pid_t session;
    /// One letter: R, S, D (cannot be killed now), Z (dead, not reaped), ...
    char state;
    char name[17];
    /// Clock ticks (1/100 s) after boot.
    uint64_t started;
};

/// 0, or -1 (errno; ENOENT or ESRCH when the process is gone).
int cprocess_stat(pid_t pid, struct cprocess_stat *stat);

/// Writes the ids of all processes, at most capacity of them; returns how many there are, or -1 (errno).
int cprocess_all(pid_t *pids, int capacity);

/// Writes the ids of a process's own children, of all its threads; returns how many there are: none when it is gone.
/// -1 with ENOENT on a kernel without CONFIG_PROC_CHILDREN.
int cprocess_children(pid_t parent, pid_t *pids, int capacity);

/// The same of those children of this process that fell to it when their parents died, with some others perhaps.
/// The kernel gives them to the first living thread (find_alive_thread in kernel/exit.c), which is the main one for as long
/// as it lives; looking at that one alone is many times cheaper. -1 with ENOENT when the kernel has no such file.
int cprocess_adopted(pid_t *pids, int capacity);

/// The id that was given to the newest process or thread of this machine, or -1 (errno).
pid_t cprocess_newest(void);

/// Opens a file below a directory without leaving it: no symbolic link is followed in the last place.
/// (open is variadic, which Swift cannot call with a mode.)
int cprocess_openat(int directory, const char *path, int flags, mode_t mode);

/// renameat2, which needs _GNU_SOURCE: gives an entry of a directory another name that is free. 0, or -1 (errno; EEXIST:
/// there is one of that name).
int cprocess_rename_new(int directory, const char *name, const char *new_name);

/// Whether a directory that is open for reading holds nothing: 1 or 0, or -1 (errno).
int cprocess_is_empty(int directory);

/// O_PATH, which needs _GNU_SOURCE: a descriptor that names a place and cannot read it.
enum { CPROCESS_O_PATH = 010000000 };

/// Whether systemd has marked a cgroup's directory as left to the unit in it (Delegate=): 1 or 0.
int cprocess_is_delegated(const char *directory);

/// Restricts this process, its later threads and its children to the processors whose bits are set (bit 0 of byte 0
/// is processor 0). Returns 0, or -1 with errno set when none of them is to be had.
int cprocess_restrict_to_processors(const unsigned char *mask, size_t size);

/// Of the file system that a path lies on: whether it is an overlay, and its bytes. Those of an overlay are of the file
/// system that it writes to.
typedef struct {
    int is_overlay;
    uint64_t size;
    uint64_t free;
} cprocess_filesystem_facts;

/// 0, or -1 with errno set.
int cprocess_filesystem(const char *path, cprocess_filesystem_facts *facts);

#endif
