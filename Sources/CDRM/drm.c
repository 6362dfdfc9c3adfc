#include "CDRM.h"

#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xf86drm.h>

#define MOST_DEVICES 256

struct cdrm_amdgpu {
    amdgpu_device_handle handle;
    uint32_t minor_version;
};

static void copy_text(char *target, size_t size, const char *text) { snprintf(target, size, "%s", text ? text : ""); }

int cdrm_list(struct cdrm_nodes *nodes, size_t capacity) {
    drmDevicePtr devices[MOST_DEVICES];
    // Without DRM_DEVICE_GET_PCI_REVISION: reading the revision would wake sleeping cards.
    int found = drmGetDevices2(0, devices, MOST_DEVICES);
    if (found < 0) return found;
    int count = 0;
    for (int index = 0; index < found && index < MOST_DEVICES; index++) {
        drmDevicePtr device = devices[index];
        if (device->bustype != DRM_BUS_PCI) continue;
        if ((size_t)count < capacity) {
            struct cdrm_nodes *entry = &nodes[count];
            memset(entry, 0, sizeof *entry);
            entry->domain = device->businfo.pci->domain;
            entry->bus = device->businfo.pci->bus;
            entry->device = device->businfo.pci->dev;
            entry->function = device->businfo.pci->func;
            if (device->available_nodes & (1 << DRM_NODE_PRIMARY))
                copy_text(entry->primary, sizeof entry->primary, device->nodes[DRM_NODE_PRIMARY]);
            if (device->available_nodes & (1 << DRM_NODE_RENDER))
                copy_text(entry->render, sizeof entry->render, device->nodes[DRM_NODE_RENDER]);
        }
        count++;
    }
    drmFreeDevices(devices, found < MOST_DEVICES ? found : MOST_DEVICES);
    return count;
}

int cdrm_version(const char *node, char *name, size_t name_size, char *version, size_t version_size) {
    int descriptor = open(node, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return errno;
    errno = 0;
    drmVersionPtr told = drmGetVersion(descriptor);
    int failure = errno ? errno : EIO;
    close(descriptor);
    if (!told) return failure;
    copy_text(name, name_size, told->name);
    snprintf(version, version_size, "%d.%d.%d", told->version_major, told->version_minor, told->version_patchlevel);
    drmFreeVersion(told);
    return 0;
}

int cdrm_amdgpu_open(const char *render_node, struct cdrm_amdgpu **card) {
    *card = NULL;
    int descriptor = open(render_node, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return errno;
    struct cdrm_amdgpu *made = calloc(1, sizeof *made);
    if (!made) {
        close(descriptor);
        return ENOMEM;
    }
    uint32_t major = 0;
    int result = amdgpu_device_initialize(descriptor, &major, &made->minor_version, &made->handle);
    // The library works on a duplicate of its own.
    close(descriptor);
    if (result != 0) {
        free(made);
        return result < 0 ? -result : result;
    }
    *card = made;
    return 0;
}

void cdrm_amdgpu_close(struct cdrm_amdgpu *card) {
    amdgpu_device_deinitialize(card->handle);
    free(card);
}

int cdrm_amdgpu_facts(struct cdrm_amdgpu *card, struct cdrm_amdgpu_facts *facts) {
    memset(facts, 0, sizeof *facts);
    struct amdgpu_gpu_info info;
    int result = amdgpu_query_gpu_info(card->handle, &info);
    if (result != 0) return -result;
    copy_text(facts->name, sizeof facts->name, amdgpu_get_marketing_name(card->handle));
    facts->is_integrated = (info.ids_flags & AMDGPU_IDS_FLAGS_FUSION) != 0;
    facts->max_core_clock_hz = info.max_engine_clk * 1000ULL;
    facts->max_memory_clock_hz = info.max_memory_clk * 1000ULL;
    return 0;
}

static int sensor(struct cdrm_amdgpu *card, unsigned kind, uint32_t *value) {
    return -amdgpu_query_sensor_info(card->handle, kind, sizeof *value, value);
}

static int information(struct cdrm_amdgpu *card, unsigned kind, uint32_t *value) {
    return -amdgpu_query_info(card->handle, kind, sizeof *value, value);
}

int cdrm_amdgpu_value(struct cdrm_amdgpu *card, enum cdrm_amdgpu_value which, uint32_t *value) {
    switch (which) {
    case CDRM_AMDGPU_ACCEL_WORKING: return information(card, AMDGPU_INFO_ACCEL_WORKING, value);
    case CDRM_AMDGPU_VRAM_LOST_COUNTER: return information(card, AMDGPU_INFO_VRAM_LOST_COUNTER, value);
    case CDRM_AMDGPU_CORE_CLOCK: return sensor(card, AMDGPU_INFO_SENSOR_GFX_SCLK, value);
    case CDRM_AMDGPU_MEMORY_CLOCK: return sensor(card, AMDGPU_INFO_SENSOR_GFX_MCLK, value);
    case CDRM_AMDGPU_TEMPERATURE: return sensor(card, AMDGPU_INFO_SENSOR_GPU_TEMP, value);
    case CDRM_AMDGPU_BUSY: return sensor(card, AMDGPU_INFO_SENSOR_GPU_LOAD, value);
    case CDRM_AMDGPU_POWER: return sensor(card, AMDGPU_INFO_SENSOR_GPU_AVG_POWER, value);
    }
    return EINVAL;
}

int cdrm_amdgpu_vram(struct cdrm_amdgpu *card, uint64_t *total, uint64_t *used) {
    struct drm_amdgpu_memory_info memory;
    int result = amdgpu_query_info(card->handle, AMDGPU_INFO_MEMORY, sizeof memory, &memory);
    if (result != 0) return -result;
    *total = memory.vram.total_heap_size;
    *used = memory.vram.heap_usage;
    return 0;
}
