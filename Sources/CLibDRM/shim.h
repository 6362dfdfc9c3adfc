// The headers of libdrm, for the C target CDRM alone: pkg-config gives the flags that it needs.
#include <xf86drm.h>
