import JobModel

/// What a placement looks at of one card and its worker; ``CardDetails`` holds the rest.
struct Card: Sendable {
    let id: GPUID
    /// The worker's life that owns the card, as registered; nil when the registration was given back or never seen.
    var owner: Incarnation?
    /// The last heartbeat of the owner.
    var counter: UInt64 = 0
    var slots = 1
    var isDraining = false
    /// Its worker can end a fenced job when it is cut off.
    var canFence = false
    /// Heard of within the TTL in its present life.
    var isAlive = false
    /// When something was last heard, or when it was granted another full TTL.
    var lastHeard: Timestamp
    /// A deadline for `lastHeard` is in the queue.
    var isWatched = false

    var busyPercent: Double?
    var temperature: Double?
    var readAt: Timestamp?
    /// What speaks against the card until somebody or something takes it back.
    var marks: Marks = []
    /// The last reading was above the limit while no job of ours was bound to the card.
    var isBusyElsewhere = false
    /// As many cards work as may, and this one is not among them.
    var isOverLimit = false

    /// The attempts bound to this card: scheduled, running, or being scheduled.
    var assigned: Set<JobID> = []
    /// How long its jobs ran of late, in seconds; nil before the first one.
    var recentSeconds: Double?

    struct Marks: OptionSet, Sendable {
        let rawValue: UInt8

        static let quarantined = Marks(rawValue: 1)
        static let cordoned = Marks(rawValue: 2)
        /// The worker's last reading held it.
        static let held = Marks(rawValue: 4)
        /// Above the limit, and not yet cooled down since.
        static let hot = Marks(rawValue: 8)
        static let probation = Marks(rawValue: 16)
    }

    init(id: GPUID, lastHeard: Timestamp) {
        self.id = id
        self.lastHeard = lastHeard
    }

    /// Takes a reading in. What it says of busyness holds until it is stale; heat and a hold last until a later reading
    /// takes them back, since a card that is not read any more has not cooled down by that.
    mutating func noteReading(_ reading: CardReading, policy: SchedulerPolicy, at now: Timestamp) {
        busyPercent = reading.busyPercent
        temperature = reading.temperature
        readAt = now
        isBusyElsewhere = assigned.isEmpty && (busyPercent ?? 0) > policy.maxBusyPercent
        mark(.held, reading.hold != nil)
        guard let temperature else { return }
        let limit = policy.temperatureLimit(of: reading)
        if temperature > limit { mark(.hot, true) }
        if temperature <= limit - policy.coolDown { mark(.hot, false) }
    }

    mutating func mark(_ mark: Marks, _ isSet: Bool) {
        if isSet { marks.insert(mark) } else { marks.remove(mark) }
    }

    mutating func noteDuration(_ duration: Duration) {
        let seconds = duration.inSeconds
        recentSeconds = recentSeconds.map { $0 * 0.8 + seconds * 0.2 } ?? seconds
    }

    func isStale(policy: SchedulerPolicy, at now: Timestamp) -> Bool {
        readAt.map { now - $0 > policy.metricsTTL } ?? true
    }

    /// Why the card may take no job; nil if it may, as far as it has room.
    func objection(policy: SchedulerPolicy, at now: Timestamp) -> Objection? {
        guard owner != nil, isAlive else { return .gone }
        if isDraining { return .stopping }
        if !marks.isEmpty {
            if marks.contains(.quarantined) { return .quarantined }
            if marks.contains(.cordoned) { return .cordoned }
            if marks.contains(.held) { return .held }
            if marks.contains(.hot) { return .hot }
        }
        if isBusyElsewhere, assigned.isEmpty, !isStale(policy: policy, at: now) { return .busy }
        if isOverLimit { return .limited }
        if marks.contains(.probation), !assigned.isEmpty { return .probation }
        return nil
    }

    /// Attempts that may be bound to it: those that run, and those that wait in its stream.
    func capacity(policy: SchedulerPolicy) -> Int {
        marks.contains(.probation) ? 1 : slots + dispatchAhead(policy: policy)
    }

    /// Attempts that may wait in the card's stream beyond its slots.
    private func dispatchAhead(policy: SchedulerPolicy) -> Int {
        guard let recentSeconds, recentSeconds < policy.shortJob.inSeconds else { return 0 }
        return slots
    }

    /// Lower is better: `busy% + 0.5 * temp + 30 if the readings are stale`; unknown busy counts 50, unknown
    /// temperature 60.
    func score(policy: SchedulerPolicy, at now: Timestamp) -> Double {
        let stale = isStale(policy: policy, at: now)
        return (busyPercent ?? 50) + 0.5 * (temperature ?? 60) + (stale ? 30 : 0)
    }
}
