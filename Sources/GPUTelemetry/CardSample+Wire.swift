import JobModel
import WireJSON

extension CardSample {
    /// Appends the readings to a message of `gpu.worker.metrics`. What is not known is left out, never 0; values
    /// that are not of this moment stand in `ages_sec` too.
    package func write(to writer: inout JSONWriter) {
        var ages: [(String, Double)] = []
        func write(_ key: String, _ reading: Reading<Double>) {
            guard let value = reading.value else { return }
            writer.field(key, value)
            if reading.fault != nil, let age = reading.age { ages.append((key, age.inSeconds)) }
        }
        writer.field("pci", address.description)
        write("gpu_busy_percent", busy)
        write("temp_c", temperature)
        write("power_w", power)
        write("power_cap_w", powerCap)
        write("fan_rpm", fanSpeed)
        write("fan_percent", fanPercent)
        write("vram_used_bytes", vram.map { Double($0.used) })
        write("vram_total_bytes", vram.map { Double($0.total) })
        write("core_clock_hz", coreClock)
        write("mem_clock_hz", memoryClock)
        write("pcie_width", link.map { $0.width.map(Double.init) })
        write("pcie_speed_gts", link.map(\.speed))
        if let reasons = throttling.value {
            writer.field("throttle", .array(reasons.map { .string($0.rawValue) }))
        }
        if let processes = processes.value, !processes.isEmpty {
            writer.field("processes", .array(processes.map(Self.json)))
        }
        if let counter = signs.value?.vramLostCounter { writer.field("resets_total", counter) }
        if isAsleep { writer.field("asleep", true) }
        if !ages.isEmpty { writer.field("ages_sec", .object(JSONObject(ages.map { ($0.0, .double($0.1)) }))) }
        writeFaults(to: &writer)
    }

    private func writeFaults(to writer: inout JSONWriter) {
        let faults: [(String, SensorFault?)] = [
            ("busy", busy.fault), ("temperature", temperature.fault), ("power", power.fault),
            ("power_cap", powerCap.fault), ("fan_speed", fanSpeed.fault), ("fan", fanPercent.fault),
            ("vram", vram.fault), ("core_clock", coreClock.fault), ("memory_clock", memoryClock.fault),
            ("throttling", throttling.fault), ("link", link.fault), ("processes", processes.fault),
        ]
        let now = faults.compactMap { name, fault in fault.flatMap { $0.isError ? (name, JSON.string($0.code)) : nil } }
        if !now.isEmpty { writer.field("sensor_faults", .object(JSONObject(now))) }
        guard !errors.isEmpty else { return }
        let counts = errors.sorted { $0.key < $1.key }.map { sensor, codes in
            let byCode = codes.sorted { $0.key < $1.key }.map { ($0.key, JSON.int($0.value)) }
            return (sensor, JSON.object(JSONObject(byCode)))
        }
        writer.field("sensor_errors_total", .object(JSONObject(counts)))
    }

    private static func json(_ process: ProcessUsage) -> JSON {
        var object: JSONObject = ["pid": .int(process.pid)]
        object["gpu_sec"] = process.gpuSeconds.map { .double($0) }
        object["vram_bytes"] = process.vram.map { .int($0) }
        return .object(object)
    }
}
