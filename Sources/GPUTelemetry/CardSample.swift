/// Everything that was read from a card at one time.
package struct CardSample: Sendable {
    package var address: PCIAddress
    /// The card sleeps: what could only be read by waking it was not read.
    package var isAsleep: Bool
    /// 0 to 100 percent.
    package var busy: Reading<Double>
    /// Degrees Celsius.
    package var temperature: Reading<Double>
    /// Watt.
    package var power: Reading<Double>
    /// Watt.
    package var powerCap: Reading<Double>
    /// Revolutions per minute.
    package var fanSpeed: Reading<Double>
    /// 0 to 100 percent of full speed.
    package var fanPercent: Reading<Double>
    package var vram: Reading<VRAMUse>
    /// Hz.
    package var coreClock: Reading<Double>
    /// Hz.
    package var memoryClock: Reading<Double>
    package var throttling: Reading<[ThrottleReason]>
    package var link: Reading<Card.Link>
    /// What the watched processes do on the card.
    package var processes: Reading<[ProcessUsage]>
    package var signs: Reading<CardSigns>
    /// How often each sensor has failed since the reader was made: sensor, then error code.
    package var errors: [String: [String: Int]]
}

/// Bytes of a card's memory.
package struct VRAMUse: Sendable, Equatable {
    package let total: UInt64
    package let used: UInt64

    package init(total: UInt64, used: UInt64) {
        self.total = total
        self.used = used
    }
}

/// Why a card runs slower than it could.
package enum ThrottleReason: String, Sendable, CaseIterable {
    case powerCap = "power_cap"
    case thermal
    /// The board's power or voltage protection.
    case hardware
    case powerBrake = "power_brake"

    /// NVML's bits (nvmlClocksEventReasons). Idle clocks and clocks that somebody has set are no throttling.
    static func fromNVML(_ bits: UInt64) -> [ThrottleReason] {
        var reasons: [ThrottleReason] = []
        if bits & 0x04 != 0 { reasons.append(.powerCap) }
        if bits & (0x20 | 0x40) != 0 { reasons.append(.thermal) }
        if bits & 0x08 != 0 { reasons.append(.hardware) }
        if bits & 0x80 != 0 { reasons.append(.powerBrake) }
        return reasons
    }

    /// What the readings of an AMD card suggest, which tells no reasons itself: busy, below its highest clock, and
    /// hot or at its power cap.
    /// - Parameter critical: the card's critical temperature.
    static func inferred(
        busy: Double,
        clock: Double,
        maxClock: Double,
        temperature: Double?,
        critical: Double?,
        power: Double?,
        cap: Double?
    ) -> [ThrottleReason] {
        guard busy >= 90, clock < maxClock * 0.97 else { return [] }
        var reasons: [ThrottleReason] = []
        if let temperature, let critical, temperature >= critical - 10 { reasons.append(.thermal) }
        if let power, let cap, cap > 0, power >= cap * 0.97 { reasons.append(.powerCap) }
        return reasons
    }
}
