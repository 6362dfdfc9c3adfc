import JobModel
import WireJSON

/// A record that is being created.
struct Admission: Sendable {
    var record: JobRecord
    /// The submissions to acknowledge when it is settled: the first one and its repetitions.
    var tokens: [UInt64]
    /// The message id of an error about the first one, the same at each delivery; nil when a cancel makes the record.
    var errorID: String?
    /// The task of a job that counts for its submitter until it is admitted.
    var task: JobTask?
    /// Why the record is a rejected one.
    var refusal: TaskRefusal?
    var cancel: Job.CancelIntent?
}

extension JobRecord {
    /// Somebody cancelled the id before its submission came: what is submitted under it does not run.
    fileprivate var isCancelOfTheUnknown: Bool { state == .cancelled && submission.isEmpty }
}

extension Submission {
    /// The message id of an error about this submission.
    fileprivate var errorID: String { "err:sub:\(timestamp)-\(sequence)" }
}

/// From a submission to a record, or to a refusal that says why.
extension SchedulerCore {
    mutating func admit(_ submission: Submission, at now: Timestamp) {
        demand = max(0, demand - 1)
        unsettled += 1
        let task: JobTask
        do {
            task = try JobTask(submission: submission.bytes)
        } catch {
            return refuse(submission, error, at: now)
        }
        let id = task.id ?? .derived(timestamp: submission.timestamp, sequence: submission.sequence)
        let submittedAge = task.submittedAt.map { Duration.inSeconds(Double(submission.timestamp) / 1e9 - $0) } ?? .zero
        guard max(submission.age, submittedAge) <= policy.idHorizon else {
            let horizon = policy.idHorizon.inSeconds
            let reason =
                "the submission is older than \(horizon) s (ID_HORIZON_SEC): whether its id was used is no longer known; "
                + "submit it again under a new id if it should run"
            return refuse(submission, TaskRefusal(reason, code: .tooOld, id: id), at: now)
        }
        if let known = jobs[id] {
            return settleRepetition(of: known.record, by: submission, at: now)
        }
        if joinAdmission(id, submission, at: now) { return }
        if let reason = objection(toSubmitterOf: task) {
            return refuse(submission, TaskRefusal(reason, code: .tooManyJobs, id: id), at: now)
        }
        var limits = policy.limits
        limits.timeout = task.timeout ?? limits.timeout
        limits.maxRetries = task.maxRetries ?? limits.maxRetries
        limits.maxWait = task.maxWait ?? limits.maxWait
        limits.fence = task.partition == .fence ? Fence(policy.heartbeatTTL) : nil
        let record = JobRecord(
            admitting: id,
            submission: submission.bytes,
            digest: submission.digest,
            order: submission.sequence,
            limits: limits,
            op: OperationID(from: &ids),
            at: now,
            submitted: Double(submission.timestamp) / 1e9
        )
        countJob(of: task, by: 1)
        create(Admission(record: record, tokens: [submission.token], errorID: submission.errorID, task: task))
    }

    /// The record is stored, or another one stands in its place.
    private mutating func closeAdmission(_ id: JobID) {
        if let task = admissions.removeValue(forKey: id)?.task { countJob(of: task, by: -1) }
    }

    private mutating func create(_ admission: Admission) {
        admissions[admission.record.id] = admission
        actions.append(.write(admission.record, expected: 0))
    }

    /// A submission whose record is just being created waits for that.
    private mutating func joinAdmission(_ id: JobID, _ submission: Submission, at now: Timestamp) -> Bool {
        guard let admission = admissions[id] else { return false }
        if admission.record.digest == submission.digest || admission.record.isCancelOfTheUnknown {
            admissions[id]?.tokens.append(submission.token)
        } else {
            refuseConflict(submission, with: admission.record, at: now)
        }
        return true
    }

    /// The id is taken: the same content is a repetition, other content is refused.
    private mutating func settleRepetition(of record: JobRecord, by submission: Submission, at now: Timestamp) {
        guard record.digest == submission.digest else { return refuseConflict(submission, with: record, at: now) }
        settle([submission.token])
        announce("duplicate", [("task_id", .string(record.id.text)), ("state", .string(record.state.rawValue))])
    }

    private mutating func refuseConflict(_ submission: Submission, with record: JobRecord, at now: Timestamp) {
        let reason =
            "the id \(record.id) was used before with other content (that job is \(record.state.rawValue)); "
            + "choose another id"
        let event = ErrorEvent(
            job: record.id,
            code: .idConflict,
            error: reason,
            state: nil,
            time: now.seconds
        )
        tellRefusal(event, messageID: submission.errorID, settling: [submission.token])
    }

    private mutating func refuse(_ submission: Submission, _ refusal: TaskRefusal, at now: Timestamp) {
        let derived = JobID.derived(timestamp: submission.timestamp, sequence: submission.sequence)
        guard let id = refusal.id ?? (refusal.isAnonymous ? derived : nil) else {
            let event = ErrorEvent(job: nil, code: refusal.code, error: refusal.reason, state: nil, time: now.seconds)
            return tellRefusal(event, messageID: submission.errorID, settling: [submission.token])
        }
        if let known = jobs[id] { return settleRefusal(of: submission, refusal, over: known.record, at: now) }
        if let admission = admissions[id] {
            // A repetition is settled with the first one, when the record is stored.
            if admission.record.digest == submission.digest || admission.record.isCancelOfTheUnknown {
                admissions[id]?.tokens.append(submission.token)
                return
            }
            return settleRefusal(of: submission, refusal, over: admission.record, at: now)
        }
        // What was refused is not kept: it may be anything, of any size. Its digest tells a repetition.
        let record = JobRecord(
            refusing: id,
            state: .rejected,
            outcome: AttemptOutcome(code: refusal.code, reason: refusal.reason),
            submission: [],
            digest: submission.digest,
            order: submission.sequence,
            op: OperationID(from: &ids),
            at: now,
            submitted: Double(submission.timestamp) / 1e9
        )
        create(
            Admission(record: record, tokens: [submission.token], errorID: submission.errorID, refusal: refusal)
        )
    }

    /// A refused submission whose id has a record already: that record stays as it is.
    private mutating func settleRefusal(
        of submission: Submission,
        _ refusal: TaskRefusal,
        over record: JobRecord,
        at now: Timestamp
    ) {
        if record.digest == submission.digest { return settle([submission.token]) }
        let event = ErrorEvent(job: record.id, code: refusal.code, error: refusal.reason, state: nil, time: now.seconds)
        tellRefusal(event, messageID: submission.errorID, settling: [submission.token])
    }

    private mutating func tellRefusal(
        _ event: ErrorEvent,
        messageID: String,
        settling tokens: [UInt64]
    ) {
        unsettled -= tokens.count
        actions.append(.publishError(event, messageID: messageID, settle: tokens))
    }

    mutating func settle(_ tokens: [UInt64]) {
        guard !tokens.isEmpty else { return }
        unsettled -= tokens.count
        actions.append(.settle(tokens))
    }

    // MARK: the outcome of a creation

    mutating func endAdmission(_ id: JobID, _ result: WriteResult, at now: Timestamp) {
        guard let admission = admissions[id] else { return }
        switch result {
        case .stored(let sequence):
            closeAdmission(id)
            let revision = RecordRevision(record: admission.record, sequence: sequence, storedAt: now)
            finishAdmission(admission, revision, at: now)
        case .conflict(let current?):
            closeAdmission(id)
            yield(admission, to: current, at: now)
        case .conflict(nil):
            // Somebody removed the record that stood there: the id is free again.
            deadlines.insert(.admission(id), at: now + .seconds(1))
        case .refused(let reason):
            deadlines.insert(.admission(id), at: now + .seconds(1))
            actions.append(.notice("job \(id) cannot be admitted yet and will be tried again: \(reason)"))
        }
    }

    mutating func retryAdmission(_ id: JobID) {
        guard let admission = admissions[id] else { return }
        actions.append(.write(admission.record, expected: 0))
    }

    private mutating func finishAdmission(_ admission: Admission, _ revision: RecordRevision, at now: Timestamp) {
        let record = admission.record
        if let refusal = admission.refusal {
            let event = ErrorEvent(
                job: record.id,
                code: refusal.code,
                error: refusal.reason,
                state: record.state,
                time: now.seconds
            )
            unsettled -= admission.tokens.count
            actions.append(.publishError(event, messageID: "err:\(record.id)", settle: admission.tokens))
        } else {
            settle(admission.tokens)
        }
        guard record.state.isTerminal else {
            insert(revision, task: admission.task, at: now)
            jobs[record.id]?.cancel = admission.cancel
            return advance(record.id, at: now)
        }
        reply(to: admission.cancel?.requests ?? [], job: record.id, state: record.state)
        if revision.sequence > results.observed { results.endedAhead.insert(revision.sequence) }
        expectResult(revision, isOurs: true, at: now)
    }

    /// The id had a record already: ours gives way to it.
    private mutating func yield(_ admission: Admission, to current: RecordRevision, at now: Timestamp) {
        let record = current.record
        if !record.state.isTerminal { learn(current, at: now) }
        if let cancel = admission.cancel {
            for request in cancel.requests { self.cancel(record.id, reason: cancel.reason, for: request, at: now) }
        }
        guard let errorID = admission.errorID, record.digest != admission.record.digest, !record.isCancelOfTheUnknown
        else {
            settle(admission.tokens)
            guard !admission.tokens.isEmpty else { return }
            announce("duplicate", [("task_id", .string(record.id.text)), ("state", .string(record.state.rawValue))])
            return
        }
        let reason =
            admission.refusal?.reason
            ?? "the id \(record.id) was used before with other content (that job is \(record.state.rawValue)); choose another id"
        let event = ErrorEvent(
            job: record.id,
            code: admission.refusal?.code ?? .idConflict,
            error: reason,
            state: nil,
            time: now.seconds
        )
        tellRefusal(event, messageID: errorID, settling: admission.tokens)
    }

    /// A record for an id that nobody submitted yet, so that a submission on its way finds it cancelled.
    mutating func createCancelled(_ id: JobID, _ cancel: Job.CancelIntent, at now: Timestamp) {
        let record = JobRecord(
            refusing: id,
            state: .cancelled,
            outcome: AttemptOutcome(code: .cancelled, reason: cancel.reason),
            submission: [],
            digest: "",
            order: 0,
            op: OperationID(from: &ids),
            at: now,
            submitted: now.seconds
        )
        create(Admission(record: record, tokens: [], errorID: nil, cancel: cancel))
    }

    // MARK: demand

    /// Asks for more submissions as long as there is room for them.
    mutating func pullMore() {
        let room = policy.maxQueue - waitingCount - admissions.count
        tellFullness(room: room)
        guard !isStoreFull else { return }
        let want = min(policy.admissionWindow - demand - unsettled, room - demand)
        guard want > 0, want >= policy.admissionWindow / 4 || demand == 0 else { return }
        demand += want
        actions.append(.pull(want))
    }

    /// Full, and open again only when there is some room: not at every job that ends.
    private mutating func tellFullness(room: Int) {
        if !isFull, let reason = fullness(room: room) {
            isFull = true
            announce("queue_full", [("max_queue", .int(policy.maxQueue)), ("reason", .string(reason))])
        } else if isFull, !isStoreFull, room > policy.maxQueue / 20 {
            isFull = false
            announce("queue_open", [("max_queue", .int(policy.maxQueue))])
        }
    }

    private func fullness(room: Int) -> String? {
        if room <= 0 { return "\(policy.maxQueue) jobs wait, as many as MAX_QUEUE allows" }
        guard isStoreFull else { return nil }
        return "the stream of the records is over \(Int(policy.storeHighWater * 100)) % full; remove ended jobs sooner "
            + "(KEEP_DONE_HOURS, KEEP_DONE_MAX) or give it more space"
    }

    mutating func noteStore(fill: Double) {
        isStoreFull = fill >= policy.storeHighWater || (isStoreFull && fill > policy.storeHighWater - 0.05)
    }
}
