/// Where a card sits on the PCI bus: the one name of a card that no driver and no boot order changes.
package struct PCIAddress: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let domain: UInt32
    package let bus: UInt8
    package let device: UInt8
    package let function: UInt8

    package init(domain: UInt32, bus: UInt8, device: UInt8, function: UInt8) {
        self.domain = domain
        self.bus = bus
        self.device = device
        self.function = function
    }

    /// Reads `0000:01:00.0`, the same without domain (`01:00.0`), and NVIDIA's form with an eight-digit domain.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, let last = parts.last else { return nil }
        let slot = last.split(separator: ".", omittingEmptySubsequences: false)
        guard slot.count == 2,
            let domain = parts.count == 3 ? Self.hexadecimal(parts[0], 1...8) : 0,
            let bus = Self.hexadecimal(parts[parts.count - 2], 1...2),
            let device = Self.hexadecimal(slot[0], 1...2), device < 32,
            let function = Self.hexadecimal(slot[1], 1...1), function < 8
        else { return nil }
        self.init(domain: domain, bus: UInt8(bus), device: UInt8(device), function: UInt8(function))
    }

    private static func hexadecimal(_ text: Substring, _ length: ClosedRange<Int>) -> UInt32? {
        guard length.contains(text.utf8.count), text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else { return nil }
        return UInt32(text, radix: 16)
    }

    /// The kernel's form, `0000:01:00.0`.
    package var description: String {
        "\(hex(domain, 4)):\(hex(bus, 2)):\(hex(device, 2)).\(hex(function, 1))"
    }

    /// Mesa's form for DRI_PRIME, `pci-0000_01_00_0`.
    package var mesaTag: String {
        "pci-\(hex(domain, 4))_\(hex(bus, 2))_\(hex(device, 2))_\(hex(function, 1))"
    }

    package static func < (a: PCIAddress, b: PCIAddress) -> Bool {
        (a.domain, a.bus, a.device, a.function) < (b.domain, b.bus, b.device, b.function)
    }
}

/// Lower-case hexadecimal digits, at least `width` of them.
func hex(_ value: some BinaryInteger, _ width: Int) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
