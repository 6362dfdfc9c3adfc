#ifndef CHEAP_H
#define CHEAP_H

#include <stddef.h>

/// Bytes that this program has allocated and not freed: unlike its resident memory, free of the allocator's own stock.
size_t cheap_bytes_in_use(void);

#endif
