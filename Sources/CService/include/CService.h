#ifndef CSERVICE_H
#define CSERVICE_H

#include <sys/types.h>

/// Installs handlers for SIGTERM, SIGINT and SIGHUP that write the signal's number, one byte, into a pipe.
/// Returns the pipe's reading end (not blocking, closed by exec), or -1 with errno set. Call once.
int service_signal_pipe(void);

/// The environment: strings of the form NAME=VALUE, ended by NULL. To be read before anything changes it.
char **service_environment(void);

/// What to start, and how.
struct service_child {
    /// The program's path; it is not looked for in PATH.
    const char *path;
    /// Both end in NULL.
    char *const *arguments;
    char *const *environment;
    /// Becomes standard input; -1 for /dev/null, or ours where the child shares our group.
    int input;
    /// Becomes standard output and standard error; -1 leaves them as ours.
    int output;
    /// Sent by the kernel when this process dies, however it dies; 0 for none.
    int signal_at_our_death;
    /// Whether the child gets a process group of its own, so that Ctrl-C does not reach it.
    int has_own_group;
};

/// Starts a child whose life is bound to this process.
/// Returns its process id, or -1 with errno set: also when the program could not be executed.
pid_t service_start_child(const struct service_child *child);

/// A descriptor that becomes readable when the child ends, or -1 with errno set.
int service_child_descriptor(pid_t pid);

#endif
