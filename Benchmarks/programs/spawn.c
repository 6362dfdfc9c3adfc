// How fast this machine can start and reap /bin/true with its output captured: the limit for anything that runs jobs.
//
//   spawn COUNT      prints the rate, the percentiles and what the parent itself pays for one as JSON

#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Processor time of this process, its children not counted.
static double own_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
        (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Starts /bin/true with a pipe for each of its outputs, reads both to their ends, and waits for it.
static int run_once(void) {
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO);
    char *arguments[] = {"/bin/true", NULL};
    pid_t pid;
    int failure = posix_spawn(&pid, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    if (failure == 0) {
        char buffer[4096];
        while (read(out[0], buffer, sizeof buffer) > 0) {}
        while (read(err[0], buffer, sizeof buffer) > 0) {}
        failure = waitpid(pid, NULL, 0) == pid ? 0 : -1;
    }
    close(out[0]);
    close(err[0]);
    return failure;
}

int main(int count_of_arguments, char **arguments) {
    long count = count_of_arguments == 2 ? strtol(arguments[1], NULL, 10) : 0;
    if (count < 1) {
        fprintf(stderr, "usage: spawn COUNT\n");
        return 64;
    }
    double *seconds = calloc((size_t)count, sizeof *seconds);
    if (seconds == NULL) return 71;
    double own = own_seconds();
    double began = now();
    for (long index = 0; index < count; index++) {
        double start = now();
        if (run_once() != 0) {
            perror("spawn: /bin/true");
            return 71;
        }
        seconds[index] = now() - start;
    }
    double elapsed = now() - began;
    own = own_seconds() - own;
    qsort(seconds, (size_t)count, sizeof *seconds, ascending);
    printf("{\"count\": %ld, \"per_second\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"parent_us\": %.1f}\n", count,
        (double)count / elapsed, seconds[count / 2] * 1e3, seconds[count * 99 / 100] * 1e3, own / (double)count * 1e6);
    free(seconds);
    return 0;
}
