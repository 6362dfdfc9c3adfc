import JobModel

/// The end of an attempt: report on disk, then the record, then the events, then the ack.
extension WorkerCore {
    mutating func reported(_ id: AttemptID, at now: Timestamp) {
        guard attempts[id]?.phase == .reporting else { return }
        commit(id, at: now)
    }

    /// Writes the revision that ends the attempt.
    mutating func commit(_ id: AttemptID, at now: Timestamp) {
        if let attempt = attempts[id], attempt.mustLook {
            attempts[id]?.phase = .lookingToCommit
            return actions.append(.readRecord(attempt.job, id))
        }
        attempts[id]?.phase = .committing
        guard let attempt = attempts[id], let report = attempt.report else { return }
        var record = attempt.revision.record
        do throws(IllegalTransition) {
            let step = transition(for: attempt, report.outcome)
            try record.apply(step, op: OperationID(from: &ids), at: now)
        } catch {
            actions.append(.notice("the end of attempt \(id) is not told: \(error)"))
            return finish(id)
        }
        attempts[id]?.writing = record
        actions.append(.write(id, record, expected: attempt.revision.sequence))
    }

    private mutating func transition(for attempt: Attempt, _ outcome: AttemptOutcome) -> JobTransition {
        switch attempt.ending {
        case .outcome: RetryPolicy.transition(for: outcome, of: attempt.revision.record, chance: ids.unit())
        case .reject: .reject(outcome)
        case .lose: .lose(reason: outcome.reason)
        }
    }

    mutating func writeEnded(_ id: AttemptID, _ op: OperationID, _ outcome: WriteOutcome, at now: Timestamp) {
        guard let attempt = attempts[id], attempt.writing?.op == op else { return }
        switch attempt.phase {
        case .claiming: claimEnded(id, outcome, at: now)
        case .committing: commitEnded(id, outcome, at: now)
        case .preparing, .ready, .lookingToClaim, .lookingToStart, .starting, .running, .terminating, .killing,
            .examining, .reporting, .lookingToCommit, .pausing, .telling, .recovering:
            break
        }
    }

    private mutating func commitEnded(_ id: AttemptID, _ outcome: WriteOutcome, at now: Timestamp) {
        guard let attempt = attempts[id], let record = attempt.writing else { return }
        attempts[id]?.writing = nil
        switch outcome {
        case .stored(let sequence):
            attempts[id]?.revision = RecordRevision(record: record, sequence: sequence)
            tell(id)
        case .conflict(let revision?) where isStillOurs(revision.record, attempt):
            // Only that a cancel was asked for has changed, and perhaps why.
            attempts[id]?.revision = revision
            if attempt.report?.outcome.code == .cancelled, !revision.record.reason.isEmpty {
                attempts[id]?.report?.outcome.reason = revision.record.reason
            }
            commit(id, at: now)
        case .conflict(let revision?) where storedEnd(of: id, in: revision.record) != nil:
            // An earlier write of its end, by this life or the one before, arrived after all.
            tell(id, state: storedEnd(of: id, in: revision.record))
        case .conflict:
            actions.append(
                .notice("attempt \(id) of job \(attempt.job) was closed by somebody else; its end is dropped")
            )
            finish(id)
        case .refused(let reason):
            actions.append(.notice("the end of job \(attempt.job) could not be stored, trying again: \(reason)"))
            attempts[id]?.phase = .pausing
            attempts[id]?.due = now + policy.pause
        }
    }

    /// The record stands as it stood, or only a cancel was asked for since: now the write can be made.
    mutating func lookedToCommit(_ id: AttemptID, _ revision: RecordRevision?, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        if let state = revision.flatMap({ storedEnd(of: id, in: $0.record) }) { return tell(id, state: state) }
        guard let revision, isStillOurs(revision.record, attempt) else {
            actions.append(
                .notice("attempt \(id) of job \(attempt.job) was closed by somebody else; its end is dropped")
            )
            return finish(id)
        }
        attempts[id]?.mustLook = false
        attempts[id]?.revision = revision
        commit(id, at: now)
    }

    private func isStillOurs(_ record: JobRecord, _ attempt: Attempt) -> Bool {
        record.attempt == attempt.id && record.state == attempt.revision.record.state
            && record.owner == attempt.revision.record.owner
    }

    /// The record has its end: now everybody else is told.
    private mutating func tell(_ id: AttemptID, state: JobState? = nil) {
        guard let attempt = attempts[id], let report = attempt.report else { return }
        attempts[id]?.phase = .telling
        actions.append(.tell(id, Self.events(of: report, state: state ?? attempt.revision.record.state)))
    }

    /// The state that this attempt left its job in by the end that it reports, where the record says that this end was
    /// stored, whether or not the record has moved on since; nil if it does not: then somebody else has called the attempt
    /// lost, and told it.
    private func storedEnd(of id: AttemptID, in record: JobRecord) -> JobState? {
        guard let report = attempts[id]?.report else { return nil }
        if record.attempt == id, wasCommitted(report, in: record) { return record.state }
        guard let code = report.outcome.code else { return nil }
        if record.failedAttempts.contains(id) { return .retry }
        return (code.isGivenBack || code == .lost) && record.lostAttempts.contains(id) ? .enqueued : nil
    }

    static func events(of report: AttemptReport, state: JobState) -> [OutgoingEvent] {
        var events: [OutgoingEvent] = []
        if report.outcome.succeeded {
            events.append(.done(report.doneEvent(), messageID: "done:\(report.attempt)"))
        } else {
            events.append(.error(report.errorEvent(state: state), messageID: "err:\(report.attempt)"))
        }
        if state.isTerminal { events.append(.result(report.job, report.resultEvent(state: state))) }
        return events
    }

    mutating func told(_ id: AttemptID) {
        guard attempts[id]?.phase == .telling else { return }
        finish(id)
    }

    /// Nothing is left to be done for the attempt.
    mutating func finish(_ id: AttemptID) {
        guard let attempt = attempts[id] else { return }
        actions.append(.close(id, attempt.job))
        drop(id)
    }

    /// The attempt ran under an earlier life of this worker: the job goes back to the pool without blame.
    mutating func lose(_ id: AttemptID, code: FailureCode, reason: String, at now: Timestamp) {
        attempts[id]?.ending = .lose
        setReport(of: id, AttemptOutcome(code: code, reason: reason), ran: false, at: now)
        commit(id, at: now)
    }

    // MARK: earlier lives

    /// Attempts of earlier lives are closed before anything else is done.
    mutating func recover(_ attempt: RecoveredAttempt) {
        let placeholder = JobRecord.unread(attempt.job, op: OperationID(from: &ids))
        add(attempt.attempt, of: RecordRevision(record: placeholder, sequence: 0), token: nil, phase: .recovering)
        attempts[attempt.attempt]?.report = attempt.report
        actions.append(.readRecord(attempt.job, attempt.attempt))
    }

    mutating func recovered(_ id: AttemptID, _ revision: RecordRevision?, at now: Timestamp) {
        guard let revision else { return finish(id) }
        let report = attempts[id]?.report
        if let state = storedEnd(of: id, in: revision.record) {
            // Perhaps not told: telling it again is told apart by its message id.
            return tell(id, state: state)
        }
        guard revision.record.attempt == id else { return finish(id) }
        attempts[id]?.revision = revision
        attempts[id]?.mustLook = false
        switch (revision.record.state, report) {
        case (.running, let report?):
            if let code = report.outcome.code, code.isGivenBack || code == .lost { attempts[id]?.ending = .lose }
            commit(id, at: now)
        case (.running, nil):
            // On the disk first: another life may have to tell it.
            attempts[id]?.ending = .lose
            let outcome = AttemptOutcome(code: .lost, reason: "its worker was restarted while it ran")
            setReport(of: id, outcome, ran: false, at: now)
            attempts[id]?.phase = .reporting
            if let report = attempts[id]?.report { actions.append(.report(report)) }
        default:
            finish(id)
        }
    }

    /// Whether the record's last step was the end of this attempt as reported, and not its loss.
    private func wasCommitted(_ report: AttemptReport, in record: JobRecord) -> Bool {
        guard let outcome = record.outcome else { return false }
        switch record.state {
        case .done, .failed, .cancelled, .retry, .rejected:
            return outcome.code == report.outcome.code && outcome.returnCode == report.outcome.returnCode
        case .enqueued, .waitingGPU, .scheduled, .running: return false
        }
    }
}

extension JobRecord {
    /// Stands for a record that is yet to be read.
    fileprivate static func unread(_ job: JobID, op: OperationID) -> JobRecord {
        let zero = Timestamp(nanoseconds: 0)
        return JobRecord(
            admitting: job,
            submission: [],
            digest: "",
            order: 0,
            limits: .none,
            op: op,
            at: zero,
            submitted: 0
        )
    }
}
