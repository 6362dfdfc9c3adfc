import CPCI

/// A display controller as libpci tells it, before any driver was asked.
struct PCIDisplayDevice: Sendable {
    let address: PCIAddress
    let vendorID: UInt16
    let deviceID: UInt16
    /// Class and subclass, 0x0300 to 0x0380.
    let deviceClass: UInt16
    /// From the pci.ids database; empty when it does not know them.
    let vendorName: String
    let deviceName: String
}

/// The PCI bus of this machine, read through libpci.
enum PCIBus {
    /// More display controllers than any board has slots.
    private static let most = 256

    /// The display controllers by address, or why the bus cannot be read.
    static func displayDevices() -> Result<[PCIDisplayDevice], PCIBusFailure> {
        var found = [cpci_device](repeating: cpci_device(), count: most)
        var message = [CChar](repeating: 0, count: 256)
        var vanished = 0
        let count = unsafe cpci_list_display(&found, found.count, &vanished, &message, message.count)
        guard count >= 0 else { return .failure(PCIBusFailure(reason: text(message))) }
        let devices = found.prefix(Int(count)).map { device in
            PCIDisplayDevice(
                address: PCIAddress(
                    domain: device.domain,
                    bus: device.bus,
                    device: device.device,
                    function: device.function
                ),
                vendorID: device.vendor_id,
                deviceID: device.device_id,
                deviceClass: device.device_class,
                vendorName: text(of: device.vendor_name),
                deviceName: text(of: device.device_name)
            )
        }
        return .success(devices.sorted { $0.address < $1.address })
    }
}

/// Why libpci could not list the bus.
struct PCIBusFailure: Error {
    let reason: String
}

/// The text of a C array that ends with NUL.
func text(_ characters: [CChar]) -> String {
    String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// The text of a C array inside a struct, which Swift sees as a tuple.
func text<Characters: BitwiseCopyable>(of characters: Characters) -> String {
    unsafe withUnsafeBytes(of: characters) { unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}
