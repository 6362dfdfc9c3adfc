#ifndef CDRM_H
#define CDRM_H

#include <stddef.h>
#include <stdint.h>

// Direct rendering nodes by PCI address, and what the amdgpu driver tells through its render node.
// Failures are positive errno values. Nothing here keeps state.

/// The device nodes of one PCI device; an empty text means that there is none.
struct cdrm_nodes {
    uint32_t domain;
    uint8_t bus;
    uint8_t device;
    uint8_t function;
    char primary[64];
    char render[64];
};

/// Lists the PCI devices that have DRM nodes: how many there are (at most `capacity` are stored), or minus errno.
int cdrm_list(struct cdrm_nodes *nodes, size_t capacity);

/// The version that the DRM driver behind a node tells, "amdgpu 3.54.0"; wakes a sleeping card.
int cdrm_version(const char *node, char *name, size_t name_size, char *version, size_t version_size);

/// An open amdgpu card.
struct cdrm_amdgpu;

/// Opens the card behind a render node; wakes a sleeping one. Does not keep it awake.
int cdrm_amdgpu_open(const char *render_node, struct cdrm_amdgpu **card);
void cdrm_amdgpu_close(struct cdrm_amdgpu *card);

struct cdrm_amdgpu_facts {
    /// The marketing name from libdrm's table, empty when it does not know the chip.
    char name[128];
    /// Shares the processor's memory: an APU.
    int is_integrated;
    uint64_t max_core_clock_hz;
    uint64_t max_memory_clock_hz;
};

int cdrm_amdgpu_facts(struct cdrm_amdgpu *card, struct cdrm_amdgpu_facts *facts);

enum cdrm_amdgpu_value {
    /// 1 when the card takes work.
    CDRM_AMDGPU_ACCEL_WORKING,
    /// Goes up with each reset that lost the contents of VRAM.
    CDRM_AMDGPU_VRAM_LOST_COUNTER,
    /// MHz
    CDRM_AMDGPU_CORE_CLOCK,
    /// MHz
    CDRM_AMDGPU_MEMORY_CLOCK,
    /// Thousandths of a degree Celsius
    CDRM_AMDGPU_TEMPERATURE,
    /// Percent
    CDRM_AMDGPU_BUSY,
    /// Watt
    CDRM_AMDGPU_POWER,
};

int cdrm_amdgpu_value(struct cdrm_amdgpu *card, enum cdrm_amdgpu_value which, uint32_t *value);

/// Bytes of VRAM, all and in use.
int cdrm_amdgpu_vram(struct cdrm_amdgpu *card, uint64_t *total, uint64_t *used);

#endif
