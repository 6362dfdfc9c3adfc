#ifndef CPCI_H
#define CPCI_H

#include <stddef.h>
#include <stdint.h>

// libpci without its habit of ending the process: its error handler calls exit(1) for a missing directory or an
// attribute that vanished, so every call runs under a handler of our own. Nothing here keeps state.

/// A device of PCI class 0x03 (display controller).
struct cpci_device {
    uint32_t domain;
    uint8_t bus;
    uint8_t device;
    uint8_t function;
    uint16_t vendor_id;
    uint16_t device_id;
    /// Class and subclass: 0x0300 VGA, 0x0302 3D, 0x0380 other.
    uint16_t device_class;
    /// Names from the pci.ids database, empty when it does not know them or is not installed.
    char vendor_name[96];
    char device_name[128];
};

/// Lists the display controllers of this machine in no particular order.
///
/// Returns how many there are (at most `capacity` of them are stored), or -1 with the reason in `message`.
/// A device that vanishes while it is looked at is left out and counted in *vanished.
int cpci_list_display(struct cpci_device *devices, size_t capacity, size_t *vanished, char *message, size_t size);

#endif
