#define _GNU_SOURCE
#include "CProcess.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

int cprocess_stat(pid_t pid, struct cprocess_stat *stat) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    int error = errno;
    close(fd);
    if (length <= 0) {
        errno = length < 0 ? error : ESRCH;
        return -1;
    }
    text[length] = 0;
    // The name may hold spaces and parentheses; the last ')' ends it.
    char *open_at = strchr(text, '('), *close_at = strrchr(text, ')');
    if (!open_at || !close_at || close_at < open_at) {
        errno = EINVAL;
        return -1;
    }
    size_t name = (size_t)(close_at - open_at - 1);
    if (name >= sizeof stat->name) name = sizeof stat->name - 1;
    memcpy(stat->name, open_at + 1, name);
    stat->name[name] = 0;
    int parent, group, session;
    unsigned long long started;
    // Fields 3 to 6, then 22: see proc(5).
    int found = sscanf(close_at + 1,
                       " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                       &stat->state, &parent, &group, &session, &started);
    if (found != 5) {
        errno = EINVAL;
        return -1;
    }
    stat->pid = pid;
    stat->parent = parent;
    stat->group = group;
    stat->session = session;
    stat->started = started;
    return 0;
}

int cprocess_all(pid_t *pids, int capacity) {
    DIR *directory = opendir("/proc");
    if (!directory) return -1;
    int count = 0;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        if (count < capacity) pids[count] = atoi(entry->d_name);
        count++;
    }
    closedir(directory);
    return count;
}

static int read_children(const char *path, pid_t *pids, int capacity, int count) {
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    int pid;
    while (fscanf(file, "%d", &pid) == 1) {
        if (count < capacity) pids[count] = pid;
        count++;
    }
    fclose(file);
    return count;
}

int cprocess_children(pid_t parent, pid_t *pids, int capacity) {
    char tasks[64];
    snprintf(tasks, sizeof tasks, "/proc/%d/task", (int)parent);
    DIR *threads = opendir(tasks);
    if (!threads) return errno == ENOENT || errno == ESRCH ? 0 : -1;
    int count = 0, error = 0;
    struct dirent *entry;
    while (!error && (entry = readdir(threads))) {
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        char path[96];
        snprintf(path, sizeof path, "%.40s/%.20s/children", tasks, entry->d_name);
        int found = read_children(path, pids, capacity, count);
        if (found >= 0) {
            count = found;
            continue;
        }
        // A thread that ended meanwhile has given its children to another one. Without the file for a thread
        // that lives, the kernel has no such files at all.
        snprintf(path, sizeof path, "%.40s/%.20s", tasks, entry->d_name);
        if (access(path, F_OK) == 0) error = ENOENT;
    }
    closedir(threads);
    if (!error) return count;
    errno = error;
    return -1;
}

int cprocess_adopted(pid_t *pids, int capacity) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    return read_children(path, pids, capacity, 0);
}

pid_t cprocess_newest(void) {
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    char text[128];
    ssize_t length = read(fd, text, sizeof text - 1);
    int error = errno;
    close(fd);
    if (length <= 0) {
        errno = length < 0 ? error : EINVAL;
        return -1;
    }
    text[length] = 0;
    // The fifth and last field: see proc(5).
    char *field = strrchr(text, ' ');
    return field ? atoi(field + 1) : -1;
}

int cprocess_is_delegated(const char *directory) {
    // Without privileges only the first can be read (systemd from 251 on), and only with them was there another before.
    char value = 0;
    if (getxattr(directory, "user.delegate", &value, 1) == 1 && value == '1') return 1;
    return getxattr(directory, "trusted.delegate", &value, 1) == 1 && value == '1';
}
