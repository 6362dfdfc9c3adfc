import JobModel

/// From a message to the right to run its job.
extension WorkerCore {
    mutating func receive(_ message: RunMessage, _ token: MessageToken, at now: Timestamp) {
        guard message.record.gpu == gpu, let id = message.attempt else {
            return refuse(
                "it is for card \(message.record.gpu?.text ?? "none"), not for \(gpu)",
                message.record.id,
                token,
                at: now
            )
        }
        messageArrived()
        if let known = attempts[id] {
            // The same message again, or a second one of the same attempt, which a new leader has sent: one is enough.
            if let first = known.token, first != token { return actions.append(.ack(token)) }
            attempts[id]?.token = token
            return
        }
        guard !isDraining, hold == nil else { return actions.append(.nak(token, delay: .zero)) }
        let revision = RecordRevision(record: message.record, sequence: message.sequence)
        add(id, of: revision, token: token, phase: .preparing)
        // The message only says that there may be something to do. Sequences can have been given out twice, and
        // anybody can send a message: what counts is the record as it stands.
        actions.append(.prepare(message))
    }

    mutating func refuse(_ reason: String, _ job: JobID?, _ token: MessageToken, at now: Timestamp) {
        messageArrived()
        let event = ErrorEvent(
            job: job,
            gpu: gpu,
            code: .notDispatched,
            error: reason.contains(policy.enqueueSubject)
                ? reason : "\(reason); submit jobs on \(policy.enqueueSubject), a maestro dispatches them",
            state: nil,
            time: now.seconds
        )
        actions.append(.refuse(event, messageID: "run:\(gpu):\(token.number)", token))
    }

    mutating func prepared(
        _ id: AttemptID,
        _ revision: RecordRevision?,
        _ objection: TaskObjection?,
        at now: Timestamp
    ) {
        guard let phase = attempts[id]?.phase, phase == .preparing || phase == .claiming else { return }
        guard let revision, revision.record.attempt == id else { return drop(id) }
        attempts[id]?.revision = revision
        let record = revision.record
        switch (record.state, record.owner == incarnation) {
        case (.scheduled, true) where past.contains(id):
            // Its stream was put back to an older state: the leader gives the job a new attempt.
            actions.append(.notice("attempt \(id) of job \(record.id) was run before, and is not run again"))
            drop(id)
        case (.scheduled, true):
            if let objection { return reject(id, objection, at: now) }
            attempts[id]?.phase = .ready
            // It was being claimed when the worker was told to stop, or the card was held.
            if isDraining || hold != nil { giveBackWaiting() }
        case (.running, true):
            // Claimed in this life, and not in hand any more: it has ended, and its record will say so.
            drop(id)
        case (.running, false) where attempts[id]?.fence != nil:
            // Of a worker that may be cut off, and not of this machine: the leader knows when it has ended.
            drop(id)
        case (.running, false):
            lose(id, code: .lost, reason: "the worker that ran it was restarted", at: now)
        default:
            // Scheduled for an earlier life (the leader takes it back), or the record has moved on.
            drop(id)
        }
    }

    private mutating func reject(_ id: AttemptID, _ objection: TaskObjection, at now: Timestamp) {
        attempts[id]?.ending = .reject
        let outcome = AttemptOutcome(code: objection.code, reason: objection.reason)
        setReport(of: id, outcome, ran: false, at: now)
        commit(id, at: now)
    }

    /// Moves a waiting attempt into a slot: scheduled -> running.
    mutating func claim(_ id: AttemptID, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        guard isFenceOpen(for: attempt, at: now) else { return putBack(id, "no maestro answers this worker") }
        if attempt.mustLook {
            attempts[id]?.phase = .lookingToClaim
            return actions.append(.readRecord(attempt.job, id))
        }
        attempts[id]?.phase = .claiming
        var record = attempt.revision.record
        do throws(IllegalTransition) {
            try record.apply(.claim, op: OperationID(from: &ids), at: now)
        } catch {
            actions.append(.notice("attempt \(id) was not claimed: \(error)"))
            return drop(id)
        }
        attempts[id]?.writing = record
        attempts[id]?.claimAskedAt = now
        actions.append(.write(id, record, expected: attempt.revision.sequence))
    }

    mutating func claimEnded(_ id: AttemptID, _ outcome: WriteOutcome, at now: Timestamp) {
        guard let attempt = attempts[id], let record = attempt.writing else { return }
        attempts[id]?.writing = nil
        switch outcome {
        case .stored(let sequence):
            claimed(id, RecordRevision(record: record, sequence: sequence), at: now)
        case .conflict(let revision?)
        where revision.record.attempt == id && revision.record.owner == incarnation
            && revision.record.state == .running:
            // Our claim was stored, and somebody has asked to cancel the job before we heard of that.
            claimed(id, revision, at: now)
        case .conflict(let revision?) where revision.record.attempt == id && revision.record.state == .scheduled:
            // It stands at another sequence (its stream was put back to an older state): look again.
            prepared(id, revision, nil, at: now)
        case .conflict:
            // Taken back, or given to somebody else.
            drop(id)
        case .refused(let reason):
            putBack(id, "the claim was refused: \(reason)")
        }
    }

    /// The message comes again a little later, if its job has not gone elsewhere until then.
    private mutating func putBack(_ id: AttemptID, _ reason: String) {
        guard let attempt = attempts.removeValue(forKey: id) else { return }
        actions.append(.notice("job \(attempt.job) was not claimed: \(reason)"))
        if let token = attempt.token { actions.append(.nak(token, delay: policy.pause)) }
    }

    private mutating func claimed(_ id: AttemptID, _ revision: RecordRevision, at now: Timestamp) {
        attempts[id]?.revision = revision
        if revision.record.cancelRequested { return finishUnstarted(id, .cancelled, at: now) }
        if let cause = attempts[id]?.stop { return finishUnstarted(id, cause, at: now) }
        if isDraining { return finishUnstarted(id, .drained, at: now) }
        if let hold, let code = hold.endsJobs {
            return finishUnstarted(id, .givenBack(code, reason: hold.reason), at: now)
        }
        if let attempt = attempts[id], !isFenceOpen(for: attempt, at: now) {
            return finishUnstarted(id, Attempt.StopCause.fenced, at: now)
        }
        if let asked = attempts[id]?.claimAskedAt, now - asked > policy.claimPatience {
            return lookToStart(id, at: now)
        }
        attempts[id]?.phase = .starting
        keepFence(of: id)
        past.insert(id)
        actions.append(.start(id, revision.record))
    }

    /// The server or this process hung between the claim and its answer: the leader may have called this worker lost
    /// meanwhile, and given the job to another.
    private mutating func lookToStart(_ id: AttemptID, at now: Timestamp) {
        guard let attempt = attempts[id] else { return }
        attempts[id]?.phase = .lookingToStart
        attempts[id]?.claimAskedAt = now
        actions.append(.readRecord(attempt.job, id))
    }

    /// What was read may be as old as the claim's answer was: then it is read again.
    mutating func lookedToStart(_ id: AttemptID, _ revision: RecordRevision?, at now: Timestamp) {
        guard let revision, revision.record.attempt == id, revision.record.owner == incarnation,
            revision.record.state == .running
        else {
            let job = attempts[id]?.job.text ?? ""
            actions.append(.notice("job \(job) was given away before it was started: the claim was answered too late"))
            return drop(id)
        }
        attempts[id]?.mustLook = false
        claimed(id, revision, at: now)
    }
}
