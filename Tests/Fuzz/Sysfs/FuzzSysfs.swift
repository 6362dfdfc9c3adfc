import Glibc

@testable import GPUTelemetry

/// Whatever a kernel's file says: a value within its bounds, or a fault that can be told.
///
/// The input is cut at 0xFE into the contents of the files of a made-up card.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSysfs(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    readTexts(bytes)
    MadeUpCard.shared.fill(bytes.split(separator: 0xFE, omittingEmptySubsequences: false).map { Array($0) })
    MadeUpCard.shared.read()
    return 0
}

private func readTexts(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let address = PCIAddress(text) { precondition(PCIAddress(address.description) == address) }
    if let selector = CardSelector(text) { precondition(CardSelector(selector.description) == selector) }
    if let speed = PCIeSpeed.parse(text) { precondition((1.0...256.0).contains(speed)) }
    let words = text.split(separator: " ").map(String.init)
    do {
        _ = try InventoryRules(pins: words, exclude: [])
        _ = try InventoryRules(pins: [], exclude: words)
    } catch {
        precondition(!error.description.isEmpty)
    }
    _ = (DRMClient(parsing: bytes), NVIDIAModuleInformation(parsing: bytes))
    if let event = UEvent(parsing: bytes) { _ = (event.address, event.finding) }
}

/// A card that is a directory of plain files.
private final class MadeUpCard: Sendable {
    static let shared = MadeUpCard()

    private static let names = [
        "gpu_busy_percent", "hwmon/hwmon0/temp1_input", "hwmon/hwmon0/power1_average", "hwmon/hwmon0/power1_cap",
        "hwmon/hwmon0/pwm1", "hwmon/hwmon0/pwm1_max", "hwmon/hwmon0/fan1_input", "hwmon/hwmon0/freq1_input",
        "mem_info_vram_total", "mem_info_vram_used", "current_link_width", "current_link_speed", "config",
        "power/runtime_status",
    ]
    private let device: String
    private let sensors: SysfsSensors
    private let signs: SignsSensor

    private init() {
        let sys = "/dev/shm/fuzz-sysfs-\(getpid())"
        let address = PCIAddress(domain: 0, bus: 1, device: 0, function: 0)
        let paths = SystemPaths(sys: sys, dev: sys, proc: sys, root: sys)
        device = paths.pciDevice(address)
        var path = ""
        for part in (device + "/hwmon/hwmon0").split(separator: "/") {
            path += "/" + part
            unsafe mkdir(path, 0o700)
        }
        unsafe mkdir(device + "/power", 0o700)
        let card = Card(
            number: 0,
            address: address,
            vendor: .amd,
            model: "made up",
            pciID: "1002:67df",
            driver: nil,
            nodes: DRMNodes(primary: nil, render: nil),
            link: Card.Link(),
            runtimes: [],
            temperatureLimits: Card.TemperatureLimits(),
            isDisplay: false,
            isIntegrated: false,
            degradations: []
        )
        let attachment = CardAttachment(card)
        sensors = SysfsSensors(device: device, attachment: attachment)
        signs = SignsSensor(card: card, paths: paths, attachment: attachment)
    }

    func fill(_ contents: [[UInt8]]) {
        for (index, name) in Self.names.enumerated() {
            let path = device + "/" + name
            guard index < contents.count else {
                unsafe unlink(path)
                continue
            }
            let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            precondition(file >= 0)
            let written = unsafe write(file, contents[index], contents[index].count)
            precondition(written == contents[index].count)
            close(file)
        }
    }

    func read() {
        check(0...100) { () throws(SensorFault) in try sensors.busy() }
        check(1...149) { () throws(SensorFault) in try sensors.temperature() }
        check(0...2000) { () throws(SensorFault) in try sensors.power() }
        check(0...2000) { () throws(SensorFault) in try sensors.powerCap() }
        check(0...30000) { () throws(SensorFault) in try sensors.fanSpeed() }
        check(0...100) { () throws(SensorFault) in try sensors.fanPercent() }
        check(0...1e11) { () throws(SensorFault) in try sensors.coreClock() }
        do {
            let use = try sensors.vram()
            precondition(use.total > 0 && use.used <= use.total)
            _ = try sensors.link()
        } catch {
            precondition(!"\(error)".isEmpty)
        }
        var watch = HealthWatch()
        let seen = signs.signs()
        for finding in watch.examine(seen) { precondition(!finding.evidence.isEmpty) }
        _ = RuntimePower(device).isAsleep
    }

    private func check(_ range: ClosedRange<Double>, _ read: () throws(SensorFault) -> Double) {
        do {
            let value = try read()
            precondition(range.contains(value))
        } catch {
            precondition(!"\(error)".isEmpty)
        }
    }
}
