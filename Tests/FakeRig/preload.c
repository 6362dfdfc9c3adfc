// Loaded before a program (LD_PRELOAD, in front of umockdev's preload library): makes the empty files below
// $UMOCKDEV_DIR/dev/dri answer as render nodes of amdgpu, and reads of any file below $UMOCKDEV_DIR fail or take
// their time on demand. Cards are called "… (fake)". What it answers stands in files, so that a test can change it while
// the program runs:
//
//   ioctl/<node>/<key>       a number that the driver tells; "errno" makes every ioctl of the node fail
//   fault/<path>             "errno N" or "delay MILLISECONDS" for reads of <path>
//   write-fault/<path>       the same for writes
//   open-fault/dev/dri/<n>   an errno for opening the node
#define _GNU_SOURCE
#include <amdgpu_drm.h>
#include <dlfcn.h>
#include <drm.h>
#include <errno.h>
#include <fcntl.h>
#include <pci/pci.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define NODES "/dev/dri/"

static const char *rig(void) { return getenv("UMOCKDEV_DIR"); }

/// The content of a file of the rig, past all interposition; its length or -1.
static ssize_t rig_file(const char *path, char *text, size_t size) {
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return -1;
    ssize_t count = syscall(SYS_read, descriptor, text, size - 1);
    syscall(SYS_close, descriptor);
    if (count >= 0) text[count] = 0;
    return count;
}

/// The path of a descriptor inside the rig ("/sys/…", "/dev/…"), or NULL when it is none of the rig's.
static const char *inside_rig(int descriptor, char *path, size_t size) {
    const char *root = rig();
    if (!root) return NULL;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    size_t prefix = strlen(root);
    if (strncmp(path, root, prefix) != 0 || path[prefix] != '/') return NULL;
    return path + prefix;
}

static long long told(const char *node, const char *key, long long otherwise) {
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s/ioctl/%s/%s", rig(), node, key);
    return rig_file(path, text, sizeof text) > 0 ? strtoll(text, NULL, 0) : otherwise;
}

// MARK: ioctl

static void answer_text(char *target, __kernel_size_t *size, const char *text) {
    size_t length = strlen(text);
    if (target && *size) memcpy(target, text, *size < length ? *size : length);
    *size = length;
}

static void answer(const struct drm_amdgpu_info *request, const void *value, size_t size) {
    void *target = (void *)(uintptr_t)request->return_pointer;
    memset(target, 0, request->return_size);
    memcpy(target, value, request->return_size < size ? request->return_size : size);
}

static int fail(int code) {
    errno = code;
    return -1;
}

static int amdgpu_info(const char *node, const struct drm_amdgpu_info *request) {
    uint32_t number = 0;
    switch (request->query) {
    case AMDGPU_INFO_ACCEL_WORKING:
        number = (uint32_t)told(node, "accel_working", 1);
        break;
    case AMDGPU_INFO_VRAM_LOST_COUNTER:
        number = (uint32_t)told(node, "vram_lost", 0);
        break;
    case AMDGPU_INFO_SENSOR: {
        char key[32];
        snprintf(key, sizeof key, "sensor%u", request->sensor_info.type);
        long long value = told(node, key, -1);
        if (value < 0) return fail(EINVAL);
        number = (uint32_t)value;
        break;
    }
    case AMDGPU_INFO_MEMORY: {
        struct drm_amdgpu_memory_info memory = {0};
        memory.vram.total_heap_size = (uint64_t)told(node, "vram_total", 8LL << 30);
        memory.vram.heap_usage = (uint64_t)told(node, "vram_used", 0);
        answer(request, &memory, sizeof memory);
        return 0;
    }
    case AMDGPU_INFO_DEV_INFO: {
        struct drm_amdgpu_info_device device = {0};
        device.device_id = (uint32_t)told(node, "device_id", 0x67df);
        device.pci_rev = (uint32_t)told(node, "revision", 0xe7);
        device.family = AMDGPU_FAMILY_VI;
        device.num_shader_engines = 4;
        device.num_shader_arrays_per_engine = 1;
        device.max_engine_clock = 1366000;
        device.max_memory_clock = 2000000;
        device.ids_flags = (uint64_t)told(node, "ids_flags", 0);
        device.virtual_address_offset = 0x200000;
        device.virtual_address_max = 0x800000000000ULL;
        device.virtual_address_alignment = 4096;
        device.gart_page_size = 4096;
        answer(request, &device, sizeof device);
        return 0;
    }
    case AMDGPU_INFO_READ_MMR_REG:
        memset((void *)(uintptr_t)request->return_pointer, 0, request->return_size);
        return 0;
    default:
        return fail(EINVAL);
    }
    answer(request, &number, sizeof number);
    return 0;
}

static int drm_ioctl(const char *node, unsigned long request, void *argument) {
    long long code = told(node, "errno", 0);
    if (code) return fail((int)code);
    switch (request) {
    case DRM_IOCTL_VERSION: {
        struct drm_version *version = argument;
        version->version_major = 3;
        version->version_minor = 54;
        version->version_patchlevel = 0;
        answer_text(version->name, &version->name_len, "amdgpu");
        answer_text(version->date, &version->date_len, "20150101");
        answer_text(version->desc, &version->desc_len, "AMD GPU");
        return 0;
    }
    case DRM_IOCTL_GET_CLIENT:
        ((struct drm_client *)argument)->auth = 1;
        return 0;
    case DRM_IOCTL_AMDGPU_INFO:
        return amdgpu_info(node, argument);
    default:
        return fail(ENOTTY);
    }
}

int ioctl(int descriptor, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    char path[4096];
    const char *file = ((request >> 8) & 0xff) == 'd' ? inside_rig(descriptor, path, sizeof path) : NULL;
    if (file && strncmp(file, NODES, strlen(NODES)) == 0) return drm_ioctl(file + strlen(NODES), request, argument);
    int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return next(descriptor, request, argument);
}

// MARK: files

/// The fault of a kind that a call with the descriptor is to have: an errno, or 0 (perhaps after a while).
static int fault(const char *kind, int descriptor) {
    char path[4096], fault_path[8300], text[64];
    const char *file = inside_rig(descriptor, path, sizeof path);
    if (!file) return 0;
    snprintf(fault_path, sizeof fault_path, "%s/%s%s", rig(), kind, file);
    int number = 0;
    if (rig_file(fault_path, text, sizeof text) <= 0) return 0;
    if (sscanf(text, "errno %d", &number) == 1) return number;
    if (sscanf(text, "delay %d", &number) == 1) {
        struct timespec wait = {number / 1000, (number % 1000) * 1000000L};
        nanosleep(&wait, NULL);
    }
    return 0;
}

ssize_t read(int descriptor, void *buffer, size_t count) {
    int code = fault("fault", descriptor);
    if (code) return fail(code);
    ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
    return next(descriptor, buffer, count);
}

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
    int code = fault("fault", descriptor);
    if (code) return fail(code);
    return syscall(SYS_pread64, descriptor, buffer, count, offset);
}

ssize_t pread64(int descriptor, void *buffer, size_t count, off64_t offset) {
    return pread(descriptor, buffer, count, offset);
}

ssize_t write(int descriptor, const void *buffer, size_t count) {
    int code = fault("write-fault", descriptor);
    if (code) return fail(code);
    return syscall(SYS_write, descriptor, buffer, count);
}

/// libdrm takes a node for one only when it is a character device of DRM's major number.
int fstat(int descriptor, struct stat *status) {
    int (*next)(int, struct stat *) = dlsym(RTLD_NEXT, "fstat");
    int result = next(descriptor, status);
    char path[4096], link[4400], target[64];
    const char *file = result == 0 ? inside_rig(descriptor, path, sizeof path) : NULL;
    if (!file || strncmp(file, NODES, strlen(NODES)) != 0) return result;
    snprintf(link, sizeof link, "%s/dev/.node/dri_%s", rig(), file + strlen(NODES));
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, target, sizeof target - 1);
    unsigned major_number, minor_number;
    if (length > 0 && (target[length] = 0, sscanf(target, "%u:%u", &major_number, &minor_number) == 2)) {
        status->st_mode = (status->st_mode & ~S_IFMT) | S_IFCHR;
        status->st_rdev = makedev(major_number, minor_number);
    }
    return result;
}

/// Opens a node of the rig past umockdev, which would emulate ioctls on it; -2 when the path is none.
static int open_node(const char *path, int flags) {
    const char *root = rig();
    if (!root || strncmp(path, NODES, strlen(NODES)) != 0) return -2;
    char inside[4096], text[64];
    snprintf(inside, sizeof inside, "%s/open-fault%s", root, path);
    if (rig_file(inside, text, sizeof text) > 0) return fail(atoi(text));
    snprintf(inside, sizeof inside, "%s%s", root, path);
    return (int)syscall(SYS_openat, AT_FDCWD, inside, flags & ~O_CREAT);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        int mode = va_arg(arguments, int);                                                                             \
        va_end(arguments);                                                                                             \
        int descriptor = open_node(path, flags);                                                                       \
        if (descriptor != -2) return descriptor;                                                                       \
        int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                                                 \
        return next(path, flags, mode);                                                                                \
    }

OPEN(open)
OPEN(open64)

// MARK: names

#define MARK "(fake)"

/// What libpci calls a vendor or a device, devices with the mark.
char *pci_lookup_name(struct pci_access *access, char *buffer, int size, int flags, ...) {
    char *(*next)(struct pci_access *, char *, int, int, ...) = dlsym(RTLD_NEXT, "pci_lookup_name");
    va_list arguments;
    va_start(arguments, flags);
    int vendor = va_arg(arguments, int);
    int device = flags & PCI_LOOKUP_DEVICE ? va_arg(arguments, int) : 0;
    va_end(arguments);
    char *name = next(access, buffer, size, flags, vendor, device);
    if (!rig() || !(flags & PCI_LOOKUP_DEVICE)) return name;
    char marked[256];
    int room = size - (int)sizeof " " MARK;
    snprintf(marked, sizeof marked, "%.*s%s" MARK, room < 0 ? 0 : room, name ? name : "", name && *name ? " " : "");
    snprintf(buffer, (size_t)size, "%s", marked);
    return buffer;
}

/// What libdrm calls an AMD card, with the mark.
const char *amdgpu_get_marketing_name(void *device) {
    const char *(*next)(void *) = dlsym(RTLD_NEXT, "amdgpu_get_marketing_name");
    const char *name = next ? next(device) : NULL;
    if (!rig() || !name) return name;
    static _Thread_local char marked[256];
    snprintf(marked, sizeof marked, "%s " MARK, name);
    return marked;
}
