#ifndef CNVML_H
#define CNVML_H

#include <stddef.h>
#include <stdint.h>

// NVIDIA's management library, loaded when the program runs: machines without it work, and so do releases that
// lack a function (CNVML_NO_SYMBOL). Other results are NVML's own return codes.

/// The library has no such function.
#define CNVML_NO_SYMBOL (-1)

struct cnvml;
/// A card's handle; valid as long as its library is open.
struct cnvml_device;

/// Loads and initializes the library. Returns 0, or -1 when it cannot be loaded, or NVML's code when it refuses;
/// `message` tells why.
int cnvml_open(const char *path, struct cnvml **library, char *message, size_t size);
void cnvml_close(struct cnvml *library);

/// Finds a card by "domain:bus:device.function", never by an index: indexes change with the driver's order.
/// Attaches to the card, which wakes it and keeps it awake.
int cnvml_device(struct cnvml *library, const char *bus_id, struct cnvml_device **device);

enum cnvml_text {
    CNVML_NAME,
    CNVML_UUID,
};

int cnvml_text(struct cnvml *library, struct cnvml_device *device, enum cnvml_text which, char *text, size_t size);
int cnvml_driver_version(struct cnvml *library, char *text, size_t size);

enum cnvml_value {
    /// Percent
    CNVML_BUSY,
    /// Degrees Celsius
    CNVML_TEMPERATURE,
    /// Degrees Celsius: the threshold at which the card powers itself off
    CNVML_SHUTDOWN_TEMPERATURE,
    /// Degrees Celsius: the threshold at which the card slows itself down
    CNVML_SLOWDOWN_TEMPERATURE,
    /// Milliwatt
    CNVML_POWER,
    /// Milliwatt: the limit in force
    CNVML_POWER_CAP,
    /// Milliwatt: the limit that was set
    CNVML_POWER_LIMIT,
    /// Percent of full speed
    CNVML_FAN,
    /// MHz
    CNVML_CORE_CLOCK,
    /// MHz
    CNVML_MEMORY_CLOCK,
    /// Bits of nvmlClocksEventReasons
    CNVML_CLOCK_REASONS,
    /// Lanes
    CNVML_LINK_WIDTH,
    /// Lanes
    CNVML_MAX_LINK_WIDTH,
    /// PCIe generation
    CNVML_LINK_GENERATION,
    /// PCIe generation
    CNVML_MAX_LINK_GENERATION,
    /// The N of /dev/nvidiaN
    CNVML_MINOR,
};

int cnvml_value(struct cnvml *library, struct cnvml_device *device, enum cnvml_value which, uint64_t *value);

/// Bytes of VRAM, all and in use (with what the driver keeps for itself).
int cnvml_vram(struct cnvml *library, struct cnvml_device *device, uint64_t *total, uint64_t *used);

/// The limits that cnvml_set_power_limit takes, in milliwatt.
int cnvml_power_limits(struct cnvml *library, struct cnvml_device *device, uint64_t *least, uint64_t *most);
/// Sets the limit of the card's power in milliwatt; needs root. It lasts until the driver lets go of the card.
int cnvml_set_power_limit(struct cnvml *library, struct cnvml_device *device, uint64_t milliwatts);

struct cnvml_process {
    uint32_t pid;
    /// Bytes of VRAM; UINT64_MAX when the driver does not tell.
    uint64_t vram;
};

/// The compute processes on a card: *count holds the capacity before, and how many there are after.
int cnvml_processes(struct cnvml *library, struct cnvml_device *device, struct cnvml_process *processes,
                    uint32_t *count);

/// Begins to collect the XID events of a card.
int cnvml_watch_xids(struct cnvml *library, struct cnvml_device *device);
/// Takes the next XID without waiting: 0 and the number, or NVML's timeout (10) when there is none.
int cnvml_next_xid(struct cnvml *library, uint64_t *xid);

/// NVML's words for a code.
const char *cnvml_error_text(struct cnvml *library, int code);

#endif
