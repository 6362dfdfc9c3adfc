import JobModel

/// What the scheduler knows of one card and its worker.
struct Card: Sendable {
    let id: GPUID
    /// The worker's life that owns the card, as registered; nil when the registration was given back or never seen.
    var owner: Incarnation?
    /// The last heartbeat of the owner.
    var counter: UInt64 = 0
    var slots = 1
    var isDraining = false
    /// Heard of within the TTL in its present life.
    var isAlive = false
    /// When something was last heard, or when it was granted another full TTL.
    var lastHeard: Timestamp
    /// A deadline for `lastHeard` is in the queue.
    var isWatched = false
    /// A heartbeat of a life whose registration has not arrived yet.
    var unconfirmed: Heartbeat?

    var busyPercent: Double?
    var temperature: Double?
    var readAt: Timestamp?
    /// Above the limit, and not yet cooled down since.
    var isHot = false
    /// The last reading was above the limit while no job of ours was bound to the card.
    var isBusyElsewhere = false

    /// The attempts bound to this card: scheduled, running, or being scheduled.
    var assigned: Set<JobID> = []
    /// How long its jobs ran of late, in seconds; nil before the first one.
    var recentSeconds: Double?

    init(id: GPUID, lastHeard: Timestamp) {
        self.id = id
        self.lastHeard = lastHeard
    }

    mutating func noteReading(_ reading: CardReading, policy: SchedulerPolicy, at now: Timestamp) {
        busyPercent = reading.busyPercent
        temperature = reading.temperature
        readAt = now
        isBusyElsewhere = assigned.isEmpty && (busyPercent ?? 0) > policy.maxBusyPercent
        guard let temperature else { return }
        if temperature > policy.maxTemperature { isHot = true }
        if temperature <= policy.maxTemperature - policy.coolDown { isHot = false }
    }

    mutating func noteDuration(_ duration: Duration) {
        let seconds = duration.inSeconds
        recentSeconds = recentSeconds.map { $0 * 0.8 + seconds * 0.2 } ?? seconds
    }

    func isStale(policy: SchedulerPolicy, at now: Timestamp) -> Bool {
        readAt.map { now - $0 > policy.metricsTTL } ?? true
    }

    /// Why the card may take no job at all, for a person; nil if it may.
    func objection(policy: SchedulerPolicy, at now: Timestamp) -> String? {
        guard owner != nil, isAlive else { return "no worker: not heard of within \(policy.heartbeatTTL.inSeconds) s" }
        if isDraining { return "draining: its worker is about to stop" }
        if isStale(policy: policy, at: now) { return nil }
        if isHot, let temperature {
            return "hot: \(temperature) C; the limit is \(policy.maxTemperature) C, and it must cool down to "
                + "\(policy.maxTemperature - policy.coolDown) C"
        }
        if isBusyElsewhere, assigned.isEmpty, let busyPercent {
            return "busy: \(busyPercent) % without a job of ours; the limit is \(policy.maxBusyPercent) %"
        }
        return nil
    }

    /// Attempts that may wait in the card's stream beyond its slots.
    func dispatchAhead(policy: SchedulerPolicy) -> Int {
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
