import JobModel

/// What can go wrong, and what people do at the worst moment.
package enum Fault: String, Sendable, CaseIterable {
    // The way between
    case loseMessages, delayMessages, duplicateMessages, reorderMessages, loseAnswers
    case partitionMaestro, partitionWorker, partitionPeople
    // Processes and hosts
    case killMaestro, stopMaestro, freezeMaestro, killWorker, killHost, stopWorker, freezeWorker, rivalWorker
    /// With everything on it, watchdogs too.
    case freezeHost
    case jumpClock, jumpServerClock, fillWorkerDisk
    // The server
    case killServer, cutPower, fillStream, slowDisk, loseConsumer, syncAlways
    // Cards
    case thermalStorm, sickCard
    // People
    case cancel, cancelUnknown, retry, resubmit, conflictingSubmission, cordon, drain, quarantine, staleRead
    case nightfall
}

extension Fault {
    /// It keeps messages from everybody, or may.
    var isFeltByAll: Bool {
        switch self {
        case .loseMessages, .delayMessages, .reorderMessages, .loseAnswers, .killServer, .cutPower, .fillStream,
            .slowDisk:
            true
        default: false
        }
    }
}

/// A moment in the life of a job at which something can be made to go wrong.
package enum Moment: Sendable, Hashable, CaseIterable {
    /// The leader is about to send the write of a job's next state; that write was stored and answered.
    case decided(JobState), stored(JobState)
    /// The leader is about to acknowledge a submission.
    case settling
    /// A run message has reached its worker.
    case runDelivered
    /// A worker is about to write a job's next state; that write was stored and answered.
    case writing(JobState), written(JobState)
    case started, exited, reported, telling, told
    /// The watchdog of an attempt is there, its process is not.
    case guarded

    package static let allCases: [Moment] =
        [.settling, .runDelivered, .guarded, .started, .exited, .reported, .telling, .told]
        + [JobState.enqueued, .scheduled, .cancelled, .failed].flatMap { [.decided($0), .stored($0)] }
        + [JobState.running, .done, .failed, .retry, .enqueued, .cancelled].flatMap { [.writing($0), .written($0)] }

    var name: String {
        switch self {
        case .decided(let state): "leader decided \(state.rawValue)"
        case .stored(let state): "leader stored \(state.rawValue)"
        case .settling: "settling"
        case .runDelivered: "run delivered"
        case .writing(let state): "worker writes \(state.rawValue)"
        case .written(let state): "worker wrote \(state.rawValue)"
        case .guarded: "guarded"
        case .started: "started"
        case .exited: "exited"
        case .reported: "reported"
        case .telling: "telling"
        case .told: "told"
        }
    }
}

/// One fault of a scenario: when, to whom, for how long.
package struct PlannedFault: Sendable {
    package let fault: Fault
    /// From the beginning; for one that lies in wait: from when.
    package let time: Duration
    package let duration: Duration
    /// Chance of its own, so that it stays the same when others are left out.
    package let seed: UInt64
    /// It lies in wait for this moment; nil for one that comes at its time.
    package let moment: Moment?
}

/// How messages fare now: what the faults have made of the network and the disk.
final class Weather {
    private unowned let cluster: Cluster
    private var ends: [Fault: Timestamp] = [:]
    /// Whom lost messages concern; nil for everybody.
    private var victim: String?

    init(_ cluster: Cluster) { self.cluster = cluster }

    func begin(_ fault: Fault, until: Timestamp, victim: String? = nil) {
        ends[fault] = until
        if fault == .loseMessages { self.victim = victim }
    }

    func clear() { ends = ends.mapValues { min($0, cluster.now) } }

    /// Until when messages to or from anybody were lost or late, as far as is known.
    var lastTrouble: Timestamp {
        let kinds = [Fault.loseMessages, .loseAnswers, .delayMessages, .slowDisk]
        return kinds.compactMap { ends[$0] }.max() ?? Agenda.beginning
    }

    private func isOn(_ fault: Fault) -> Bool {
        guard !ends.isEmpty, let end = ends[fault] else { return false }
        return end > cluster.now
    }

    func isLost(_ part: Part) -> Bool {
        isOn(.loseMessages) && (victim == nil || victim == part.name) && cluster.chance.hit(0.2)
    }

    func isDoubled() -> Bool { isOn(.duplicateMessages) && cluster.chance.hit(0.3) }
    func losesAnswer() -> Bool { isOn(.loseAnswers) && cluster.chance.hit(0.3) }
    var isReordering: Bool { isOn(.reorderMessages) }
    var syncsAlways: Bool { isOn(.syncAlways) }

    func travel() -> Duration {
        let chance = cluster.chance
        let base = 0.0002 + 0.003 * chance.unit()
        if isOn(.delayMessages), chance.hit(0.3) { return .nanoseconds(Int64((base + 4 * chance.unit()) * 1e9)) }
        if isOn(.reorderMessages), chance.hit(0.5) { return .nanoseconds(Int64((base + 0.1 * chance.unit()) * 1e9)) }
        if isOn(.slowDisk) { return .nanoseconds(Int64((base + 0.8 * chance.unit()) * 1e9)) }
        return .nanoseconds(Int64(base * 1e9))
    }
}
