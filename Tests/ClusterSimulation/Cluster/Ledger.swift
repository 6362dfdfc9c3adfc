import JobModel
import WireJSON

/// What everybody was promised, and whether it holds: looks at every change of a stream and at every process.
final class Ledger {
    /// What is known of a job.
    struct Case {
        var record: JobRecord?
        /// A client was told that it is accepted.
        var isPromised = false
        /// A client was told that it is cancelled.
        var isToldCancelled = false
        /// A power cut took it before it was on the disk.
        var isExcused = false
        /// It had ended, and its record was removed for its age.
        var isRemoved = false
    }

    private unowned let cluster: Cluster
    private(set) var violations: [String] = []
    private var cases: [JobID: Case] = [:]
    /// What stands in the work queue, by sequence.
    private var queued: [UInt64: (job: JobID?, digest: String)] = [:]
    private var results: [JobID: JobState] = [:]
    private var told: Set<String> = []
    /// Submissions whose refusal was told, by their job and content.
    private var refused: Set<String> = []
    private var claimed: Set<AttemptID> = []
    private var started: Set<AttemptID> = []
    private var superseded: [AttemptID: Timestamp] = [:]
    /// When the streams were last put back, if they ever were: what was seen before may not have been.
    private var rolledBackAt: Timestamp?
    private var wasRolledBack: Bool { rolledBackAt != nil }

    init(_ cluster: Cluster) { self.cluster = cluster }

    func violate(_ what: String, _ job: JobID? = nil) {
        violations.append(what)
        cluster.tell("VIOLATION: \(what)", job)
    }

    subscript(job: JobID) -> JobRecord? { cases[job]?.record }

    /// Stands for SHA-256: as good in a simulation, and quick.
    static func digest(_ bytes: [UInt8]) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return "sha256:\(hash)"
    }

    // MARK: streams

    func noteStored(_ message: Stored, after before: Stored?, in stream: String, by part: Part) {
        switch message.body {
        case .record(let record): noteRecord(record, after: before?.body.record, at: message.sequence, by: part)
        case .submission(let bytes): queued[message.sequence] = Self.submission(bytes, message)
        case .registration(let registration): noteRegistration(registration, after: before)
        case .event(let bytes): noteEvent(bytes, message)
        case .run, .lease, .control, .place: break
        }
    }

    func noteRemoved(_ message: Stored, from stream: String, by part: Part) {
        switch message.body {
        case .record(let record):
            if !record.state.isTerminal { violate("\(record.id) was removed before it had ended", record.id) }
            cluster.cover("record removed")
            cluster.tell("\(part.name) removes the record of \(record.id)", record.id)
            cases[record.id]?.record = nil
            cases[record.id]?.isRemoved = true
            cases[record.id]?.isToldCancelled = false
        case .submission: noteAdmitted(message, by: part)
        case .run(let run):
            guard let record = self[run.record.id], record.attempt == run.attempt, !wasRolledBack,
                !isDispatched(run.attempt), (part as? SimulatedWorker).map({ $0.incarnation == record.owner }) ?? true
            else { return }
            if record.state == .scheduled || record.state == .running {
                let job = run.record.id
                violate("\(part.name) lets go of the run message of \(job), which is \(record.state.rawValue)", job)
            }
        case .lease, .registration, .control, .place, .event: break
        }
    }

    /// Another message brings the attempt.
    private func isDispatched(_ attempt: AttemptID?) -> Bool {
        cluster.server.model[cluster.names.runStream]?.messages.contains {
            if case .run(let run) = $0.body { run.attempt == attempt } else { false }
        } ?? false
    }

    private static func submission(_ bytes: [UInt8], _ message: Stored) -> (job: JobID?, digest: String) {
        let derived = JobID.derived(timestamp: message.timestamp, sequence: message.sequence)
        do throws(TaskRefusal) {
            return (try JobTask(submission: bytes).id ?? derived, digest(bytes))
        } catch {
            return (error.id ?? (error.isAnonymous ? derived : nil), digest(bytes))
        }
    }

    private func noteAdmitted(_ message: Stored, by part: Part) {
        guard let (job, digest) = queued.removeValue(forKey: message.sequence), let job else { return }
        let errorIDs = ["err:sub:\(message.timestamp)-\(message.sequence)", "err:\(job)"]
        if errorIDs.contains(where: told.contains) { refused.insert("\(job) \(digest)") }
        guard let record = self[job] else {
            // It may have been refused before the record of the one before it was stored.
            if cases[job]?.isRemoved != true, !refused.contains("\(job) \(digest)") {
                violate("the submission of \(job) is gone and there is no record", job)
            }
            return
        }
        guard record.digest != digest, !(record.state == .cancelled && record.submission.isEmpty) else { return }
        // Another content was refused, and that has to be told before it is forgotten; once for all its copies.
        if !wasRolledBack, !refused.contains("\(job) \(digest)") {
            violate("a submission of \(job) with another content was dropped without a word", job)
        }
    }

    private func noteEvent(_ bytes: [UInt8], _ message: Stored) {
        if let id = message.messageID { told.insert(id) }
        guard message.subject.hasPrefix(cluster.names.resultPrefix), let job = cluster.names.job(from: message.subject)
        else { return }
        if results[job] != nil { violate("\(job) has two results", job) }
        let state = (try? JSON(parsing: bytes))?["state"]?.stringValue.flatMap { JobState(rawValue: $0) }
        results[job] = state
        let standing = self[job]
        if cases[job]?.isRemoved != true, standing?.state.isTerminal != true, !wasRolledBack {
            violate("\(job) has a result and has not ended", job)
        } else if let standing, let state, standing.state != state, !wasRolledBack {
            violate("the result of \(job) says \(state.rawValue), its record \(standing.state.rawValue)", job)
        }
    }

    // MARK: records

    private func noteRecord(_ record: JobRecord, after before: JobRecord?, at sequence: UInt64, by part: Part) {
        let job = record.id
        cluster.tell("\(part.name) stores \(job): \(Self.words(record, before)) at \(sequence)", job)
        cluster.cover("\(before?.state.rawValue ?? "-") > \(record.state.rawValue)")
        checkStep(record, before)
        if let worker = part as? SimulatedWorker { checkOwner(record, before, worker) }
        if part is SimulatedMaestro { checkClosed(record, before, by: part) }
        if cases[job]?.isToldCancelled == true, record.state != .cancelled {
            violate("\(job) was called cancelled to somebody and is \(record.state.rawValue)", job)
        }
        if record.state == .running, let attempt = record.attempt { claimed.insert(attempt) }
        if before?.state == .running, record.state != .running, let attempt = record.attempt {
            superseded[attempt] = cluster.now
        }
        cluster.noteState(record.state, of: job)
        cases[job, default: Case()].record = record
        cases[job]?.isExcused = false
        cases[job]?.isRemoved = false
    }

    private static func words(_ record: JobRecord, _ before: JobRecord?) -> String {
        var words = "\(before?.state.rawValue ?? "-") > \(record.state.rawValue)"
        if let gpu = record.gpu, let attempt = record.attempt, record.state != .enqueued {
            words += " on \(gpu) (attempt \(attempt.text.prefix(4)), life \(record.owner?.text.prefix(4) ?? "-"))"
        }
        return words + (record.reason.isEmpty ? "" : ", \(record.reason)")
    }

    private func checkStep(_ new: JobRecord, _ old: JobRecord?) {
        let job = new.id
        guard let old else {
            if !JobState.initial.contains(new.state) { violate("\(job) begins as \(new.state.rawValue)", job) }
            return
        }
        if old.state.isTerminal { violate("\(job) changed after it had ended as \(old.state.rawValue)", job) }
        if !old.state.successors.contains(new.state) {
            violate("\(job) went from \(old.state.rawValue) to \(new.state.rawValue)", job)
        }
        if old.op == new.op { violate("\(job) was written twice under one op", job) }
        if new.tries < old.tries || new.lost < old.lost { violate("\(job) counted backwards", job) }
        if new.tries > old.tries + 1 || new.lost > old.lost + 1 { violate("\(job) counted twice", job) }
        if old.state == .running, new.attempt != old.attempt { violate("\(job) changed its attempt while it ran", job) }
        if new.state == .done { checkDone(new) }
    }

    private func checkDone(_ record: JobRecord) {
        let process = cluster.workers.lazy.flatMap(\.processes).first { $0.attempt == record.attempt }
        guard let process else { return violate("\(record.id) is done and no process of it was seen", record.id) }
        if process.exit != .code(0) { violate("\(record.id) is done and its process did not succeed", record.id) }
    }

    /// What a worker writes concerns the attempt that stands there, and nothing of it runs on when that ends it.
    private func checkOwner(_ new: JobRecord, _ old: JobRecord?, _ worker: SimulatedWorker) {
        guard let old else { return violate("\(worker.name) creates a record of \(new.id)", new.id) }
        if new.attempt != old.attempt || new.owner != old.owner {
            violate("\(worker.name), which is fenced off, writes \(new.id)", new.id)
        }
        if new.state == .running { return }
        if worker.liveProcesses.contains(where: { $0.attempt == new.attempt }) {
            violate("\(worker.name) ends \(new.id) while its process lives", new.id)
        }
    }

    // MARK: clients

    func notePromised(_ job: JobID) {
        cases[job, default: Case()].isPromised = true
        guard !isPresent(job), cases[job]?.isRemoved != true, cases[job]?.isExcused != true else { return }
        violate("a client was told that \(job) is accepted, and it is nowhere", job)
    }

    /// A client may keep its own promise only for what the streams may hold.
    private func isPresent(_ job: JobID) -> Bool {
        self[job] != nil || queued.values.contains { $0.job == job }
    }

    func noteToldCancelled(_ job: JobID) {
        guard !wasRolledBack else { return }
        cases[job, default: Case()].isToldCancelled = true
        if let record = self[job], record.state != .cancelled {
            violate("\(job) was called cancelled to somebody and is \(record.state.rawValue)", job)
        }
    }

    // MARK: processes

    func noteStart(of process: SimulatedWorker.Process, by worker: SimulatedWorker) {
        let job = process.job
        cluster.tell("\(worker.name) starts attempt \(process.attempt.text.prefix(4)) of \(job)", job)
        if !started.insert(process.attempt).inserted { violate("an attempt of \(job) was started twice", job) }
        if !claimed.contains(process.attempt) { violate("an attempt of \(job) was started unclaimed", job) }
        checkGivenAway(process, worker)
        if process.isFenced { checkAlone(process, worker) }
        let live = worker.liveProcesses.count
        if live > worker.slots { violate("\(worker.name) runs \(live) processes in \(worker.slots) slots", job) }
    }

    /// Nothing is started that was given away when the claim that allowed it was sent, or its record was last read.
    private func checkGivenAway(_ process: SimulatedWorker.Process, _ worker: SimulatedWorker) {
        // What the answer may be old, and the clocks may differ.
        let bound = Duration.seconds(5.1)
        guard let since = superseded[process.attempt], process.decidedAt - since > bound else { return }
        violate("\(worker.name) starts an attempt of \(process.job) that was given away long before", process.job)
    }

    /// A fenced job is in one place, but for a host that stood still, and a claim that a power cut has taken back.
    private func checkAlone(_ process: SimulatedWorker.Process, _ worker: SimulatedWorker) {
        for other in cluster.workers {
            for earlier in other.liveProcesses where earlier.job == process.job && earlier !== process {
                if worker.wasHostFrozen(since: process.decidedAt) || isExcused(earlier, on: other) { continue }
                let places = "\(other.name) and \(worker.name)"
                violate("\(process.job) is fenced and has two processes, on \(places)", process.job)
            }
        }
    }

    /// A leader closes a fenced attempt only when nothing of it can run any more.
    private func checkClosed(_ new: JobRecord, _ old: JobRecord?, by part: Part) {
        guard let old, old.state == .running, new.state != .running, old.limits.fence != nil else { return }
        cluster.cover("a leader closes a fenced attempt")
        for worker in cluster.workers {
            for process in worker.liveProcesses where process.attempt == old.attempt {
                if isExcused(process, on: worker) { continue }
                violate("\(part.name) closes a fenced attempt of \(new.id), which runs on \(worker.name)", new.id)
            }
        }
    }

    private func isExcused(_ process: SimulatedWorker.Process, on worker: SimulatedWorker) -> Bool {
        if worker.wasHostFrozen(since: process.decidedAt) {
            cluster.cover("a fenced attempt outlives its fence on a frozen host")
            return true
        }
        guard let rolledBackAt, rolledBackAt >= process.startedAt else { return false }
        cluster.cover("a fenced attempt whose claim a power cut may have taken")
        return true
    }

    func noteReconnected(_ worker: SimulatedWorker) { worker.cluster.cover("a worker reconnects") }

    /// A copy that was given away does not go on for long once its worker can hear of that.
    func checkSuperseded() {
        // The interval at which a worker looks, a read, and the grace before the kill.
        let bound = Duration.seconds(25)
        for worker in cluster.workers {
            guard let reachable = worker.reachableSince else { continue }
            for process in worker.liveProcesses where process.life == worker.life {
                guard let since = superseded[process.attempt] else { continue }
                guard cluster.now - max(since, reachable) > bound else { continue }
                violate("\(worker.name) still runs an attempt of \(process.job) that was given away", process.job)
                superseded[process.attempt] = nil
            }
        }
    }

    // MARK: leaders

    func noteLead(of maestro: SimulatedMaestro) {
        cluster.cover("leader begins")
        if cluster.maestros.contains(where: { $0 !== maestro && $0.office != nil }) { cluster.cover("two leaders") }
    }

    /// Something leaves a leader that is not a compare-and-set.
    func noteEffect(of maestro: SimulatedMaestro) {
        guard let other = cluster.maestros.first(where: { $0 !== maestro && $0.isTrusted }), !wasRolledBack
        else { return }
        violate("\(maestro.name) acts as the leader while \(other.name) may")
    }

    func notePlace(_ place: UInt64, by maestro: SimulatedMaestro) {
        guard !wasRolledBack else { return }
        let untold = cluster.server.model[cluster.names.jobsStream]?.messages.first {
            $0.sequence <= place && $0.body.record.map { $0.state.isTerminal && results[$0.id] == nil } ?? false
        }
        guard let job = untold?.body.record?.id else { return }
        violate("\(maestro.name) stores that all results up to \(place) are told, and that of \(job) is not", job)
    }

    private func noteRegistration(_ registration: WorkerRegistration, after before: Stored?) {
        guard case .registration(let old)? = before?.body, !old.isReleased, old.host != registration.host else {
            return
        }
        cluster.cover("a card is taken over")
        let owner = cluster.workers.first { $0.name == old.host && $0.incarnation == old.incarnation }
        if let owner, owner.isServing, !owner.isDisturbed(within: .seconds(25)) {
            violate("\(registration.host) takes card \(old.gpu) over from \(old.host), which lives")
        }
    }

    // MARK: crashes

    /// The power was cut: what was not on the disk may be gone.
    func noteRolledBack() {
        rolledBackAt = cluster.now
        cluster.cover("streams put back")
        let server = cluster.server.model
        queued = [:]
        for message in server[cluster.names.workQueueStream]?.messages ?? [] {
            if case .submission(let bytes) = message.body { queued[message.sequence] = Self.submission(bytes, message) }
        }
        results = [:]
        for message in server[cluster.names.eventsStream]?.messages ?? []
        where message.subject.hasPrefix(cluster.names.resultPrefix) {
            if let job = cluster.names.job(from: message.subject) { results[job] = .done }
        }
        for job in cases.keys.sorted() {
            cases[job]?.record = server[cluster.names.jobsStream]?.last(of: cluster.names.state(job))?.body.record
            cases[job]?.isToldCancelled = false
            // It was given away, and was not.
            if let record = self[job], [.scheduled, .running].contains(record.state), let attempt = record.attempt {
                superseded[attempt] = nil
            }
            guard !isPresent(job), cases[job]?.isRemoved != true else { continue }
            cases[job]?.isExcused = true
            cluster.tell("\(job) is lost with what was not on the disk", job)
            cluster.cover("a job lost with the power")
        }
    }

    // MARK: the end

    /// Jobs that have not ended, or have not told their results.
    var unfinished: [JobID] {
        cases.filter { job, one in
            if let record = one.record { return !record.state.isTerminal || results[job] == nil }
            return !one.isRemoved && !one.isExcused && one.isPromised
        }
        .keys.sorted()
    }

    /// Whether a client that keeps a journal would submit a job again: the cluster does not know it.
    func isLost(_ job: JobID) -> Bool { cases[job]?.isExcused ?? false }

    func isOver(_ job: JobID) -> Bool {
        guard let one = cases[job] else { return false }
        return one.isRemoved || one.record?.state.isTerminal == true
    }

    /// Whether the message of a queue still matters to a job.
    func isOpen(_ message: Stored) -> Bool {
        switch message.body {
        case .submission: queued[message.sequence]?.job.map { !isOver($0) } ?? true
        case .run(let run): self[run.record.id].map { $0.attempt == run.attempt && !$0.state.isTerminal } ?? false
        case .record, .lease, .registration, .control, .place, .event: false
        }
    }

    func checkEnd() {
        for job in unfinished {
            let state = self[job]?.state.rawValue ?? "nowhere"
            let result = results[job] == nil ? ", without a result" : ""
            violate("\(job) is \(state)\(result) long after the faults have ended", job)
        }
        // A report that a full disk did not take ends with the life of its worker.
        let hadFullDisk = cluster.scenario.faults.contains { $0.fault == .fillWorkerDisk }
        guard !wasRolledBack, !hadFullDisk else { return }
        for (job, one) in cases.sorted(by: { $0.key < $1.key }) {
            guard let record = one.record, record.state == .done, let attempt = record.attempt,
                !told.contains("done:\(attempt)")
            else { continue }
            violate("\(job) is done, and there is no such event", job)
        }
    }
}
