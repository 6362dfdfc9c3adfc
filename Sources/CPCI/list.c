#include "CPCI.h"

#include <pci/pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DISPLAY_CLASS 0x03

// libpci's handlers get no context argument, and may not return: they find their way back by this.
static _Thread_local jmp_buf *escape;
static _Thread_local char last_error[256];

static void PCI_NONRET fail(char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    longjmp(*escape, 1);
}

static void ignore(char *format, ...) { (void)format; }

static void copy_text(char *target, size_t size, const char *text) { snprintf(target, size, "%s", text ? text : ""); }

/// Runs one step of libpci: 0, or -1 when it gave up (the reason is in last_error).
static int guarded(void (*step)(struct pci_access *, void *), struct pci_access *access, void *context) {
    jmp_buf here;
    escape = &here;
    int result = -1;
    if (setjmp(here) == 0) {
        step(access, context);
        result = 0;
    }
    escape = NULL;
    return result;
}

static void scan(struct pci_access *access, void *context) {
    (void)context;
    pci_init(access);
    pci_scan_bus(access);
}

static void identify(struct pci_access *access, void *context) {
    (void)access;
    pci_fill_info(context, PCI_FILL_IDENT | PCI_FILL_CLASS);
}

struct naming {
    const struct pci_dev *from;
    struct cpci_device *to;
};

/// Only the local database: libpci can also ask a DNS server, which nobody wants here.
static void look_up(struct pci_access *access, void *context) {
    struct naming *naming = context;
    int flags = PCI_LOOKUP_NO_NUMBERS | PCI_LOOKUP_SKIP_LOCAL;
    char text[128];
    copy_text(naming->to->vendor_name, sizeof naming->to->vendor_name,
              pci_lookup_name(access, text, sizeof text, PCI_LOOKUP_VENDOR | flags, naming->from->vendor_id));
    copy_text(naming->to->device_name, sizeof naming->to->device_name,
              pci_lookup_name(access, text, sizeof text, PCI_LOOKUP_DEVICE | flags, naming->from->vendor_id,
                              naming->from->device_id));
}

static void clean_up(struct pci_access *access, void *context) {
    (void)context;
    pci_cleanup(access);
}

static void describe(struct pci_access *access, const struct pci_dev *from, struct cpci_device *to) {
    memset(to, 0, sizeof *to);
    to->domain = (uint32_t)from->domain;
    to->bus = from->bus;
    to->device = from->dev;
    to->function = from->func;
    to->vendor_id = from->vendor_id;
    to->device_id = from->device_id;
    to->device_class = from->device_class;
    struct naming naming = {from, to};
    if (guarded(look_up, access, &naming) != 0) {
        to->vendor_name[0] = 0;
        to->device_name[0] = 0;
    }
}

int cpci_list_display(struct cpci_device *devices, size_t capacity, size_t *vanished, char *message, size_t size) {
    *vanished = 0;
    struct pci_access *access = pci_alloc();
    access->method = PCI_ACCESS_SYS_BUS_PCI;
    access->error = fail;
    access->warning = ignore;
    access->debug = ignore;

    int count = 0;
    if (guarded(scan, access, NULL) != 0) {
        copy_text(message, size, last_error);
        count = -1;
    } else {
        for (struct pci_dev *device = access->devices; device; device = device->next) {
            if (guarded(identify, access, device) != 0) {
                ++*vanished;
                continue;
            }
            if (device->device_class >> 8 != DISPLAY_CLASS) continue;
            if ((size_t)count < capacity) describe(access, device, &devices[count]);
            count++;
        }
    }
    guarded(clean_up, access, NULL);
    return count;
}
