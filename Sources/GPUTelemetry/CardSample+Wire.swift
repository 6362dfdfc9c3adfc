import JobModel
import WireJSON

extension CardSample {
    /// The readings as fields of a message of `gpu.worker.metrics`. What is not known is left out, never 0; values
    /// that are not of this moment stand in `ages_sec` too.
    /// - Parameter jobs: whose each watched process is.
    package func metrics(jobs: [Int32: JobID] = [:]) -> JSONObject {
        var fields: [(String, JSON)] = [("pci", .string(address.description))]
        var ages: [(String, JSON)] = []
        for (key, reading) in numbers {
            guard let value = reading.value else { continue }
            fields.append((key, .double(value)))
            if reading.fault != nil, let age = reading.age { ages.append((key, .double(age.inSeconds))) }
        }
        if let reasons = throttling.value {
            fields.append(("throttle", .array(reasons.map { .string($0.rawValue) })))
        }
        if let processes = processes.value, !processes.isEmpty {
            fields.append(("processes", .array(processes.map { Self.json($0, of: jobs[$0.pid]) })))
        }
        if let counter = signs.value?.vramLostCounter { fields.append(("resets_total", .int(counter))) }
        if isAsleep { fields.append(("asleep", true)) }
        if !ages.isEmpty { fields.append(("ages_sec", .object(JSONObject(ages)))) }
        if !faults.isEmpty { fields.append(("sensor_faults", .object(JSONObject(faults)))) }
        if !errors.isEmpty { fields.append(("sensor_errors_total", .object(JSONObject(errorCounts)))) }
        return JSONObject(fields)
    }

    /// The readings that are one number each, with the names that they have on the bus.
    private var numbers: [(String, Reading<Double>)] {
        [
            ("gpu_busy_percent", busy), ("temp_c", temperature), ("power_w", power), ("power_cap_w", powerCap),
            ("fan_rpm", fanSpeed), ("fan_percent", fanPercent),
            ("vram_used_bytes", vram.map { Double($0.used) }), ("vram_total_bytes", vram.map { Double($0.total) }),
            ("core_clock_hz", coreClock), ("mem_clock_hz", memoryClock),
            ("pcie_width", link.map { $0.width.map(Double.init) }), ("pcie_speed_gts", link.map(\.speed)),
        ]
    }

    /// What is wrong with sensors at this moment.
    private var faults: [(String, JSON)] {
        let all: [(String, SensorFault?)] = [
            ("busy", busy.fault), ("temperature", temperature.fault), ("power", power.fault),
            ("power_cap", powerCap.fault), ("fan_speed", fanSpeed.fault), ("fan", fanPercent.fault),
            ("vram", vram.fault), ("core_clock", coreClock.fault), ("memory_clock", memoryClock.fault),
            ("throttling", throttling.fault), ("link", link.fault), ("processes", processes.fault),
            ("signs", signs.fault),
        ]
        return all.compactMap { name, fault in
            guard let fault, fault.isError else { return nil }
            return (name, .string(fault.code))
        }
    }

    private var errorCounts: [(String, JSON)] {
        errors.sorted { $0.key < $1.key }.map { sensor, codes in
            let byCode = codes.sorted { $0.key < $1.key }.map { ($0.key, JSON.int($0.value)) }
            return (sensor, .object(JSONObject(byCode)))
        }
    }

    private static func json(_ process: ProcessUsage, of job: JobID?) -> JSON {
        var object: JSONObject = ["pid": .int(process.pid)]
        object["task_id"] = job.map { .string($0.text) }
        object["gpu_sec"] = process.gpuSeconds.map { .double($0) }
        object["vram_bytes"] = process.vram.map { .int($0) }
        return .object(object)
    }
}
