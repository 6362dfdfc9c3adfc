#ifndef MAESTRO_CEVENTLOOP_H
#define MAESTRO_CEVENTLOOP_H

#include <stdbool.h>
#include <stdint.h>

/// An epoll instance, close-on-exec, or -1 (errno).
int ceventloop_open(void);
/// Watches a descriptor for input and hang-up (level-triggered); 0, or -1 (errno).
int ceventloop_add(int poll, int fd, uint64_t token);
/// The same for output as well, or for input alone again; 0, or -1 (errno).
int ceventloop_set_output(int poll, int fd, uint64_t token, bool output);
/// Ends a watch; 0, or -1 (errno).
int ceventloop_remove(int poll, int fd);
/// Waits for any watched descriptor and writes the tokens of those that are ready; returns how many there are
/// (0 when the time is up or a signal came), or -1 (errno). A negative timeout waits for ever.
int ceventloop_wait(int poll, uint64_t *tokens, int capacity, int timeout_ms);

/// An eventfd that is watched under token 0, close-on-exec, or -1 (errno). Each signal wakes one wait (edge-triggered),
/// so nobody has to read it.
int ceventloop_wake_open(int poll);
/// Cannot fail but for a full counter, which takes more signals than there will be.
void ceventloop_wake(int fd);

/// Whether what waits in a socket begins like a TLS record; -1 when nothing waits.
int ceventloop_begins_tls(int fd);
/// Whether a whole TLS record waits in a socket, or what has to be read without it: the end, an error, or as much as the
/// kernel has memory for. If not, the socket counts as readable only once the rest of the record is there.
bool ceventloop_has_tls_record(int fd);
/// Ends a connection at once, in both directions; 0, or -1 (errno).
int ceventloop_shutdown(int fd);

#endif
