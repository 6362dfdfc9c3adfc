/// What one process does on a card.
package struct ProcessUsage: Sendable, Equatable {
    package let pid: Int32
    /// Time on the card's engines so far, in seconds; nil when the driver does not tell.
    package let gpuSeconds: Double?
    /// Bytes of VRAM; nil when the driver does not tell.
    package let vram: UInt64?

    package init(pid: Int32, gpuSeconds: Double?, vram: UInt64?) {
        self.pid = pid
        self.gpuSeconds = gpuSeconds
        self.vram = vram
    }
}

/// Reads what processes do on a card from `/proc/PID/fdinfo` (kernel documentation: drm-usage-stats).
struct FDInfoReader: Sendable {
    let paths: SystemPaths
    let address: PCIAddress

    /// A process may hold thousands of descriptors; those of the card come early.
    private static let mostDescriptors = 4096

    /// The use of each process that has the card open. Processes that are gone are left out.
    func usage(of pids: [Int32]) -> [ProcessUsage] {
        var seen: Set<UInt64> = []
        return pids.compactMap { usage(of: $0, seen: &seen) }
    }

    /// - Parameter seen: the DRM clients counted already: descriptors that a process duplicated or inherited are one.
    private func usage(of pid: Int32, seen: inout Set<UInt64>) -> ProcessUsage? {
        let directory = "\(paths.proc)/\(pid)"
        guard let descriptors = SysfsFiles.names(in: "\(directory)/fd") else { return nil }
        var (nanoseconds, vram): (UInt64?, UInt64?) = (nil, nil)
        var hasCard = false
        for descriptor in descriptors.prefix(Self.mostDescriptors) {
            guard let name = SysfsFiles.linkName("\(directory)/fd/\(descriptor)"),
                name.hasPrefix("renderD") || name.hasPrefix("card"),
                let bytes = SysfsFiles.contents("\(directory)/fdinfo/\(descriptor)", limit: 65536),
                let client = DRMClient(parsing: bytes), client.address == address
            else { continue }
            hasCard = true
            if let id = client.id, !seen.insert(id).inserted { continue }
            nanoseconds = Self.sum(nanoseconds, client.engineNanoseconds)
            vram = Self.sum(vram, client.vram)
        }
        guard hasCard else { return nil }
        return ProcessUsage(pid: pid, gpuSeconds: nanoseconds.map { Double($0) / 1e9 }, vram: vram)
    }

    private static func sum(_ a: UInt64?, _ b: UInt64?) -> UInt64? {
        guard let b else { return a }
        return (a ?? 0).addingReportingOverflow(b).partialValue
    }
}

/// One open DRM file as its fdinfo describes it.
struct DRMClient: Equatable {
    var address: PCIAddress?
    var id: UInt64?
    /// All engines together.
    var engineNanoseconds: UInt64?
    /// Bytes.
    var vram: UInt64?

    /// Nil when the text describes no DRM file.
    init?(parsing bytes: [UInt8]) {
        var isDRM = false
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            guard line.hasPrefix("drm-"), let colon = line.firstIndex(of: ":") else { continue }
            isDRM = true
            take(key: line[..<colon], value: line[line.index(after: colon)...].trimmed ?? "")
        }
        guard isDRM else { return nil }
    }

    private mutating func take(key: Substring, value: String) {
        let words = value.split(whereSeparator: { $0 == " " || $0 == "\t" })
        let number = words.first.flatMap { UInt64($0) }
        switch key {
        case "drm-pdev": address = PCIAddress(value)
        case "drm-client-id": id = number
        case "drm-memory-vram", "drm-resident-vram":
            // Newer kernels tell both, and they mean the same.
            if let bytes = Self.bytes(number, unit: words.dropFirst().first) { vram = max(vram ?? 0, bytes) }
        default:
            guard key.hasPrefix("drm-engine-"), !key.hasPrefix("drm-engine-capacity-"), let number else { return }
            engineNanoseconds = (engineNanoseconds ?? 0).addingReportingOverflow(number).partialValue
        }
    }

    private static func bytes(_ number: UInt64?, unit: Substring?) -> UInt64? {
        guard let number else { return nil }
        let factor: UInt64
        switch unit {
        case nil: factor = 1
        case "KiB": factor = 1 << 10
        case "MiB": factor = 1 << 20
        default: return nil
        }
        let (product, overflow) = number.multipliedReportingOverflow(by: factor)
        return overflow ? nil : product
    }
}
