import CDRM
import Glibc
import Synchronization

/// The readings of a card in its sysfs directory, with amdgpu's ioctls where there is no attribute.
struct SysfsSensors: Sendable {
    let device: String
    let attachment: CardAttachment
    private let busyFile: AttributeFile
    private let vramTotal: AttributeFile
    private let vramUsed: AttributeFile
    private let linkWidth: AttributeFile
    private let linkSpeed: AttributeFile
    private let temperatureInput: HwmonAttribute
    private let powerAverage: HwmonAttribute
    private let powerInput: HwmonAttribute
    private let powerCapFile: HwmonAttribute
    private let fanInput: HwmonAttribute
    private let pwm: HwmonAttribute
    private let pwmMax: HwmonAttribute
    private let coreFrequency: HwmonAttribute
    private let memoryFrequency: HwmonAttribute

    init(device: String, attachment: CardAttachment) {
        self.device = device
        self.attachment = attachment
        busyFile = AttributeFile("\(device)/gpu_busy_percent")
        vramTotal = AttributeFile("\(device)/mem_info_vram_total")
        vramUsed = AttributeFile("\(device)/mem_info_vram_used")
        linkWidth = AttributeFile("\(device)/current_link_width")
        linkSpeed = AttributeFile("\(device)/current_link_speed")
        temperatureInput = HwmonAttribute(device, "temp1_input")
        powerAverage = HwmonAttribute(device, "power1_average")
        powerInput = HwmonAttribute(device, "power1_input")
        powerCapFile = HwmonAttribute(device, "power1_cap")
        fanInput = HwmonAttribute(device, "fan1_input")
        pwm = HwmonAttribute(device, "pwm1")
        pwmMax = HwmonAttribute(device, "pwm1_max")
        coreFrequency = HwmonAttribute(device, "freq1_input")
        memoryFrequency = HwmonAttribute(device, "freq2_input")
    }

    func busy() throws(SensorFault) -> Double {
        try plausible(in: Plausible.percent) { () throws(SensorFault) in
            try supported({ () throws(SensorFault) in try number(busyFile) }, else: CDRM_AMDGPU_BUSY)
        }
    }

    /// Millidegrees in sysfs.
    func temperature() throws(SensorFault) -> Double {
        try plausible(in: Plausible.temperature) { () throws(SensorFault) in
            try supported(
                { () throws(SensorFault) in try number(temperatureInput) / 1000 },
                else: CDRM_AMDGPU_TEMPERATURE,
                scale: 0.001
            )
        }
    }

    func power() throws(SensorFault) -> Double {
        try plausible(in: Plausible.power) { () throws(SensorFault) in
            try supported(powerAttribute, else: CDRM_AMDGPU_POWER)
        }
    }

    /// Microwatt in sysfs. Older kernels average, newer ones only tell the moment.
    private func powerAttribute() throws(SensorFault) -> Double {
        do {
            return try number(powerAverage) / 1e6
        } catch .unsupported {
            return try number(powerInput) / 1e6
        }
    }

    func powerCap() throws(SensorFault) -> Double {
        try plausible(in: Plausible.power) { () throws(SensorFault) in try number(powerCapFile) / 1e6 }
    }

    func fanSpeed() throws(SensorFault) -> Double {
        try plausible(in: Plausible.fanSpeed) { () throws(SensorFault) in try number(fanInput) }
    }

    func fanPercent() throws(SensorFault) -> Double {
        try plausible(in: Plausible.percent) { () throws(SensorFault) in
            let most = try number(pwmMax)
            guard most > 0 else { throw .implausible(most) }
            return try number(pwm) / most * 100
        }
    }

    func vram() throws(SensorFault) -> VRAMUse {
        do {
            let (total, used) = (try vramTotal.integer(), try vramUsed.integer())
            return try Self.use(total: UInt64(clamping: total), used: UInt64(clamping: used))
        } catch .unsupported {
            guard let amdgpu = attachment.amdgpu else { throw .unsupported }
            let (total, used) = try amdgpu.vram()
            return try Self.use(total: total, used: used)
        }
    }

    static func use(total: UInt64, used: UInt64) throws(SensorFault) -> VRAMUse {
        guard total > 0, used <= total else { throw .implausible(Double(used)) }
        return VRAMUse(total: total, used: used)
    }

    func coreClock() throws(SensorFault) -> Double { try clock(coreFrequency, else: CDRM_AMDGPU_CORE_CLOCK) }
    func memoryClock() throws(SensorFault) -> Double { try clock(memoryFrequency, else: CDRM_AMDGPU_MEMORY_CLOCK) }

    private func clock(_ file: HwmonAttribute, else which: cdrm_amdgpu_value) throws(SensorFault) -> Double {
        try plausible(in: Plausible.clock) { () throws(SensorFault) in
            try supported({ () throws(SensorFault) in try number(file) }, else: which, scale: 1e6)
        }
    }

    func link() throws(SensorFault) -> Card.Link {
        let width = try linkWidth.integer()
        guard (1...32).contains(width) else { throw .implausible(Double(width)) }
        return Card.Link(width: Int(width), speed: PCIeSpeed.parse(try linkSpeed.line()))
    }

    // MARK: helpers

    private func number(_ file: AttributeFile) throws(SensorFault) -> Double { Double(try file.integer()) }
    private func number(_ file: HwmonAttribute) throws(SensorFault) -> Double { Double(try file.integer()) }

    /// Reads the attribute, or asks the driver when this kernel has none.
    private func supported(
        _ attribute: () throws(SensorFault) -> Double,
        else which: cdrm_amdgpu_value,
        scale: Double = 1
    ) throws(SensorFault) -> Double {
        do {
            return try attribute()
        } catch .unsupported {
            guard let amdgpu = attachment.amdgpu else { throw .unsupported }
            return Double(try amdgpu.value(which)) * scale
        }
    }
}

/// Refuses a value that its sensor cannot have.
func plausible(
    in range: ClosedRange<Double>,
    _ read: () throws(SensorFault) -> Double
) throws(SensorFault) -> Double {
    let value = try read()
    guard range.contains(value) else { throw .implausible(value) }
    return value
}

/// An attribute of a card's hardware monitor, found again when the driver was loaded anew under another number.
final class HwmonAttribute: Sendable {
    private let device: String
    private let name: String
    private let file = Mutex<AttributeFile?>(nil)

    init(_ device: String, _ name: String) {
        self.device = device
        self.name = name
    }

    func integer() throws(SensorFault) -> Int64 {
        let current = try found()
        do {
            return try current.integer()
        } catch {
            if case .system(let code) = error, code == ENODEV || code == ENXIO { file.withLock { $0 = nil } }
            if error == .unsupported, !SysfsFiles.exists(current.directory) { file.withLock { $0 = nil } }
            throw error
        }
    }

    private func found() throws(SensorFault) -> AttributeFile {
        if let file = file.withLock({ $0 }) { return file }
        guard let directory = Hwmon.directory(of: device) else { throw .unsupported }
        let found = AttributeFile("\(directory)/\(name)")
        file.withLock { $0 = found }
        return found
    }
}
