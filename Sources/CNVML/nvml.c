#include "CNVML.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The declarations follow NVML's public interface (documentation "NVML API Reference Guide"); its header is not
// needed, so that building does not need NVIDIA's packages.

typedef struct cnvml_device *device_t;
typedef void *event_set_t;

struct utilization {
    unsigned gpu, memory;
};
struct memory {
    unsigned long long total, free, used;
};
struct process_v2 {
    unsigned pid;
    unsigned long long used_memory;
    unsigned gpu_instance, compute_instance;
};
struct event {
    device_t device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

#define EVENT_XID 0x8ULL
#define ERROR_INSUFFICIENT_SIZE 7

struct cnvml {
    void *handle;
    event_set_t events;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_text)(int);
    int (*driver_version)(char *, unsigned);
    int (*by_bus_id)(const char *, device_t *);
    int (*name)(device_t, char *, unsigned);
    int (*uuid)(device_t, char *, unsigned);
    int (*utilization)(device_t, struct utilization *);
    int (*temperature)(device_t, int, unsigned *);
    int (*threshold)(device_t, int, unsigned *);
    int (*power)(device_t, unsigned *);
    int (*power_cap)(device_t, unsigned *);
    int (*power_limit)(device_t, unsigned *);
    int (*power_limits)(device_t, unsigned *, unsigned *);
    int (*set_power_limit)(device_t, unsigned);
    int (*fan)(device_t, unsigned *);
    int (*clock)(device_t, int, unsigned *);
    int (*clock_reasons)(device_t, unsigned long long *);
    int (*link_width)(device_t, unsigned *);
    int (*max_link_width)(device_t, unsigned *);
    int (*link_generation)(device_t, unsigned *);
    int (*max_link_generation)(device_t, unsigned *);
    int (*minor)(device_t, unsigned *);
    int (*memory)(device_t, struct memory *);
    int (*processes)(device_t, unsigned *, struct process_v2 *);
    int (*event_set_create)(event_set_t *);
    int (*event_set_free)(event_set_t);
    int (*register_events)(device_t, unsigned long long, event_set_t);
    int (*event_wait)(event_set_t, struct event *, unsigned);
};

/// Stores a function of the library, or NULL when this release lacks it.
static void bind_symbol(struct cnvml *library, void *slot, const char *name) {
    void *symbol = dlsym(library->handle, name);
    memcpy(slot, &symbol, sizeof symbol);
}

static void bind_all(struct cnvml *library) {
    bind_symbol(library, &library->init, "nvmlInit_v2");
    bind_symbol(library, &library->shutdown, "nvmlShutdown");
    bind_symbol(library, &library->error_text, "nvmlErrorString");
    bind_symbol(library, &library->driver_version, "nvmlSystemGetDriverVersion");
    bind_symbol(library, &library->by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2");
    bind_symbol(library, &library->name, "nvmlDeviceGetName");
    bind_symbol(library, &library->uuid, "nvmlDeviceGetUUID");
    bind_symbol(library, &library->utilization, "nvmlDeviceGetUtilizationRates");
    bind_symbol(library, &library->temperature, "nvmlDeviceGetTemperature");
    bind_symbol(library, &library->threshold, "nvmlDeviceGetTemperatureThreshold");
    bind_symbol(library, &library->power, "nvmlDeviceGetPowerUsage");
    bind_symbol(library, &library->power_cap, "nvmlDeviceGetEnforcedPowerLimit");
    bind_symbol(library, &library->power_limit, "nvmlDeviceGetPowerManagementLimit");
    bind_symbol(library, &library->power_limits, "nvmlDeviceGetPowerManagementLimitConstraints");
    bind_symbol(library, &library->set_power_limit, "nvmlDeviceSetPowerManagementLimit");
    bind_symbol(library, &library->fan, "nvmlDeviceGetFanSpeed");
    bind_symbol(library, &library->clock, "nvmlDeviceGetClockInfo");
    bind_symbol(library, &library->clock_reasons, "nvmlDeviceGetCurrentClocksEventReasons");
    if (!library->clock_reasons)
        bind_symbol(library, &library->clock_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    bind_symbol(library, &library->link_width, "nvmlDeviceGetCurrPcieLinkWidth");
    bind_symbol(library, &library->max_link_width, "nvmlDeviceGetMaxPcieLinkWidth");
    bind_symbol(library, &library->link_generation, "nvmlDeviceGetCurrPcieLinkGeneration");
    bind_symbol(library, &library->max_link_generation, "nvmlDeviceGetMaxPcieLinkGeneration");
    bind_symbol(library, &library->minor, "nvmlDeviceGetMinorNumber");
    bind_symbol(library, &library->memory, "nvmlDeviceGetMemoryInfo");
    bind_symbol(library, &library->processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    bind_symbol(library, &library->event_set_create, "nvmlEventSetCreate");
    bind_symbol(library, &library->event_set_free, "nvmlEventSetFree");
    bind_symbol(library, &library->register_events, "nvmlDeviceRegisterEvents");
    bind_symbol(library, &library->event_wait, "nvmlEventSetWait_v2");
}

static void discard(struct cnvml *library) {
    dlclose(library->handle);
    free(library);
}

int cnvml_open(const char *path, struct cnvml **opened, char *message, size_t size) {
    *opened = NULL;
    struct cnvml *library = calloc(1, sizeof *library);
    if (!library) {
        snprintf(message, size, "out of memory");
        return -1;
    }
    library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library->handle) {
        const char *reason = dlerror();
        snprintf(message, size, "%s", reason ? reason : "cannot be loaded");
        free(library);
        return -1;
    }
    bind_all(library);
    if (!library->init || !library->shutdown || !library->by_bus_id) {
        snprintf(message, size, "%s lacks nvmlInit_v2, nvmlShutdown or nvmlDeviceGetHandleByPciBusId_v2", path);
        discard(library);
        return -1;
    }
    int code = library->init();
    if (code != 0) {
        snprintf(message, size, "%s", cnvml_error_text(library, code));
        discard(library);
        return code;
    }
    *opened = library;
    return 0;
}

void cnvml_close(struct cnvml *library) {
    if (library->events && library->event_set_free) library->event_set_free(library->events);
    library->shutdown();
    discard(library);
}

const char *cnvml_error_text(struct cnvml *library, int code) {
    if (code == CNVML_NO_SYMBOL) return "this release of NVML lacks the function";
    const char *text = library->error_text ? library->error_text(code) : NULL;
    return text ? text : "unknown NVML error";
}

int cnvml_device(struct cnvml *library, const char *bus_id, struct cnvml_device **device) {
    return library->by_bus_id(bus_id, device);
}

int cnvml_text(struct cnvml *library, struct cnvml_device *device, enum cnvml_text which, char *text, size_t size) {
    int (*get)(device_t, char *, unsigned) = which == CNVML_NAME ? library->name : library->uuid;
    if (!get) return CNVML_NO_SYMBOL;
    int code = get(device, text, (unsigned)size);
    text[size - 1] = 0;
    return code;
}

int cnvml_driver_version(struct cnvml *library, char *text, size_t size) {
    if (!library->driver_version) return CNVML_NO_SYMBOL;
    int code = library->driver_version(text, (unsigned)size);
    text[size - 1] = 0;
    return code;
}

static int number(int (*get)(device_t, unsigned *), device_t device, uint64_t *value) {
    if (!get) return CNVML_NO_SYMBOL;
    unsigned got = 0;
    int code = get(device, &got);
    if (code == 0) *value = got;
    return code;
}

/// A value of a kind: nvmlTemperatureSensors_t, nvmlTemperatureThresholds_t or nvmlClockType_t.
static int kind_of_number(int (*get)(device_t, int, unsigned *), device_t device, int kind, uint64_t *value) {
    if (!get) return CNVML_NO_SYMBOL;
    unsigned got = 0;
    int code = get(device, kind, &got);
    if (code == 0) *value = got;
    return code;
}

static int busy(struct cnvml *library, device_t device, uint64_t *value) {
    if (!library->utilization) return CNVML_NO_SYMBOL;
    struct utilization got = {0};
    int code = library->utilization(device, &got);
    if (code == 0) *value = got.gpu;
    return code;
}

static int clock_reasons(struct cnvml *library, device_t device, uint64_t *value) {
    if (!library->clock_reasons) return CNVML_NO_SYMBOL;
    unsigned long long got = 0;
    int code = library->clock_reasons(device, &got);
    if (code == 0) *value = got;
    return code;
}

int cnvml_value(struct cnvml *library, struct cnvml_device *device, enum cnvml_value which, uint64_t *value) {
    switch (which) {
    case CNVML_BUSY: return busy(library, device, value);
    case CNVML_TEMPERATURE: return kind_of_number(library->temperature, device, 0, value);
    case CNVML_SHUTDOWN_TEMPERATURE: return kind_of_number(library->threshold, device, 0, value);
    case CNVML_SLOWDOWN_TEMPERATURE: return kind_of_number(library->threshold, device, 1, value);
    case CNVML_POWER: return number(library->power, device, value);
    case CNVML_POWER_CAP: return number(library->power_cap, device, value);
    case CNVML_POWER_LIMIT: return number(library->power_limit, device, value);
    case CNVML_FAN: return number(library->fan, device, value);
    case CNVML_CORE_CLOCK: return kind_of_number(library->clock, device, 0, value);
    case CNVML_MEMORY_CLOCK: return kind_of_number(library->clock, device, 2, value);
    case CNVML_CLOCK_REASONS: return clock_reasons(library, device, value);
    case CNVML_LINK_WIDTH: return number(library->link_width, device, value);
    case CNVML_MAX_LINK_WIDTH: return number(library->max_link_width, device, value);
    case CNVML_LINK_GENERATION: return number(library->link_generation, device, value);
    case CNVML_MAX_LINK_GENERATION: return number(library->max_link_generation, device, value);
    case CNVML_MINOR: return number(library->minor, device, value);
    }
    return CNVML_NO_SYMBOL;
}

int cnvml_vram(struct cnvml *library, struct cnvml_device *device, uint64_t *total, uint64_t *used) {
    if (!library->memory) return CNVML_NO_SYMBOL;
    struct memory got = {0};
    int code = library->memory(device, &got);
    if (code == 0) {
        *total = got.total;
        *used = got.used;
    }
    return code;
}

int cnvml_power_limits(struct cnvml *library, struct cnvml_device *device, uint64_t *least, uint64_t *most) {
    if (!library->power_limits) return CNVML_NO_SYMBOL;
    unsigned low = 0, high = 0;
    int code = library->power_limits(device, &low, &high);
    if (code == 0) {
        *least = low;
        *most = high;
    }
    return code;
}

int cnvml_set_power_limit(struct cnvml *library, struct cnvml_device *device, uint64_t milliwatts) {
    if (!library->set_power_limit) return CNVML_NO_SYMBOL;
    return library->set_power_limit(device, (unsigned)milliwatts);
}

int cnvml_processes(struct cnvml *library, struct cnvml_device *device, struct cnvml_process *processes,
                    uint32_t *count) {
    if (!library->processes) return CNVML_NO_SYMBOL;
    unsigned capacity = *count;
    unsigned found = capacity;
    struct process_v2 *list = calloc(capacity ? capacity : 1, sizeof *list);
    if (!list) return ERROR_INSUFFICIENT_SIZE;
    int code = library->processes(device, &found, list);
    if (code == 0 || code == ERROR_INSUFFICIENT_SIZE) {
        for (unsigned index = 0; code == 0 && index < found && index < capacity; index++) {
            processes[index].pid = list[index].pid;
            processes[index].vram = list[index].used_memory;
        }
        *count = found;
    }
    free(list);
    return code;
}

int cnvml_watch_xids(struct cnvml *library, struct cnvml_device *device) {
    if (!library->event_set_create || !library->register_events || !library->event_wait) return CNVML_NO_SYMBOL;
    if (!library->events) {
        int code = library->event_set_create(&library->events);
        if (code != 0) {
            library->events = NULL;
            return code;
        }
    }
    return library->register_events(device, EVENT_XID, library->events);
}

int cnvml_next_xid(struct cnvml *library, uint64_t *xid) {
    if (!library->events) return CNVML_NO_SYMBOL;
    struct event got = {0};
    int code = library->event_wait(library->events, &got, 0);
    if (code == 0) *xid = got.data;
    return code;
}
