/// What a sensor can truthfully say.
enum Plausible {
    /// Degrees Celsius. 0 and below, 150 and above (511 is the usual one) are faults of the sensor, never cold.
    static let temperature = 1.0...149.0
    static let percent = 0.0...100.0
    /// Watt.
    static let power = 0.0...2000.0
    static let fanSpeed = 0.0...30000.0
    /// Hz.
    static let clock = 0.0...1e11
}

/// The directory of a card's hardware monitor, whose number is arbitrary.
enum Hwmon {
    static func directory(of device: String) -> String? {
        (SysfsFiles.names(in: "\(device)/hwmon") ?? []).first { $0.hasPrefix("hwmon") }.map { "\(device)/hwmon/\($0)" }
    }
}

/// Whether the kernel has put a card to sleep; looking does not wake it.
struct RuntimePower {
    private let status: AttributeFile

    init(_ device: String) { status = AttributeFile("\(device)/power/runtime_status") }

    /// False when the kernel does not tell: then it does not let the card sleep.
    var isAsleep: Bool {
        do {
            return Self.asleep.contains(try status.line())
        } catch {
            return false
        }
    }

    /// A card on its way up answers only when it is there.
    private static let asleep: Set<String> = ["suspended", "suspending", "resuming"]
}

/// The speed of a PCI Express lane as sysfs words it, "8.0 GT/s PCIe".
enum PCIeSpeed {
    /// Giga-transfers per second; nil for "Unknown" and anything else.
    static func parse(_ text: String) -> Double? {
        let words = text.split(separator: " ")
        guard words.count >= 2, words[1] == "GT/s", let speed = Double(words[0]), (1.0...256.0).contains(speed) else {
            return nil
        }
        return speed
    }

    static func read(_ path: String) -> Double? { SysfsFiles.line(path).flatMap(parse) }

    /// The speed of a PCIe generation.
    static func ofGeneration(_ generation: UInt64) -> Double? {
        switch generation {
        case 1: 2.5
        case 2: 5
        case 3: 8
        case 4: 16
        case 5: 32
        case 6: 64
        default: nil
        }
    }
}
