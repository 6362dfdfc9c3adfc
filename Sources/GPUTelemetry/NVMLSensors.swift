import CNVML
import Synchronization

/// The readings of a card of NVIDIA's driver.
struct NVMLSensors: Sendable {
    let attachment: CardAttachment
    private let sawHardwareSlowdown = LastFlag()

    init(attachment: CardAttachment) { self.attachment = attachment }

    func busy() throws(SensorFault) -> Double { try value(CNVML_BUSY, in: Plausible.percent) }
    func temperature() throws(SensorFault) -> Double { try value(CNVML_TEMPERATURE, in: Plausible.temperature) }
    func power() throws(SensorFault) -> Double { try value(CNVML_POWER, scale: 0.001, in: Plausible.power) }
    func powerCap() throws(SensorFault) -> Double { try value(CNVML_POWER_CAP, scale: 0.001, in: Plausible.power) }
    func fanPercent() throws(SensorFault) -> Double { try value(CNVML_FAN, in: Plausible.percent) }
    func coreClock() throws(SensorFault) -> Double { try value(CNVML_CORE_CLOCK, scale: 1e6, in: Plausible.clock) }
    func memoryClock() throws(SensorFault) -> Double { try value(CNVML_MEMORY_CLOCK, scale: 1e6, in: Plausible.clock) }

    func vram() throws(SensorFault) -> VRAMUse {
        let (total, used) = try attachment.nvmlDevice().vram()
        return try SysfsSensors.use(total: total, used: used)
    }

    /// A hardware slowdown counts when it is seen twice in a row: single ones come with every change of load.
    func throttling() throws(SensorFault) -> [ThrottleReason] {
        let bits = try attachment.nvmlDevice().value(CNVML_CLOCK_REASONS)
        let reasons = ThrottleReason.fromNVML(bits)
        let wasSeen = sawHardwareSlowdown.exchange(reasons.contains(.hardware))
        return wasSeen ? reasons : reasons.filter { $0 != .hardware }
    }

    func link() throws(SensorFault) -> Card.Link {
        let device = try attachment.nvmlDevice()
        let width = try device.value(CNVML_LINK_WIDTH)
        guard (1...32).contains(width) else { throw .implausible(Double(width)) }
        return Card.Link(width: Int(width), speed: PCIeSpeed.ofGeneration(try device.value(CNVML_LINK_GENERATION)))
    }

    func processes(_ pids: [Int32]) throws(SensorFault) -> [ProcessUsage] {
        let wanted = Set(pids)
        return try attachment.nvmlDevice().processes().filter { wanted.contains($0.pid) }
            .map { ProcessUsage(pid: $0.pid, gpuSeconds: nil, vram: $0.vram) }
    }

    private func value(
        _ which: cnvml_value,
        scale: Double = 1,
        in range: ClosedRange<Double>
    ) throws(SensorFault) -> Double {
        try plausible(in: range) { () throws(SensorFault) in
            Double(try attachment.nvmlDevice().value(which)) * scale
        }
    }
}

/// Whether something was so at the last look.
final class LastFlag: Sendable {
    private let flag = Atomic(false)

    /// Stores what is so now, and returns what was so before.
    func exchange(_ value: Bool) -> Bool { flag.exchange(value, ordering: .relaxed) }
    var value: Bool { flag.load(ordering: .relaxed) }
}
