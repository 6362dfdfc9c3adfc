import CNVML
import Glibc

/// What can be set of a card's power; nil: as it is.
package struct PowerSettings: Sendable, Equatable {
    /// Watt that the card may draw.
    package var cap: Double?
    /// amdgpu's `power_dpm_force_performance_level`: auto, low, high, …
    package var level: String?

    package init(cap: Double? = nil, level: String? = nil) {
        self.cap = cap
        self.level = level
    }

    package var isEmpty: Bool { cap == nil && level == nil }

    /// The levels that an operator may ask for; "manual" needs more than a level.
    package static let levels = [
        "auto", "low", "high", "profile_standard", "profile_min_sclk", "profile_min_mclk", "profile_peak",
    ]
}

/// Reads and sets a card's power cap and performance level. Every call wakes the card, and blocks until its driver has
/// answered, for ten seconds at most.
package struct PowerControl: Sendable {
    private let device: String
    private let address: PCIAddress
    private let usesNVML: Bool

    package init(_ card: Card, paths: SystemPaths = .machine) {
        device = paths.pciDevice(card.address)
        address = card.address
        usesNVML = card.driver == "nvidia"
    }

    /// How long a driver may take to answer one call.
    private static let deadline = Duration.seconds(10)

    /// What is set now, in Watt. Throws `unsupported` for a card that has no power cap.
    package func cap() throws(SensorFault) -> Double {
        try bounded { () throws(SensorFault) in try readCap() }
    }

    /// Sets the cap, or the nearest that the card takes.
    /// - Returns: Watt that were set.
    package func setCap(_ watts: Double) throws(SensorFault) -> Double {
        try bounded { () throws(SensorFault) in try writeCap(watts) }
    }

    /// Throws `unsupported` for a card that has no such thing.
    package func level() throws(SensorFault) -> String {
        try bounded { () throws(SensorFault) in try AttributeFile(levelPath).line() }
    }

    package func setLevel(_ level: String) throws(SensorFault) {
        try bounded { () throws(SensorFault) in try Self.write(level, to: levelPath) }
    }

    private func bounded<Value: Sendable>(
        _ body: @escaping @Sendable () throws(SensorFault) -> Value
    ) throws(SensorFault) -> Value {
        let answer = Bounded.call(within: Self.deadline) { () -> Result<Value, SensorFault> in
            do throws(SensorFault) {
                return .success(try body())
            } catch {
                return .failure(error)
            }
        }
        guard let answer else { throw .timedOut }
        return try answer.get()
    }

    private func readCap() throws(SensorFault) -> Double {
        if usesNVML { return Double(try nvmlDevice().value(CNVML_POWER_LIMIT)) / 1000 }
        return try plausible(in: Plausible.power) { () throws(SensorFault) in
            Double(try AttributeFile(hwmon("power1_cap")).integer()) / 1e6
        }
    }

    private func writeCap(_ watts: Double) throws(SensorFault) -> Double {
        if usesNVML {
            let device = try nvmlDevice()
            let limits = try device.powerLimits()
            let milliwatts = min(max(UInt64(watts * 1000), limits.lowerBound), limits.upperBound)
            try device.setPowerLimit(milliwatts)
            return Double(milliwatts) / 1000
        }
        let asked = Int64(watts * 1e6)
        let least = try bound("power1_cap_min") ?? 0
        let most = try bound("power1_cap_max") ?? asked
        let microwatts = min(max(asked, least), max(most, least))
        try Self.write("\(microwatts)", to: hwmon("power1_cap"))
        return Double(microwatts) / 1e6
    }

    private var levelPath: String { "\(device)/power_dpm_force_performance_level" }

    private func hwmon(_ name: String) throws(SensorFault) -> String {
        guard let directory = Hwmon.directory(of: device) else { throw .unsupported }
        return "\(directory)/\(name)"
    }

    /// A bound of the cap in microwatt; nil when the driver tells none.
    private func bound(_ name: String) throws(SensorFault) -> Int64? {
        do {
            return try AttributeFile(hwmon(name)).integer()
        } catch .unsupported {
            return nil
        }
    }

    private func nvmlDevice() throws(SensorFault) -> NVMLDevice {
        let nvml: NVML
        do throws(NVMLUnavailable) {
            nvml = try NVML()
        } catch {
            throw error.fault
        }
        return try nvml.device(at: address)
    }

    private static func write(_ text: String, to path: String) throws(SensorFault) {
        // Cutting off does nothing to an attribute, and keeps what a test reads whole.
        let descriptor = unsafe open(path, O_WRONLY | O_TRUNC | O_CLOEXEC)
        guard descriptor >= 0 else { throw errno == ENOENT ? .unsupported : .system(errno) }
        defer { close(descriptor) }
        let bytes = Array("\(text)\n".utf8)
        while true {
            let count = unsafe Glibc.write(descriptor, bytes, bytes.count)
            if count == bytes.count { return }
            if count < 0 && errno == EINTR { continue }
            throw .system(count < 0 ? errno : EIO)
        }
    }
}

extension SensorFault {
    /// The kernel or the driver does not let this process do that.
    package var isDenied: Bool {
        switch self {
        case .system(let code): code == EACCES || code == EROFS
        case .nvml(let code, _): code == NVMLStatus.noPermission
        default: false
        }
    }
}
