import JobModel

/// The temperatures at which a card is left alone, its job is ended, and it is used again. Degrees Celsius.
package struct ThermalLimits: Sendable, Equatable {
    /// The card's own limit: what must not be reached.
    package let hardware: Double
    /// At this no new job is placed.
    package let stopPlacing: Double
    /// At this the running job is ended.
    package let endJob: Double
    /// At or below this, held for a while, the card is used again.
    package let resume: Double
    /// How long it must be that cool.
    package let coolFor: Duration

    /// What a card's own limit may be; outside of it its firmware tells nonsense.
    package static let plausibleHardware = 60.0...110.0
    /// For cards that tell no limit: below that of any card of the last ten years.
    package static let assumedHardware = 90.0
    /// Between stopping and resuming at the least, so that a card at the edge does not flutter.
    package static let leastHysteresis = 3.0

    /// - Parameters:
    ///   - hardware: `temp1_crit` of AMD, the slowdown threshold of NVIDIA; nil when the card tells none.
    ///   - maximum: the operator's MAX_TEMP_C.
    ///   - coolFor: how long a card that was hot must be cool before it is used again.
    package init(hardware: Double?, maximum: Double, coolFor: Duration = .seconds(60)) {
        self.coolFor = coolFor
        let range = Self.plausibleHardware
        let limit = hardware.map { min(max($0, range.lowerBound), range.upperBound) } ?? Self.assumedHardware
        self.hardware = limit
        stopPlacing = min(limit - 10, maximum)
        endJob = limit - 5
        resume = min(limit - 20, stopPlacing - Self.leastHysteresis)
    }
}

/// Whether a card may be used, judged by its temperature.
///
/// Heat is left by hysteresis: a card that was too hot is used again only after it has been cool for a while. A
/// sensor that says nothing is unknown, never cool.
package struct ThermalPolicy: Sendable, Equatable {
    package var limits: ThermalLimits
    /// Places jobs although the temperature is not known.
    package let allowsUnknown: Bool

    /// What may be done with the card.
    package enum Verdict: Sendable, Equatable {
        case place
        /// No new job; a running one goes on.
        case hold(Reason)
        /// No new job, and the running one must end.
        case endJob(Reason)
    }

    package enum Reason: Sendable, Equatable, CustomStringConvertible {
        /// At or above the limit where placing stops.
        case hot(temperature: Double, limit: Double)
        /// Was hot, and has not been cool for long enough. It has no temperature while it sleeps.
        case cooling(temperature: Double?, resumesAt: Double)
        /// The temperature is not known.
        case unknown
        /// Near the card's own limit, several times in a row.
        case overheated(temperature: Double, limit: Double)

        package var description: String {
            switch self {
            case .hot(let temperature, let limit): "too hot: \(temperature) °C, no new jobs from \(limit) °C"
            case .cooling(let temperature, let resume):
                "cooling down: \(temperature.map { "\($0) °C" } ?? "asleep"), used again after a while at \(resume) °C"
            case .unknown: "its temperature cannot be read"
            case .overheated(let temperature, let limit): "overheated: \(temperature) °C, jobs end from \(limit) °C"
            }
        }
    }

    /// Samples in a row at the limit before a job is ended.
    package static let samplesToEnd = 3

    private enum State: Equatable {
        case cool
        case hot
        /// Cool again since.
        case cooling(since: Timestamp)
    }

    private var state = State.cool
    private var samplesAtEnd = 0

    package init(limits: ThermalLimits, allowsUnknown: Bool = false) {
        self.limits = limits
        self.allowsUnknown = allowsUnknown
    }

    /// Takes one sample.
    /// - Parameter temperature: degrees Celsius of this moment; nil when the sensor gave none.
    package mutating func observe(_ temperature: Double?, at now: Timestamp) -> Verdict {
        guard let temperature, Plausible.temperature.contains(temperature) else { return observedNothing() }
        samplesAtEnd = temperature >= limits.endJob ? samplesAtEnd + 1 : 0
        state = nextState(temperature, at: now)
        if samplesAtEnd >= Self.samplesToEnd {
            return .endJob(.overheated(temperature: temperature, limit: limits.endJob))
        }
        switch state {
        case .cool: return .place
        case .hot where temperature >= limits.stopPlacing:
            return .hold(.hot(temperature: temperature, limit: limits.stopPlacing))
        case .hot, .cooling: return .hold(.cooling(temperature: temperature, resumesAt: limits.resume))
        }
    }

    /// Takes one sample of a card that sleeps: powered down it heats nothing, so that counts as cool. Were it unknown,
    /// no job would ever wake it.
    package mutating func observeSleep(at now: Timestamp) -> Verdict {
        samplesAtEnd = 0
        state = nextState(limits.resume, at: now)
        switch state {
        case .cool: return .place
        case .hot, .cooling: return .hold(.cooling(temperature: nil, resumesAt: limits.resume))
        }
    }

    private func nextState(_ temperature: Double, at now: Timestamp) -> State {
        if temperature >= limits.stopPlacing { return .hot }
        switch state {
        case .cool: return .cool
        case .hot: return temperature <= limits.resume ? .cooling(since: now) : .hot
        case .cooling(let since):
            guard temperature <= limits.resume else { return .hot }
            return now - since >= limits.coolFor ? .cool : state
        }
    }

    /// A time without readings is no time of being cool.
    private mutating func observedNothing() -> Verdict {
        if case .cooling = state { state = .hot }
        return state == .cool && allowsUnknown ? .place : .hold(.unknown)
    }
}
