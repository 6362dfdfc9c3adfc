import FakeRig
import Foundation
import Testing
import WireJSON

/// Samples of a program that runs on a made-up machine while its cards change and fail.
@Suite(.serialized)
struct ReadingTests {
    static let radeon = FakeCard(.rx580, at: "0000:03:00.0", cardNumber: 5, hwmonNumber: 7)
    static let geforce = FakeCard(.gtx1660, at: "0000:04:00.0", cardNumber: 2, hwmonNumber: 1)

    @Test func aRadeonTellsAllOfItsReadings() throws {
        let rig = try FakeRig([Self.radeon])
        let probe = try SamplingProbe(rig, card: 0)
        let sample = try probe.sample()
        let expected: [(String, Double)] = [
            ("gpu_busy_percent", 42), ("temp_c", 67), ("power_w", 113.117), ("power_cap_w", 145), ("fan_rpm", 1450),
            ("fan_percent", 40), ("vram_used_bytes", 1_234_567_168), ("vram_total_bytes", 8_589_934_592),
            ("core_clock_hz", 1.366e9), ("mem_clock_hz", 2e9), ("pcie_width", 1), ("pcie_speed_gts", 8),
            ("resets_total", 0),
        ]
        for (key, value) in expected { #expect(sample[key]?.doubleValue == value, "\(key)") }
        #expect(sample["pci"]?.stringValue == Self.radeon.address)
        #expect(sample["sensor_faults"] == nil)
        #expect(sample["findings"]?.arrayValue == [])
        try rig.set(Self.radeon, "hwmon/temp1_input", "71500")
        #expect(try probe.sample()["temp_c"]?.doubleValue == 71.5)
    }

    @Test func aGeForceTellsAllOfItsReadings() throws {
        let rig = try FakeRig([Self.radeon, Self.geforce])
        let probe = try SamplingProbe(rig, card: 1)
        let sample = try probe.sample()
        let expected: [(String, Double)] = [
            ("gpu_busy_percent", 37), ("temp_c", 61), ("power_w", 71), ("power_cap_w", 120), ("fan_percent", 44),
            ("vram_used_bytes", 536_870_912), ("core_clock_hz", 1.83e9), ("mem_clock_hz", 4.001e9), ("pcie_width", 1),
            ("pcie_speed_gts", 8),
        ]
        for (key, value) in expected { #expect(sample[key]?.doubleValue == value, "\(key)") }
        #expect(sample["fan_rpm"] == nil)
        try rig.nvml(Self.geforce, "process", "4711")
        let process = try probe.sample(pids: [4711])["processes"]?.arrayValue?.first
        #expect(process?["pid"]?.intValue == 4711)
        #expect(process?["vram_bytes"]?.intValue == 256 << 20)
        #expect(try probe.sample(pids: [1])["processes"] == nil)
    }

    @Test func throttlingIsToldWithItsReasonAndAHardwareSlowdownOnlyWhenItLasts() throws {
        let rig = try FakeRig([Self.radeon, Self.geforce])
        let geforce = try SamplingProbe(rig, card: 1)
        try rig.nvml(Self.geforce, "throttle", "0x2c")
        #expect(try geforce.sample()["throttle"]?.arrayValue == ["power_cap", "thermal"])
        #expect(try geforce.sample()["throttle"]?.arrayValue == ["power_cap", "thermal", "hardware"])
        let radeon = try SamplingProbe(rig, card: 0)
        #expect(try radeon.sample()["throttle"]?.arrayValue == [])
        try rig.set(Self.radeon, "gpu_busy_percent", "99")
        try rig.set(Self.radeon, "hwmon/freq1_input", "1100000000")
        try rig.set(Self.radeon, "hwmon/power1_input", "145000000")
        // Power is read after it; the sample puts both together.
        #expect(try radeon.sample()["throttle"]?.arrayValue == ["power_cap"])
    }

    @Test(arguments: ["", "garbage", "12garbage", "-", "999999999999999999999999", "\0\0\0", "ÿþ", "nan", "1e3"])
    func whatIsNoValueIsLeftOut(content: String) throws {
        let rig = try FakeRig([Self.radeon])
        try rig.set(Self.radeon, "gpu_busy_percent", content)
        try rig.set(Self.radeon, "hwmon/temp1_input", content)
        let sample = try SamplingProbe(rig, card: 0).sample()
        #expect(sample["gpu_busy_percent"] == nil)
        #expect(sample["temp_c"] == nil)
        #expect(sample["sensor_faults"]?["busy"]?.stringValue == "malformed")
        #expect(sample["sensor_faults"]?["temperature"]?.stringValue == "malformed")
        #expect(sample["power_w"]?.doubleValue == 113.117)
    }

    @Test(arguments: ["0", "-273150", "150000", "511000", "2147483647000"])
    func impossibleTemperaturesAreUnknown(content: String) throws {
        let rig = try FakeRig([Self.radeon])
        try rig.set(Self.radeon, "hwmon/temp1_input", content)
        let sample = try SamplingProbe(rig, card: 0).sample()
        #expect(sample["temp_c"] == nil)
        #expect(sample["sensor_faults"]?["temperature"]?.stringValue == "implausible")
    }

    @Test func aHugeFileAMissingOneAndAPipeAreNoValues() throws {
        let rig = try FakeRig([Self.radeon])
        try rig.set(Self.radeon, "gpu_busy_percent", String(repeating: "7", count: 1 << 20))
        try rig.remove(Self.radeon, "hwmon/power1_cap")
        try rig.remove(Self.radeon, "hwmon/fan1_input")
        #expect(mkfifo(rig.path(Self.radeon, "hwmon/fan1_input"), 0o600) == 0)
        let sample = try SamplingProbe(rig, card: 0).sample()
        #expect(sample["gpu_busy_percent"] == nil)
        #expect(sample["sensor_faults"]?["busy"]?.stringValue == "malformed")
        #expect(sample["power_cap_w"] == nil)
        #expect(sample["sensor_faults"]?["power_cap"] == nil)
        #expect(sample["fan_rpm"] == nil)
        #expect(sample["temp_c"]?.doubleValue == 67)
    }

    @Test(arguments: [(1, "EPERM"), (5, "EIO"), (16, "EBUSY"), (19, "ENODEV"), (110, "ETIMEDOUT"), (121, "errno_121")])
    func errorsKeepTheirErrnoAndAreCounted(code: Int, name: String) throws {
        let rig = try FakeRig([Self.radeon])
        let probe = try SamplingProbe(rig, card: 0)
        #expect(try probe.sample()["temp_c"]?.doubleValue == 67)
        try rig.fault(Self.radeon, "hwmon/temp1_input", "errno \(code)")
        _ = try probe.sample()
        let sample = try probe.sample()
        // The last good value, with its age.
        #expect(sample["temp_c"]?.doubleValue == 67)
        #expect(sample["ages_sec"]?["temp_c"]?.doubleValue != nil)
        #expect(sample["sensor_faults"]?["temperature"]?.stringValue == name)
        #expect(sample["sensor_errors_total"]?["temperature"]?[name]?.intValue == 2)
        #expect(sample["gpu_busy_percent"]?.doubleValue == 42)
        try rig.fault(Self.radeon, "hwmon/temp1_input", nil)
        let healed = try probe.sample()
        #expect(healed["sensor_faults"] == nil)
        #expect(healed["ages_sec"] == nil)
    }

    @Test func aHangingSensorDelaysNoOther() throws {
        let rig = try FakeRig([Self.radeon])
        let probe = try SamplingProbe(rig, card: 0)
        _ = try probe.sample()
        let threads = try probe.threads
        // Far longer than the test: a sample that waited for it would not come.
        try rig.fault(Self.radeon, "hwmon/temp1_input", "delay 3600000")
        try rig.set(Self.radeon, "gpu_busy_percent", "77")
        let first = try probe.sample()
        #expect(first["sensor_faults"]?["temperature"]?.stringValue == "timed_out")
        #expect(first["temp_c"]?.doubleValue == 67)
        #expect(first["gpu_busy_percent"]?.doubleValue == 77)
        #expect(first["power_w"]?.doubleValue == 113.117)
        // Every sensor may hang: samples still come, and the threads stay few.
        for name in ["gpu_busy_percent", "mem_info_vram_total", "hwmon/fan1_input", "hwmon/pwm1_max", "config"] {
            try rig.fault(Self.radeon, name, "delay 3600000")
        }
        for _ in 0..<8 { _ = try probe.sample() }
        let last = try probe.sample()
        #expect(last["sensor_faults"]?["busy"]?.stringValue == "timed_out")
        // Four that are stuck, and what the concurrency runtime adds.
        #expect(try probe.threads <= threads + 6)
        #expect(last["pci"]?.stringValue == Self.radeon.address)
    }

    @Test func aSleepingCardIsNotWoken() throws {
        let rig = try FakeRig([Self.radeon])
        let probe = try SamplingProbe(rig, card: 0)
        _ = try probe.sample()
        try rig.set(Self.radeon, "power/runtime_status", "suspended")
        // Had it been read, this would be the fault.
        try rig.fault(Self.radeon, "hwmon/temp1_input", "errno 5")
        try rig.answer(Self.radeon, "errno", "5")
        let sample = try probe.sample()
        #expect(sample["asleep"]?.boolValue == true)
        #expect(sample["sensor_faults"] == nil)
        #expect(sample["sensor_errors_total"] == nil)
        #expect(sample["findings"]?.arrayValue == [])
    }

    @Test func signsOfASickRadeonAreFound() throws {
        let rig = try FakeRig([Self.radeon])
        let probe = try SamplingProbe(rig, card: 0)
        func findings() throws -> [String] {
            try probe.sample()["findings"]?.arrayValue?.compactMap(\.stringValue) ?? []
        }
        #expect(try findings() == [])
        try rig.answer(Self.radeon, "vram_lost", "1")
        #expect(try findings() == ["reset"])
        #expect(try findings() == [])
        try rig.answer(Self.radeon, "accel_working", "0")
        #expect(try findings() == ["driver_failed"])
        try rig.answer(Self.radeon, "accel_working", "1")
        try rig.answer(Self.radeon, "errno", "19")
        #expect(try findings() == ["driver_failed"])
        try rig.answer(Self.radeon, "errno", nil)
        try rig.set(Self.radeon, "drm/card5/device/devcoredump/data", "dump")
        #expect(try findings() == ["core_dump"])
        try rig.set(Self.radeon, "config", "\u{7f}")
        try Data([UInt8](repeating: 0xff, count: 64)).write(to: URL(filePath: rig.path(Self.radeon, "config")))
        #expect(try findings() == ["unreachable"])
        try rig.pull(Self.radeon)
        #expect(try findings() == ["gone"])
    }

    @Test func signsOfASickGeForceAreFound() throws {
        let rig = try FakeRig([Self.geforce])
        let probe = try SamplingProbe(rig, card: 0)
        func findings() throws -> [String] {
            try probe.sample()["findings"]?.arrayValue?.compactMap(\.stringValue) ?? []
        }
        #expect(try findings() == [])
        try rig.nvml(Self.geforce, "xid", "79")
        #expect(try findings() == ["xid"])
        #expect(try findings() == [])
        for (code, reason) in [(15, "lost"), (16, "reset_required"), (18, "driver_mismatch"), (999, "driver_failed")] {
            try rig.nvml(Self.geforce, "return", "\(code)")
            let sample = try probe.sample()
            #expect(sample["findings"]?.arrayValue?.compactMap(\.stringValue) == [reason])
            #expect(sample["sensor_faults"]?["temperature"]?.stringValue == "nvml_\(code)")
        }
    }

    @Test func everyErrorCodeOfNVMLLeavesTheReadingsOut() throws {
        let rig = try FakeRig([Self.geforce])
        let probe = try SamplingProbe(rig, card: 0)
        for code in Array(1...28) + [999] where code != 3 {
            try rig.nvml(Self.geforce, "return", "\(code)")
            let sample = try probe.sample()
            #expect(sample["temp_c"] == nil)
            #expect(sample["gpu_busy_percent"] == nil)
            #expect(sample["pci"]?.stringValue == Self.geforce.address)
        }
    }

    @Test(arguments: [FakeLibraries.NVML.old, .foreign, .missing])
    func anotherReleaseOfNVMLTellsWhatItHas(release: FakeLibraries.NVML) throws {
        let rig = try FakeRig([Self.geforce], nvml: release)
        let sample = try SamplingProbe(rig, card: 0).sample(pids: [1])
        #expect(sample["temp_c"]?.doubleValue == (release == .old ? 61 : nil))
        #expect(sample["findings"]?.arrayValue == [])
    }

    /// 17,280 samples are a day of one every five seconds.
    @Test(arguments: [radeon, geforce])
    func aDayOfSamplesLeaksNothing(card: FakeCard) throws {
        let used = try Probe(FakeRig([card])).json(["soak", "0", "17280"])
        let heap = try ["before", "after"].map { try #require(used["heap_bytes_\($0)"]?.intValue) }
        // A leak of 16 bytes a sample would be more.
        #expect(heap[1] - heap[0] < 256 << 10)
        let resident = try ["before", "after"].map { try #require(used["rss_kib_\($0)"]?.intValue) }
        // The allocator's stock for one more thread is less.
        #expect(resident[1] - resident[0] < 2048)
        #expect(used["fds_before"] == used["fds_after"])
        #expect(try #require(used["fds_before"]?.intValue) > 0)
        let threads = try #require(used["threads_before"]?.intValue)
        #expect(threads > 1)
        #expect(try #require(used["threads_after"]?.intValue) <= threads + 2)
        print("CPU per sample on \(card.kind): \(used["cpu_us_per_sample"]?.doubleValue ?? 0) us")
    }
}
