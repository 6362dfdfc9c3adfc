import JobModel

@testable import SchedulerCore

/// New leaders, lost time, and what a core does not hear of.
extension Bench {
    /// A new leader over the store of another, whose workers live on.
    static func successor(
        of old: Bench,
        after pause: Duration,
        place: UInt64 = 0,
        isReplayed: Bool = true
    ) -> Bench {
        var bench = Bench(policy: old.core.policy, seed: 2, store: old.store, controls: old.controls, isLeading: false)
        bench.takeWorkers(of: old, after: pause)
        bench.send(.began(resultsPlace: place, serverClockOffset: .zero))
        for revision in old.store.revisions { bench.send(.replayed(revision)) }
        if isReplayed { bench.finishReplay() }
        return bench
    }

    mutating func finishReplay() {
        send(.replayFinished(lastSequence: store.lastSequence))
        for revision in controls.revisions { send(.cardControl(revision)) }
        send(.controlReplayed)
    }

    /// The process does not run for a while: what should have happened meanwhile happens late.
    mutating func stall(_ duration: Duration) {
        now = now + duration
        fireTimer()
        answer()
    }

    /// Lets time pass while no write is answered.
    mutating func passWithoutWrites(_ duration: Duration) {
        let end = now + duration
        while let due = timer, due <= end {
            now = max(now, due)
            fireTimer()
        }
        now = end
    }

    /// Another process moves a record, and the core does not hear of it yet.
    mutating func commitUnheard(_ id: JobID, _ transition: JobTransition) throws {
        guard let revision = store[id] else { return }
        var record = revision.record
        try record.apply(transition, op: newOp(), at: now)
        _ = store.write(record, expected: revision.sequence, at: now)
    }
}
