import JobModel

/// Who leads: the decisions around the lease record, for one process.
///
/// The lease holds a duration, not a time. The holder trusts it from the moment it *began* its last successful
/// renewal, less a margin; a standby takes it when the record has not changed for the whole duration on its own
/// clock. So the old holder has stopped before the new one starts, as long as both clocks run at about one speed.
package struct LeaseCore: Sendable {
    /// A revision of the lease record.
    package struct Revision: Sendable, Equatable {
        package var lease: LeaderLease
        package var sequence: UInt64

        package init(lease: LeaderLease, sequence: UInt64) {
            self.lease = lease
            self.sequence = sequence
        }
    }

    package enum Event: Sendable {
        /// The record as it stands; nil when there is none.
        case observed(Revision?)
        case stored(OperationID, sequence: UInt64)
        /// Another process wrote first; what stands there now.
        case conflict(OperationID, Revision?)
        /// The write was refused or its outcome is not known; the record has to be read before the next try.
        case failed(OperationID)
        case timerFired
        /// Give the lease up in order.
        case stop
    }

    package enum Action: Sendable, Equatable {
        /// Answered by `stored`, `conflict` or `failed`.
        case write(LeaderLease, expected: UInt64)
        /// Read the record. Answered by `observed`.
        case read
        /// This process leads, and may until then act without asking anybody.
        case lead(until: Timestamp)
        /// The lease was renewed.
        case extend(until: Timestamp)
        /// This process leads no longer.
        case standDown(reason: String)
        case armTimer(Timestamp)
    }

    private enum Role: Sendable {
        /// Nothing is known yet.
        case unknown
        /// Another process holds the lease, or nobody; unchanged since then on our clock.
        case standby(Revision?, since: Timestamp)
        case leading(sequence: UInt64, until: Timestamp)
        case stopped
    }

    private struct PendingWrite: Sendable {
        var op: OperationID
        /// When the write was begun: from then the lease counts.
        var begun: Timestamp
        var isRelease: Bool
    }

    private let holder: Incarnation
    private let host: String
    private let processID: Int
    private let duration: Duration
    private var ids: IdentifierSource
    private var role = Role.unknown
    private var pending: PendingWrite?
    /// The outcome of the last write is not known: the record is read before the next one.
    private var mustRead = false
    private var isStopping = false

    /// - Parameter duration: how long the lease lasts without renewal; at least a second.
    package init(holder: Incarnation, host: String, processID: Int, duration: Duration, ids: IdentifierSource) {
        self.holder = holder
        self.host = host
        self.processID = processID
        self.duration = max(duration, .seconds(1))
        self.ids = ids
    }

    /// How much earlier than the lease's end its holder stops: for clocks that do not run at quite the same speed.
    private var margin: Duration { duration / 10 }
    /// How long after a failed write the next try is made.
    private var pause: Duration { duration / 10 }

    package mutating func handle(_ event: Event, at now: Timestamp) -> [Action] {
        switch event {
        case .observed(let revision): return observe(revision, at: now)
        case .stored(let op, let sequence): return noteStored(op, sequence, at: now)
        case .conflict(let op, let revision): return noteConflict(op, revision, at: now)
        case .failed(let op): return noteFailure(op, at: now)
        case .timerFired: return fireTimer(at: now)
        case .stop: return stop(at: now)
        }
    }

    private mutating func observe(_ revision: Revision?, at now: Timestamp) -> [Action] {
        switch role {
        case .stopped:
            return []
        case .leading(let sequence, let until):
            guard let revision, revision.sequence >= sequence else { return [] }
            if revision.lease.holder == holder { return goOn(with: revision, until: until, at: now) }
            return standDown(
                "process \(revision.lease.processID) on \(revision.lease.host) took the lease",
                revision,
                at: now
            )
        case .unknown:
            return follow(revision, since: now, at: now)
        case .standby(let known, let since):
            if let known, let revision, revision.sequence <= known.sequence {
                return follow(known, since: since, at: now)
            }
            return follow(revision, since: now, at: now)
        }
    }

    /// The record is ours; a renewal that failed may have been stored all the same.
    private mutating func goOn(with revision: Revision, until: Timestamp, at now: Timestamp) -> [Action] {
        guard mustRead, pending == nil, now < until else { return [] }
        mustRead = false
        role = .leading(sequence: revision.sequence, until: until)
        return write(expected: revision.sequence, at: now) + [.armTimer(until)]
    }

    /// Times the record; takes the lease when it may.
    private mutating func follow(_ revision: Revision?, since: Timestamp, at now: Timestamp) -> [Action] {
        role = .standby(revision, since: since)
        mustRead = false
        guard pending == nil, !isStopping else { return [] }
        // Our own lease, which we could not trust any more, is ours to renew as long as nobody took it.
        if let revision, revision.lease.holder == holder { return write(expected: revision.sequence, at: now) }
        guard let revision, !revision.lease.isReleased else { return write(expected: revision?.sequence ?? 0, at: now) }
        let end = since + revision.lease.duration
        guard end <= now else { return [.armTimer(end)] }
        return write(expected: revision.sequence, at: now)
    }

    private mutating func write(expected: UInt64, released: Bool = false, at now: Timestamp) -> [Action] {
        let op = OperationID(from: &ids)
        pending = PendingWrite(op: op, begun: now, isRelease: released)
        let lease = LeaderLease(
            holder: holder,
            host: host,
            processID: processID,
            duration: duration,
            isReleased: released,
            op: op
        )
        return [.write(lease, expected: expected)]
    }

    private mutating func noteStored(_ op: OperationID, _ sequence: UInt64, at now: Timestamp) -> [Action] {
        guard let write = pending, write.op == op else { return [] }
        pending = nil
        if isStopping { return write.isRelease ? [] : release(at: sequence, at: now) }
        let until = write.begun + (duration - margin)
        let wasLeading = isLeading
        guard until > now else {
            // The answer took as long as the lease: it may have been lost already.
            role = .unknown
            return (wasLeading ? [.standDown(reason: "renewing the lease took too long")] : []) + [.read]
        }
        role = .leading(sequence: sequence, until: until)
        let next = min(write.begun + duration / 3, until)
        return [wasLeading ? .extend(until: until) : .lead(until: until), .armTimer(max(next, now))]
    }

    private mutating func noteConflict(_ op: OperationID, _ revision: Revision?, at now: Timestamp) -> [Action] {
        guard pending?.op == op else { return [] }
        pending = nil
        if case .leading(_, let until) = role {
            guard let revision, revision.lease.holder == holder else {
                return standDown("another process took the lease", revision, at: now)
            }
            // A renewal that had failed came through after all: the lease is ours, at another sequence.
            if isStopping { return release(at: revision.sequence, at: now) }
            mustRead = true
            return goOn(with: revision, until: until, at: now)
        }
        return follow(revision, since: now, at: now)
    }

    private mutating func noteFailure(_ op: OperationID, at now: Timestamp) -> [Action] {
        guard let write = pending, write.op == op else { return [] }
        pending = nil
        if isStopping {
            // It is not known whether we hold the lease; who waits for it has to wait for its end.
            guard case .leading(let sequence, _) = role, !write.isRelease else { return [] }
            return release(at: sequence, at: now)
        }
        mustRead = true
        guard case .leading(_, let until) = role else { return [.armTimer(now + pause)] }
        return [.armTimer(min(now + pause, until))]
    }

    private mutating func fireTimer(at now: Timestamp) -> [Action] {
        switch role {
        case .unknown:
            return [.read]
        case .stopped:
            return []
        case .standby(let revision, let since):
            guard !mustRead else { return [.read] }
            return follow(revision, since: since, at: now)
        case .leading(let sequence, let until):
            guard now < until else {
                pending = nil
                role = isStopping ? .stopped : .unknown
                return [.standDown(reason: "the lease could not be renewed in time")] + (isStopping ? [] : [.read])
            }
            guard pending == nil else { return [.armTimer(until)] }
            guard !mustRead else { return [.read, .armTimer(until)] }
            return write(expected: sequence, at: now) + [.armTimer(until)]
        }
    }

    private mutating func standDown(_ reason: String, _ revision: Revision?, at now: Timestamp) -> [Action] {
        pending = nil
        return [.standDown(reason: reason)] + follow(revision, since: now, at: now)
    }

    private mutating func stop(at now: Timestamp) -> [Action] {
        isStopping = true
        // A write under way is waited for: its answer tells the sequence to release at.
        guard case .leading(let sequence, _) = role else {
            role = .stopped
            return []
        }
        return pending == nil ? release(at: sequence, at: now) : []
    }

    private mutating func release(at sequence: UInt64, at now: Timestamp) -> [Action] {
        let wasLeading = isLeading
        role = .stopped
        return (wasLeading ? [.standDown(reason: "told to stop")] : [])
            + write(expected: sequence, released: true, at: now)
    }

    private var isLeading: Bool {
        if case .leading = role { true } else { false }
    }
}
