import JobModel

/// While the process runs, and what its end means.
extension WorkerCore {
    mutating func started(_ id: AttemptID, _ directory: String, at now: Timestamp) {
        guard let attempt = attempts[id], attempt.phase == .starting else { return }
        attempts[id]?.phase = .running
        attempts[id]?.startedAt = now
        attempts[id]?.directory = directory
        let due = now + timeout(of: attempt)
        attempts[id]?.due = due
        if let cause = attempt.stop {
            end(id, because: cause, at: now)
        } else if let until = drainDeadline, until <= now {
            end(id, because: .drained, at: now)
        }
    }

    mutating func startFailed(_ id: AttemptID, _ code: FailureCode, _ reason: String, at now: Timestamp) {
        guard attempts[id]?.phase == .starting else { return }
        let outcome = AttemptOutcome(code: code, reason: reason)
        if code.isGivenBack { attempts[id]?.ending = .lose }
        setReport(of: id, outcome, ran: false, at: now)
        startReporting(id)
    }

    private func timeout(of attempt: Attempt) -> Duration {
        let limit = attempt.revision.record.limits.timeout
        return limit > .zero ? limit : policy.defaultTimeout
    }

    /// Makes the process end: TERM, and KILL after the grace.
    mutating func end(_ id: AttemptID, because cause: Attempt.StopCause, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        // The first cause counts: a job that outran its time was not cancelled, and one that has failed neither.
        if attempt.stop == nil, attempt.phase != .examining { attempts[id]?.stop = cause }
        guard attempt.phase == .running else { return }
        attempts[id]?.phase = .terminating
        attempts[id]?.due = now + policy.grace
        actions.append(.terminate(id))
    }

    mutating func timeIsUp(_ id: AttemptID, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        attempts[id]?.due = nil
        switch attempt.phase {
        case .running: end(id, because: .timeout, at: now)
        case .terminating:
            attempts[id]?.phase = .killing
            actions.append(.kill(id))
        case .pausing: commit(id, at: now)
        case .preparing, .ready, .lookingToClaim, .claiming, .lookingToStart, .starting, .killing, .examining,
            .reporting, .lookingToCommit, .committing, .telling, .recovering:
            break
        }
    }

    mutating func ended(_ id: AttemptID, _ end: ProcessEnd, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        switch attempt.phase {
        case .starting, .running, .terminating, .killing: break
        case .preparing, .ready, .lookingToClaim, .claiming, .lookingToStart, .examining, .reporting, .lookingToCommit,
            .committing, .pausing, .telling, .recovering:
            return
        }
        attempts[id]?.due = nil
        for remark in end.remarks { actions.append(.notice("job \(attempt.job): \(remark)")) }
        if end.exit == .unkillable {
            blockedSlots += 1
            actions.append(
                .notice(
                    "a process of job \(attempt.job) cannot be killed: its slot stays closed until this worker is "
                        + "started again; a process that hangs in a driver may need a reboot"
                )
            )
        }
        attempts[id]?.ranFor = attempt.startedAt.map { now - $0 }
        // Its watchdog was faster, or this process was stopped itself.
        if attempt.stop == nil, !isFenceOpen(for: attempt, at: now) { attempts[id]?.stop = Attempt.StopCause.fenced }
        if attempts[id]?.stop == nil, end.exit.isFailureOfItsOwn {
            attempts[id]?.phase = .examining
            attempts[id]?.end = end
            actions.append(.examine(id))
        } else {
            conclude(id, end, at: now)
        }
    }

    /// The card was looked at after the process had failed: a fault of the card, which has come before as an event,
    /// makes the failure the card's and not the job's.
    mutating func examined(_ id: AttemptID, at now: Timestamp) {
        guard let attempt = attempts[id], attempt.phase == .examining, let end = attempt.end else { return }
        attempts[id]?.end = nil
        conclude(id, end, at: now)
    }

    private mutating func conclude(_ id: AttemptID, _ end: ProcessEnd, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        var outcome = Self.outcome(of: end, stopped: attempt.stop, limit: timeout(of: attempt))
        outcome.duration = attempt.ranFor
        outcome.standardOutputTail = end.standardOutput.tail
        outcome.standardErrorTail = end.standardError.tail
        if case .givenBack = attempt.stop { attempts[id]?.ending = .lose }
        setReport(of: id, outcome, ran: true, at: now, end)
        startReporting(id)
    }

    private mutating func startReporting(_ id: AttemptID) {
        guard let report = attempts[id]?.report else { return }
        attempts[id]?.phase = .reporting
        actions.append(.report(report))
    }

    /// A claimed attempt that never started: cancelled, or given back, at once.
    mutating func finishUnstarted(_ id: AttemptID, _ cause: Attempt.StopCause, at now: Timestamp) {
        let outcome: AttemptOutcome
        if case .givenBack(let code, let reason) = cause {
            attempts[id]?.ending = .lose
            outcome = AttemptOutcome(code: code, reason: reason)
        } else {
            outcome = AttemptOutcome(code: .cancelled, reason: "cancelled before it was started")
        }
        setReport(of: id, outcome, ran: false, at: now)
        commit(id, at: now)
    }

    // MARK: outcomes

    private static func outcome(
        of end: ProcessEnd,
        stopped: Attempt.StopCause?,
        limit: Duration
    ) -> AttemptOutcome {
        let (code, returnCode, reason) = plainOutcome(of: end.exit)
        switch stopped {
        case .timeout:
            return AttemptOutcome(
                code: .timeout,
                reason: "ran longer than its timeout of \(seconds(limit)) s and was killed",
                returnCode: returnCode
            )
        case .cancelled: return AttemptOutcome(code: .cancelled, reason: "cancelled", returnCode: returnCode)
        case .givenBack(let code, let reason):
            return AttemptOutcome(code: code, reason: reason, returnCode: returnCode)
        case .superseded, nil: return AttemptOutcome(code: code, reason: reason, returnCode: returnCode)
        }
    }

    private static func plainOutcome(of exit: ProcessEnd.Exit) -> (FailureCode?, returnCode: Int?, reason: String) {
        switch exit {
        case .code(0): (nil, 0, "")
        case .code(let status): (.exit, status, "ended with exit status \(status)")
        case .signal(let number): (.signal, -number, "was killed by signal \(number)")
        case .unkillable: (.workerFault, nil, "its process cannot be killed")
        }
    }

    /// A duration for a person: 1 rather than 1.0.
    private static func seconds(_ duration: Duration) -> String {
        Int(exactly: duration.inSeconds).map(String.init) ?? "\(duration.inSeconds)"
    }

    /// Puts down what the attempt has come to.
    mutating func setReport(
        of id: AttemptID,
        _ outcome: AttemptOutcome,
        ran: Bool,
        at now: Timestamp,
        _ end: ProcessEnd? = nil
    ) {
        guard let attempt = attempts[id] else { return }
        let report = AttemptReport(
            job: attempt.job,
            gpu: gpu,
            attempt: id,
            tries: attempt.revision.record.tries,
            ran: ran,
            outcome: outcome,
            standardOutput: end?.standardOutput ?? .empty,
            standardError: end?.standardError ?? .empty,
            workingDirectory: attempt.directory,
            type: commandType(of: attempt.revision.record),
            time: now.seconds,
            userTime: end?.userTime,
            systemTime: end?.systemTime,
            peakMemoryBytes: end?.peakMemoryBytes
        )
        attempts[id]?.report = report
    }

    private func commandType(of record: JobRecord) -> String {
        do throws(TaskRefusal) {
            return try record.task().command.type
        } catch {
            return ""  // the task cannot be read, and that is what the report is about
        }
    }

    // MARK: losses

    /// After a time without the bus no revision that was read before it is sure to stand where it stood.
    mutating func doubtRevisions() {
        for id in attempts.keys { attempts[id]?.mustLook = true }
    }

    /// After a time without the bus the pool may have given the attempts away.
    mutating func checkRunning() {
        let unread = attempts.values.filter { $0.phase == .running && !$0.isBeingRead }
        for attempt in unread.sorted(by: { $0.number < $1.number }) {
            attempts[attempt.id]?.isBeingRead = true
            actions.append(.readRecord(attempt.job, attempt.id))
        }
    }

    mutating func recordRead(_ id: AttemptID, _ revision: RecordRevision?, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        attempts[id]?.isBeingRead = false
        switch attempt.phase {
        case .recovering: recovered(id, revision, at: now)
        case .running:
            guard let revision, revision.record.attempt == id, revision.record.state == .running else {
                actions.append(.notice("job \(attempt.job) was given away while this worker was not heard; killing it"))
                return end(id, because: .superseded, at: now)
            }
            attempts[id]?.revision = revision
            attempts[id]?.mustLook = false
            if revision.record.cancelRequested { end(id, because: .cancelled, at: now) }
        case .lookingToClaim:
            attempts[id]?.mustLook = false
            attempts[id]?.phase = .preparing
            prepared(id, revision, nil, at: now)
        case .lookingToStart: lookedToStart(id, revision, at: now)
        case .lookingToCommit: lookedToCommit(id, revision, at: now)
        case .preparing, .ready, .claiming, .starting, .terminating, .killing, .examining, .reporting, .committing,
            .pausing, .telling:
            break
        }
    }
}

extension ProcessEnd.Exit {
    /// Whether the process may have failed because its card did.
    fileprivate var isFailureOfItsOwn: Bool {
        switch self {
        case .code(let status): status != 0
        case .signal: true
        case .unkillable: false
        }
    }
}
