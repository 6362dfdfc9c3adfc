#ifndef CSERVICE_H
#define CSERVICE_H

/// Installs handlers for SIGTERM, SIGINT and SIGHUP that write the signal's number, one byte, into a pipe.
/// Returns the pipe's reading end (not blocking, closed by exec), or -1 with errno set. Call once.
int service_signal_pipe(void);

#endif
