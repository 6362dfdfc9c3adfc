#define _GNU_SOURCE
#include "CProcess.h"

#include <sched.h>

int cprocess_restrict_to_processors(const unsigned char *mask, size_t size) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t processor = 0; processor < size * 8 && processor < CPU_SETSIZE; processor++) {
        if (mask[processor / 8] & (1u << (processor % 8))) {
            CPU_SET(processor, &set);
        }
    }
    return sched_setaffinity(0, sizeof set, &set);
}
