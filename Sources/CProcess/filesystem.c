#define _GNU_SOURCE
#include "CProcess.h"

#include <dirent.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

int cprocess_filesystem(const char *path, cprocess_filesystem_facts *facts) {
    struct statfs found;
    if (statfs(path, &found) != 0) {
        return -1;
    }
    facts->is_overlay = found.f_type == OVERLAYFS_SUPER_MAGIC;
    facts->size = (uint64_t)found.f_blocks * (uint64_t)found.f_bsize;
    facts->free = (uint64_t)found.f_bfree * (uint64_t)found.f_bsize;
    return 0;
}

int cprocess_rename_new(int directory, const char *name, const char *new_name) {
    return renameat2(directory, name, directory, new_name, RENAME_NOREPLACE);
}

int cprocess_is_empty(int directory) {
    if (lseek(directory, 0, SEEK_SET) != 0) return -1;
    while (true) {
        _Alignas(struct dirent64) char entries[1024];
        ssize_t length = getdents64(directory, entries, sizeof entries);
        if (length <= 0) return length == 0 ? 1 : -1;
        for (ssize_t at = 0; at < length;) {
            const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) return 0;
            at += entry->d_reclen;
        }
    }
}
