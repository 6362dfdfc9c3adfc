import JobModel

/// Jobs that must not run on when this worker is cut off: ended here before anybody else may start them.
///
/// A watchdog process of each such attempt keeps the same deadline, for the case that this worker is stopped or killed.
extension WorkerCore {
    /// From when on the attempt may not run any more, as far as is known now; nil for one that is not fenced. The distant
    /// past where no leader has answered yet.
    func fenceEnd(of attempt: Attempt) -> Timestamp? {
        guard let fence = attempt.fence else { return nil }
        guard let answeredAt else { return Timestamp(nanoseconds: .min) }
        return answeredAt + fence.window(grace: policy.grace)
    }

    func isFenceOpen(for attempt: Attempt, at now: Timestamp) -> Bool {
        fenceEnd(of: attempt).map { now < $0 } ?? true
    }

    /// A leader has received the heartbeat that was sent then: until its own patience has passed it gives nothing away.
    ///
    /// An answer extends the fence of what still runs, and never that of an attempt whose time was up before it came.
    mutating func heartbeatAnswered(sentAt: Timestamp, at now: Timestamp) {
        endFenced(at: now)
        guard answeredAt.map({ $0 < sentAt }) ?? true else { return }
        answeredAt = sentAt
        for attempt in fenced { keepFence(of: attempt.id) }
    }

    /// Tells the watchdog of an attempt how long it may run.
    mutating func keepFence(of id: AttemptID) {
        guard let attempt = attempts[id], let fence = attempt.fence, let end = fenceEnd(of: attempt) else { return }
        actions.append(.fence(id, until: end, grace: fence.grace(atMost: policy.grace)))
    }

    /// Ends what has not been answered for too long.
    mutating func endFenced(at now: Timestamp) {
        for attempt in fenced where !isFenceOpen(for: attempt, at: now) {
            attempts[attempt.id]?.isFencedOut = true
            actions.append(
                .notice("job \(attempt.job) is ended: no maestro has answered this worker, and another may be given it")
            )
            end(attempt.id, because: Attempt.StopCause.fenced, at: now)
            guard let fence = attempt.fence, let due = attempts[attempt.id]?.due else { continue }
            attempts[attempt.id]?.due = min(due, now + fence.grace(atMost: policy.grace))
        }
    }

    /// Heartbeats of their own rhythm while something fenced runs.
    mutating func keepFences(at now: Timestamp) {
        let intervals = fenced.compactMap { $0.fence?.interval(grace: policy.grace) }
        guard let interval = intervals.min() else {
            nextFenceBeat = nil
            return
        }
        if let next = nextFenceBeat, next > now { return }
        actions.append(.heartbeat)
        nextFenceBeat = now + interval
    }

    /// The times that the timer has to be armed for.
    var fenceTimes: [Timestamp] { fenced.compactMap { fenceEnd(of: $0) } + (nextFenceBeat.map { [$0] } ?? []) }

    /// The fenced attempts that have a process, or are about to, and may go on; in the order of their arrival.
    private var fenced: [Attempt] {
        attempts.values.filter { $0.fence != nil && !$0.isFencedOut && $0.hasProcess }.sorted { $0.number < $1.number }
    }
}
