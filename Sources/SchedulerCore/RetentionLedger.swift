import DequeModule
import JobModel

/// The records of ended jobs, oldest first, and which of them may be removed.
///
/// A record is removed when it is older than KEEP_DONE_HOURS, or when there are more than KEEP_DONE_MAX of them and its
/// id is older than ID_HORIZON_SEC: a younger one still tells a repeated submission.
struct RetentionLedger: Sendable {
    struct Ended: Sendable, Equatable {
        let job: EndedJob
        /// When it was stored, on the core's clock.
        let storedAt: Timestamp

        /// Where the terminal record stands in ORG_JOBS.
        var sequence: UInt64 { job.sequence }
    }

    /// By sequence, which is also the order of their age.
    private var queue = Deque<Ended>()
    /// Being removed now.
    private var removing: [UInt64: Ended] = [:]
    /// Nothing is removed before: the last removal failed.
    private var pausedUntil: Timestamp?

    /// Removals under way at once: gentle, for the server has live jobs to serve.
    static let atOnce = 64
    /// After a removal that failed.
    static let pause = Duration.seconds(30)

    var count: Int { queue.count + removing.count }

    /// All of them, in no order.
    var ended: [EndedJob] { queue.map(\.job) + removing.values.map(\.job) }

    /// A terminal record, in the order of the stream.
    mutating func add(_ job: EndedJob, storedAt: Timestamp) {
        guard queue.last.map({ $0.sequence < job.sequence }) ?? true else { return }
        queue.append(Ended(job: job, storedAt: storedAt))
    }

    /// When the oldest one may go; nil when there is none, or removals are under way.
    func due(_ policy: SchedulerPolicy) -> Timestamp? {
        guard let first = queue.first, removing.isEmpty else { return nil }
        let keep = queue.count > policy.keepDone ? policy.idHorizon : policy.keepDoneFor
        let due = first.storedAt + keep
        return pausedUntil.map { max($0, due) } ?? due
    }

    /// Takes those out that are due, a batch at most.
    /// - Parameter place: records above it have results that are still to be told.
    mutating func takeDue(_ policy: SchedulerPolicy, place: UInt64, at now: Timestamp) -> [UInt64] {
        var batch: [Ended] = []
        while batch.count < Self.atOnce, let due = due(policy), due <= now, let first = queue.first,
            first.sequence <= place
        {
            batch.append(first)
            queue.removeFirst()
        }
        for one in batch { removing[one.sequence] = one }
        return batch.map(\.sequence)
    }

    /// A removal has ended. One that failed is tried again after a pause, by this leader or the next.
    /// - Returns: whose record is gone now.
    mutating func end(_ sequence: UInt64, wasRemoved: Bool, at now: Timestamp) -> EndedJob? {
        guard let one = removing.removeValue(forKey: sequence) else { return nil }
        if wasRemoved { return one.job }
        pausedUntil = now + Self.pause
        // Only others that failed can be before it: the rest is younger.
        let index = queue.firstIndex { sequence < $0.sequence } ?? queue.endIndex
        queue.insert(one, at: index)
        return nil
    }
}

/// Removal of the records of jobs that ended long ago, one by one, each by its exact sequence.
extension SchedulerCore {
    /// Sets the deadline for the next removal, if there is one to come and none is set for as soon.
    mutating func planRemoval(notBefore soonest: Timestamp) {
        guard phase == .leading, let due = retention.due(policy) else { return }
        let time = max(due, soonest)
        if let planned = removalPlanned, planned <= time { return }
        removalPlanned = time
        deadlines.insert(.removal, at: time)
    }

    mutating func removeEnded(at now: Timestamp) {
        // A later deadline may have been replaced by this one, and still comes.
        guard let planned = removalPlanned, planned <= now else { return }
        removalPlanned = nil
        let batch = retention.takeDue(policy, place: results.place, at: now)
        actions += batch.map { .removeRecord(sequence: $0) }
        // Due, but its result is still to be told: looked at again soon.
        if batch.isEmpty { planRemoval(notBefore: now + .seconds(1)) }
    }

    mutating func endRemoval(_ sequence: UInt64, _ failure: String?, at now: Timestamp) {
        if let job = retention.end(sequence, wasRemoved: failure == nil, at: now) { index.remove(job) }
        if let failure {
            actions.append(
                .notice("the record at sequence \(sequence) of an ended job was not removed yet: \(failure)")
            )
        }
        planRemoval(notBefore: now)
    }
}
