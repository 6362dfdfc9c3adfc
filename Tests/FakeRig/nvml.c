// Stands in for libnvidia-ml.so.1. Its cards are the directories of $FAKE_NVML_DIR, named by PCI address; what it
// answers stands in their files, so that a test can change it while the program runs:
//
//   <address>/<key>      a number or a text; -1 means "not supported"
//   <address>/return     a code that every call for the card returns
//   <address>/xid        an XID event, delivered once
//   <address>/set_return a code that setting the power limit returns; 0 stores it in power_cap
//   init_return          a code that nvmlInit_v2 returns
//
// With OLD_RELEASE it lacks the functions that came after release 470.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define TIMEOUT 10
#define UNKNOWN 999

#define MOST_CARDS 32

struct card {
    char address[24];
};

struct utilization {
    unsigned gpu, memory;
};
struct memory {
    unsigned long long total, free, used;
};
struct process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};
struct event {
    struct card *card;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

static int references;
static struct card cards[MOST_CARDS];
static int watched[MOST_CARDS];

static int text_of(const struct card *card, const char *key, char *text, unsigned size) {
    char path[1024];
    const char *root = getenv("FAKE_NVML_DIR");
    if (!root) return 0;
    if (card)
        snprintf(path, sizeof path, "%s/%s/%s", root, card->address, key);
    else
        snprintf(path, sizeof path, "%s/%s", root, key);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    char *line = fgets(text, (int)size, file);
    fclose(file);
    if (!line) return 0;
    text[strcspn(text, "\n")] = 0;
    return 1;
}

static long long number_of(const struct card *card, const char *key, long long otherwise) {
    char text[64];
    return text_of(card, key, text, sizeof text) ? strtoll(text, NULL, 0) : otherwise;
}

/// The code with which a call for a card begins.
static int entry(const struct card *card) {
    if (!references) return UNINITIALIZED;
    if (!card) return INVALID_ARGUMENT;
    return (int)number_of(card, "return", SUCCESS);
}

static int number(const struct card *card, const char *key, unsigned *value) {
    int code = entry(card);
    if (code) return code;
    long long got = number_of(card, key, -1);
    if (got < 0) return NOT_SUPPORTED;
    *value = (unsigned)got;
    return SUCCESS;
}

static int copied(const struct card *card, const char *key, char *text, unsigned size) {
    int code = entry(card);
    if (code) return code;
    return text_of(card, key, text, size) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlInit_v2(void) {
    int code = (int)number_of(NULL, "init_return", SUCCESS);
    if (!code) references++;
    return code;
}

int nvmlShutdown(void) {
    if (!references) return UNINITIALIZED;
    references--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case 0: return "Success";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 16: return "GPU requires restart";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    if (!text_of(NULL, "driver_version", text, size)) snprintf(text, size, "535.183.01");
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *id, struct card **card) {
    if (!references) return UNINITIALIZED;
    unsigned domain, bus, device, function;
    if (sscanf(id, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4) return INVALID_ARGUMENT;
    char address[24], path[1024];
    snprintf(address, sizeof address, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, device & 0xff, function & 7);
    const char *root = getenv("FAKE_NVML_DIR");
    snprintf(path, sizeof path, "%s/%s", root ? root : "", address);
    if (!root || access(path, F_OK) != 0) return NOT_FOUND;
    for (int index = 0; index < MOST_CARDS; index++) {
        if (!cards[index].address[0]) memcpy(cards[index].address, address, sizeof address);
        if (strcmp(cards[index].address, address) != 0) continue;
        *card = &cards[index];
        return (int)number_of(*card, "return", SUCCESS);
    }
    return NOT_FOUND;
}

int nvmlDeviceGetName(struct card *card, char *text, unsigned size) { return copied(card, "name", text, size); }
int nvmlDeviceGetUUID(struct card *card, char *text, unsigned size) { return copied(card, "uuid", text, size); }

int nvmlDeviceGetUtilizationRates(struct card *card, struct utilization *value) {
    value->memory = 0;
    return number(card, "busy", &value->gpu);
}

int nvmlDeviceGetTemperature(struct card *card, int sensor, unsigned *value) {
    return sensor == 0 ? number(card, "temperature", value) : INVALID_ARGUMENT;
}

int nvmlDeviceGetTemperatureThreshold(struct card *card, int kind, unsigned *value) {
    return number(card, kind == 0 ? "shutdown" : kind == 1 ? "slowdown" : "other", value);
}

int nvmlDeviceGetPowerUsage(struct card *card, unsigned *value) { return number(card, "power", value); }
int nvmlDeviceGetEnforcedPowerLimit(struct card *card, unsigned *value) { return number(card, "power_cap", value); }
int nvmlDeviceGetPowerManagementLimit(struct card *card, unsigned *value) { return number(card, "power_cap", value); }

int nvmlDeviceGetPowerManagementLimitConstraints(struct card *card, unsigned *least, unsigned *most) {
    int code = number(card, "power_min", least);
    return code ? code : number(card, "power_max", most);
}

int nvmlDeviceSetPowerManagementLimit(struct card *card, unsigned value) {
    unsigned least, most;
    int code = nvmlDeviceGetPowerManagementLimitConstraints(card, &least, &most);
    if (!code) code = (int)number_of(card, "set_return", SUCCESS);
    if (code) return code;
    if (value < least || value > most) return INVALID_ARGUMENT;
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/power_cap", getenv("FAKE_NVML_DIR"), card->address);
    FILE *file = fopen(path, "we");
    if (!file) return UNKNOWN;
    fprintf(file, "%u\n", value);
    return fclose(file) == 0 ? SUCCESS : UNKNOWN;
}

int nvmlDeviceGetFanSpeed(struct card *card, unsigned *value) { return number(card, "fan", value); }
int nvmlDeviceGetMinorNumber(struct card *card, unsigned *value) { return number(card, "minor", value); }
int nvmlDeviceGetCurrPcieLinkWidth(struct card *card, unsigned *value) { return number(card, "link_width", value); }
int nvmlDeviceGetMaxPcieLinkWidth(struct card *card, unsigned *value) { return number(card, "max_link_width", value); }
int nvmlDeviceGetCurrPcieLinkGeneration(struct card *card, unsigned *value) {
    return number(card, "link_generation", value);
}
int nvmlDeviceGetMaxPcieLinkGeneration(struct card *card, unsigned *value) {
    return number(card, "link_generation", value);
}

int nvmlDeviceGetClockInfo(struct card *card, int kind, unsigned *value) {
    return number(card, kind == 2 ? "memory_clock" : "core_clock", value);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct card *card, unsigned long long *value) {
    unsigned low = 0;
    int code = number(card, "throttle", &low);
    *value = low;
    return code;
}

int nvmlDeviceGetMemoryInfo(struct card *card, struct memory *value) {
    int code = entry(card);
    if (code) return code;
    value->total = (unsigned long long)number_of(card, "vram_total", 0);
    value->used = (unsigned long long)number_of(card, "vram_used", 0);
    value->free = value->total - value->used;
    return SUCCESS;
}

#ifndef OLD_RELEASE
int nvmlDeviceGetComputeRunningProcesses_v3(struct card *card, unsigned *count, struct process *list) {
    int code = entry(card);
    if (code) return code;
    long long pid = number_of(card, "process", 0);
    if (pid > 0 && *count > 0) list[0] = (struct process){(unsigned)pid, 256ULL << 20, 0, 0};
    *count = pid > 0;
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) {
    *set = watched;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) { return set == watched ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceRegisterEvents(struct card *card, unsigned long long types, void *set) {
    (void)types;
    (void)set;
    int code = entry(card);
    if (!code) watched[card - cards] = 1;
    return code;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned milliseconds) {
    (void)set;
    for (int index = 0; index < MOST_CARDS; index++) {
        long long xid = watched[index] ? number_of(&cards[index], "xid", 0) : 0;
        if (!xid) continue;
        char path[1024];
        snprintf(path, sizeof path, "%s/%s/xid", getenv("FAKE_NVML_DIR"), cards[index].address);
        unlink(path);
        *event = (struct event){&cards[index], 8, (unsigned long long)xid, 0, 0};
        return SUCCESS;
    }
    usleep(milliseconds * 1000);
    return TIMEOUT;
}
#endif
