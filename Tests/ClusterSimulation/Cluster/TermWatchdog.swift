import JobModel
import SchedulerCore

/// Looks at what a leader decides with what it can know, and no more.
struct TermWatchdog {
    private struct Owner {
        var incarnation: Incarnation
        var isGone = false
        var counter: UInt64 = 0
        var heardAt: Timestamp?
        var named: Set<AttemptID> = []
    }

    private let maestro: SimulatedMaestro
    private let cluster: Cluster
    private var owners: [GPUID: Owner] = [:]
    private var grantedAt = Agenda.beginning
    /// Attempts that this term has bound to a card.
    private var bound: [GPUID: [JobID: AttemptID]] = [:]
    /// Writes under way, with the sequence they were made for.
    private var underWay: [JobID: OperationID] = [:]

    init(maestro: SimulatedMaestro) {
        self.maestro = maestro
        cluster = maestro.cluster
    }

    mutating func hear(_ heartbeat: Heartbeat) {
        // A second copy is no sign of life.
        guard let owner = owners[heartbeat.gpu], owner.incarnation == heartbeat.incarnation,
            heartbeat.counter > owner.counter
        else { return }
        owners[heartbeat.gpu]?.counter = heartbeat.counter
        owners[heartbeat.gpu]?.heardAt = cluster.now
        owners[heartbeat.gpu]?.named = Set(heartbeat.running.map(\.attempt))
    }

    mutating func note(_ registration: WorkerRegistration) {
        if owners[registration.gpu]?.incarnation != registration.incarnation {
            owners[registration.gpu] = Owner(incarnation: registration.incarnation)
        }
        if registration.isReleased { owners[registration.gpu]?.isGone = true }
    }

    mutating func note(_ notice: WorkerNotice) {
        if owners[notice.gpu]?.incarnation == notice.incarnation { owners[notice.gpu]?.isGone = true }
    }

    /// Nobody is to be called lost before a full TTL from now.
    mutating func grantAll() { grantedAt = cluster.now }

    mutating func check(_ action: SchedulerAction) {
        switch action {
        case .write(let record, _):
            if record.state == .scheduled { checkRoom(record) }
            if let before = cluster.ledger[record.id], before.state == .running, record.state == .enqueued,
                before.attempt == record.attempt, record.lost > before.lost
            {
                checkLoss(of: record)
            }
        case .notice(let text):
            if text.hasPrefix("a defect") { cluster.ledger.violate("\(maestro.name): \(text)") }
        default: break
        }
    }

    private mutating func checkRoom(_ record: JobRecord) {
        guard let gpu = record.gpu, let attempt = record.attempt else { return }
        bound[gpu, default: [:]][record.id] = attempt
        bound[gpu] = bound[gpu]?.filter { job, attempt in
            guard let standing = cluster.ledger[job] else { return job == record.id }
            if job == record.id { return true }
            return standing.attempt == attempt && (standing.state == .scheduled || standing.state == .running)
        }
        let slots = cluster.workers.filter { $0.gpu == gpu }.map(\.slots).max() ?? 1
        // As many again may wait in its stream.
        guard let count = bound[gpu]?.count, count > slots * 2 else { return }
        cluster.ledger.violate("\(maestro.name) binds \(count) jobs to card \(gpu) of \(slots) slots", record.id)
    }

    private func checkLoss(of record: JobRecord) {
        guard let gpu = record.gpu, let owner = owners[gpu], owner.incarnation == record.owner, !owner.isGone,
            let attempt = record.attempt
        else { return }
        let since = max(owner.heardAt ?? grantedAt, grantedAt)
        let policy = cluster.scenario.policy(ofMaestro: maestro.number, cluster.mutant)
        let isSilent = cluster.now - since >= policy.heartbeatTTL * 0.98
        guard !isSilent, owner.heardAt == nil || owner.named.contains(attempt) else { return }
        let name = maestro.name
        cluster.ledger.violate("\(name) calls an attempt of \(record.id) lost whose worker it has heard", record.id)
    }
}
