#include "CProcess.h"

#include <linux/magic.h>
#include <sys/vfs.h>

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
