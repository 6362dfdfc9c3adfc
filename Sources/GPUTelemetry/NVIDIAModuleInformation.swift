/// What NVIDIA's kernel module tells of a card in `/proc/driver/nvidia/gpus/<address>/information`.
struct NVIDIAModuleInformation: Equatable {
    /// Nil when it does not tell; it writes question marks before the card was used for the first time.
    private(set) var uuid: String?
    /// The N of `/dev/nvidiaN`.
    private(set) var minor: Int?

    init(_ paths: SystemPaths, _ address: PCIAddress) {
        let path = "\(paths.proc)/driver/nvidia/gpus/\(address)/information"
        self.init(parsing: SysfsFiles.contents(path, limit: 16384) ?? [])
    }

    init(parsing bytes: [UInt8]) {
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, let value = parts[1].trimmed else { continue }
            switch parts[0].trimmed {
            case "GPU UUID": if value.hasPrefix("GPU-"), !value.contains("?") { uuid = value }
            case "Device Minor": minor = Int(value)
            default: break
            }
        }
    }
}
