/// A message of the kernel about a device, in either of its framings.
package struct UEvent: Sendable, Equatable {
    package let properties: [String: String]

    /// Longest message that the kernel sends (UEVENT_BUFFER_SIZE is 2048) with what udev adds.
    package static let mostBytes = 8192

    /// Reads the kernel's framing (`change@/devices/…` and then properties, each ended by NUL) and libudev's (a header
    /// that begins with "libudev", and properties at the offset that it names). Nil for anything else.
    package init?(parsing bytes: [UInt8]) {
        guard bytes.count <= Self.mostBytes, let body = Self.body(of: bytes) else { return nil }
        var properties: [String: String] = [:]
        for field in body.split(separator: 0) {
            guard let equals = field.firstIndex(of: UInt8(ascii: "=")) else { return nil }
            let value = field[(equals + 1)...]
            properties[String(decoding: field[..<equals], as: UTF8.self)] = String(decoding: value, as: UTF8.self)
        }
        guard properties["ACTION"] != nil, properties["DEVPATH"] != nil else { return nil }
        self.properties = properties
    }

    private static func body(of bytes: [UInt8]) -> ArraySlice<UInt8>? {
        let prefix = Array("libudev".utf8) + [0]
        if bytes.starts(with: prefix) { return udevBody(of: bytes, after: prefix.count) }
        guard let end = bytes.firstIndex(of: 0), bytes[..<end].contains(UInt8(ascii: "@")) else { return nil }
        return bytes[(end + 1)...]
    }

    /// The header after the prefix: magic 0xfeedcafe in network order, then in the host's order the header's size, and
    /// offset and length of the properties, 32 bits each.
    private static func udevBody(of bytes: [UInt8], after prefix: Int) -> ArraySlice<UInt8>? {
        guard bytes.count >= prefix + 16 else { return nil }
        func word(_ index: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[prefix + index * 4 + $1]) << (8 * UInt32($1)) }
        }
        let (offset, length) = (Int(UInt32(littleEndian: word(2))), Int(UInt32(littleEndian: word(3))))
        guard UInt32(bigEndian: UInt32(littleEndian: word(0))) == 0xFEED_CAFE,
            offset >= prefix + 16, offset <= bytes.count, length <= bytes.count - offset
        else { return nil }
        return bytes[offset..<(offset + length)]
    }

    /// The card that the message is about: the last PCI address of its path.
    package var address: PCIAddress? {
        properties["DEVPATH"]?.split(separator: "/").reversed().lazy.compactMap { PCIAddress(String($0)) }.first
    }

    /// What a wedged card needs to recover (kernel documentation: "Device wedging"), judged; nil for other messages.
    package var finding: HealthFinding? {
        guard let methods = properties["WEDGED"], !methods.isEmpty else { return nil }
        let isRecovered = methods == "none"
        let evidence =
            isRecovered
            ? "the kernel has reset the card and it recovered (WEDGED=none)"
            : "the card is wedged, and the kernel asks for: \(shortened(methods.utf8)) (WEDGED)"
        return HealthFinding(.wedged, evidence, isRecovered ? .probation : .quarantine)
    }
}
