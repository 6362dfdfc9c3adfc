import JobModel
import WireJSON

/// The life of a job: writes, what becomes of them, and the next step.
extension SchedulerCore {
    /// Begins a write of the job's next revision.
    mutating func write(_ id: JobID, _ transition: JobTransition, at now: Timestamp) {
        guard let job = jobs[id], job.pending == nil else { return }
        var next = job.record
        do {
            try next.apply(transition, op: OperationID(from: &ids), at: now)
        } catch {
            actions.append(.notice("a defect of maestro: \(error)"))
            return
        }
        jobs[id]?.pending = next
        actions.append(.write(next, expected: job.sequence))
    }

    mutating func endWrite(_ id: JobID, _ op: OperationID, _ result: WriteResult, at now: Timestamp) {
        if admissions[id]?.record.op == op { return endAdmission(id, result, at: now) }
        guard let job = jobs[id], let next = job.pending, next.op == op else { return }
        switch result {
        case .stored(let sequence):
            adopt(RecordRevision(record: next, sequence: sequence, storedAt: now), at: now)
        case .conflict(let current?) where current.sequence > job.sequence:
            adopt(current, at: now)
        case .conflict(.some):
            hold(id, "the store answered a write with an older revision", at: now)
        case .conflict(nil):
            drop(id, "its record was removed while the job had not ended")
        case .refused(let reason):
            hold(id, reason, at: now)
        }
    }

    /// The stream refuses to store: the job stays as it is and is looked at again a little later.
    private mutating func hold(_ id: JobID, _ reason: String, at now: Timestamp) {
        jobs[id]?.pending = nil
        jobs[id]?.holdUntil = now + .seconds(1)
        deadlines.insert(.hold(id), at: now + .seconds(1))
        if let job = jobs[id], !job.record.isBound { release(id) }
        actions.append(.notice("job \(id): a write was refused and will be tried again: \(reason)"))
    }

    private mutating func drop(_ id: JobID, _ reason: String) {
        guard let job = jobs[id] else { return }
        release(id)
        leaveQueue(job)
        count(job.record.state, by: -1)
        discountSubmitter(of: job)
        if let number = jobs.number(of: id) { index.remove(number, submitted: job.record.times.submitted) }
        jobs[id] = nil
        actions.append(.notice("job \(id): \(reason)"))
    }

    /// A revision that the stream delivered, in its order.
    mutating func observe(_ revision: RecordRevision, at now: Timestamp) {
        results.observed = max(results.observed, revision.sequence)
        history?.note(revision, at: now)
        if revision.record.state.isTerminal {
            let ended = EndedJob(revision.record, sequence: revision.sequence)
            retention.add(ended, storedAt: revision.storedAt)
            noteEnded(jobs.number(of: revision.record.id), ended)
            planRemoval(notBefore: now)
        }
        if results.endedAhead.remove(revision.sequence) != nil { return planStorePlace(at: now) }
        learn(revision, at: now)
    }

    /// A revision that the stream delivered, or that a read found ahead of it.
    mutating func learn(_ revision: RecordRevision, at now: Timestamp) {
        let id = revision.record.id
        if admissions[id]?.record.op == revision.record.op {
            return endAdmission(id, .stored(sequence: revision.sequence), at: now)
        }
        // Ours was stored and is replaced already, or somebody was faster: either way the record is there.
        defer { endAdmission(id, .conflict(revision), at: now) }
        if let known = jobs.sequence(of: id) {
            if revision.sequence > known { adopt(revision, at: now) }
        } else if revision.record.state.isTerminal {
            if revision.sequence > results.place { expectResult(revision, isOurs: false, at: now) }
        } else {
            insert(revision, at: now)
        }
    }

    /// A job that was not known before.
    /// - Parameter task: what the record holds, if it was read already.
    mutating func insert(_ revision: RecordRevision, task: JobTask? = nil, at now: Timestamp) {
        let record = revision.record
        do {
            var job = Job(revision, task: try task ?? record.task())
            countSubmitter(of: job)
            if let wait = record.limits.maxWait {
                let submitted = Timestamp(nanoseconds: Duration.inSeconds(record.times.submitted).wholeNanoseconds)
                // Not in the future, whatever became of the server's clock since.
                let deadline = min(submitted + serverClockOffset, now) + wait
                job.waitDeadline = deadline
                deadlines.insert(.wait(record.id), at: deadline)
            }
            jobs[record.id] = job
            noteLive(record)
        } catch {
            isIndexComplete = false
            actions.append(.notice("job \(record.id): its record holds no task that can be run: \(error)"))
            return
        }
        count(record.state, by: 1)
        settle(into: revision, from: nil, isOurs: false, at: now)
    }

    /// Takes over a newer revision of a known job, whoever wrote it.
    mutating func adopt(_ revision: RecordRevision, at now: Timestamp) {
        let id = revision.record.id
        guard let job = jobs[id] else { return insert(revision, at: now) }
        let isOurs = job.pending?.op == revision.record.op
        count(job.record.state, by: -1)
        count(revision.record.state, by: 1)
        jobs[id]?.adopt(revision)
        settle(into: revision, from: job, isOurs: isOurs, at: now)
    }

    /// Draws the consequences of the state that a job is in now.
    private mutating func settle(into revision: RecordRevision, from old: Job?, isOurs: Bool, at now: Timestamp) {
        let record = revision.record
        // A claim is a sign of life: whatever spoke against the attempt before has to be said again.
        if old?.record.attempt != record.attempt || old?.record.state != record.state {
            jobs[record.id]?.missedHeartbeats = 0
            jobs[record.id]?.lossReason = nil
            jobs[record.id]?.lossSince = nil
        }
        bind(record.id, to: record.isBound ? record.gpu : nil, at: now)
        if record.isBound, let gpu = record.gpu { keepWatch(on: gpu, at: now) }
        if let old {
            if isOurs { followUp(record, from: old) }
            noteEnd(of: old, as: record, at: now)
        }
        switch record.state {
        case .scheduled:
            noteScheduled(revision, isOurs: isOurs, at: now)
        case .running:
            break
        case .retry:
            let due = revision.storedAt + (record.retryDelay ?? .zero)
            jobs[record.id]?.retryDue = due
            deadlines.insert(.retry(record.id), at: due)
            avoidCard(of: record, from: due)
        case .enqueued, .waitingGPU:
            jobs[record.id]?.runSequence = nil
            needsPlacement = true
            // Replayed jobs are queued at once: so they can rest, a million of them, before the lead begins.
            if phase == .starting { enqueue(record.id) }
        case .done, .failed, .cancelled, .rejected:
            return finish(revision, from: old?.record.state, isOurs: isOurs, at: now)
        }
        advance(record.id, at: now)
    }

    private mutating func noteScheduled(_ revision: RecordRevision, isOurs: Bool, at now: Timestamp) {
        let record = revision.record
        guard let gpu = record.gpu, let attempt = record.attempt else { return }
        deadlines.insert(.claim(record.id, attempt), at: now + policy.claimTimeout)
        if let reason = cards[gpu].flatMap({ refusalOfWork($0, at: now) }) {
            jobs[record.id]?.lossReason = reason
            return
        }
        guard isOurs, jobs[record.id]?.cancel == nil else { return }
        actions.append(.publishRun(gpu, RunMessage(record: record, sequence: revision.sequence)))
    }

    /// The leader before may have ended between scheduling an attempt and sending its run message: it is sent once more,
    /// and whoever has it already drops it.
    mutating func dispatchAgain(_ id: JobID) {
        guard let job = jobs[id], job.record.state == .scheduled, let gpu = job.record.gpu else { return }
        actions.append(.publishRun(gpu, RunMessage(record: job.record, sequence: job.sequence)))
    }

    /// What has to follow a write of ours that took an attempt away from its card.
    private mutating func followUp(_ record: JobRecord, from old: Job) {
        guard old.record.isBound, !record.isBound, let gpu = old.record.gpu, let attempt = old.record.attempt else {
            return
        }
        actions.append(.deleteRun(gpu, attempt, sequence: old.runSequence))
        guard old.record.state == .running else { return }
        tellLoss(record, of: attempt, on: gpu, reason: old.lossReason ?? record.reason)
    }

    /// Keeps the slots in step with the record: the job holds one of `gpu`, or none.
    private mutating func bind(_ id: JobID, to gpu: GPUID?, at now: Timestamp) {
        guard jobs[id]?.card != gpu else { return }
        release(id)
        guard let gpu else { return }
        assign(id, to: gpu, at: now)
    }

    mutating func assign(_ id: JobID, to gpu: GPUID, at now: Timestamp) {
        addCard(gpu, at: now)
        let count = cards.assign(id, to: gpu)
        jobs[id]?.card = gpu
        if count == 1 { refreshLimit() }
    }

    mutating func release(_ id: JobID) {
        guard let gpu = jobs[id]?.card else { return }
        cards[gpu]?.assigned.remove(id)
        jobs[id]?.card = nil
        if cards[gpu]?.assigned.isEmpty == true { refreshLimit() }
        needsPlacement = true
    }

    private mutating func finish(_ revision: RecordRevision, from old: JobState?, isOurs: Bool, at now: Timestamp) {
        let record = revision.record
        guard let job = jobs[record.id] else { return }
        if let gpu = record.gpu, let duration = record.outcome?.duration { cards[gpu]?.noteDuration(duration) }
        answerCancel(job, state: record.state)
        release(record.id)
        leaveQueue(job)
        count(record.state, by: -1)
        discountSubmitter(of: job)
        noteEnded(jobs.number(of: record.id), EndedJob(record, sequence: revision.sequence))
        jobs[record.id] = nil
        if isOurs, record.state == .failed, old != .running {
            let event = ErrorEvent(
                job: record.id,
                code: record.outcome?.code ?? .waitedTooLong,
                error: record.reason,
                state: .failed,
                time: record.times.updated
            )
            actions.append(.publishError(event, messageID: "err:\(record.id)", settle: []))
        }
        if revision.sequence > results.observed { results.endedAhead.insert(revision.sequence) }
        expectResult(revision, isOurs: isOurs, isSeen: job.resultSeen, at: now)
    }

    /// Decides the next step of a job that has no write under way.
    mutating func advance(_ id: JobID, at now: Timestamp) {
        guard let job = jobs[id], job.pending == nil, job.holdUntil == nil, phase == .leading else { return }
        switch job.record.state {
        case .running: advanceRunning(job, at: now)
        case .scheduled:
            if let reason = job.cancelReason {
                write(id, .cancel(reason: reason, nil), at: now)
            } else if let reason = job.lossReason {
                write(id, .takeBack(reason: reason), at: now)
            }
        case .enqueued, .waitingGPU, .retry: advanceWaiting(job, at: now)
        case .done, .failed, .cancelled, .rejected: break
        }
    }

    private mutating func advanceRunning(_ job: Job, at now: Timestamp) {
        let id = job.record.id
        if let reason = job.lossReason {
            if let end = fenceEnd(of: job, at: now) { return deadlines.insert(.fence(id), at: end) }
            if job.cancel != nil || job.record.cancelRequested {
                write(id, .cancel(reason: job.cancel?.reason ?? job.record.reason, nil), at: now)
            } else if job.record.lost >= policy.maxLost {
                write(id, .fail(lostTooOften(job.record.lost + 1, reason)), at: now)
            } else {
                write(id, .lose(reason: reason), at: now)
            }
        } else if let cancel = job.cancel {
            if !job.record.cancelRequested {
                write(id, .requestCancel(reason: cancel.reason), at: now)
            } else {
                askWorkerToCancel(job)
                answerCancel(job, state: .running)
            }
        }
    }

    private func lostTooOften(_ times: Int, _ last: String) -> AttemptOutcome {
        let why = "lost \(times) times, which is more than MAX_LOST (\(policy.maxLost)) allows; the last time: \(last)"
        return AttemptOutcome(code: .lost, reason: why)
    }

    private mutating func advanceWaiting(_ job: Job, at now: Timestamp) {
        let id = job.record.id
        if let reason = job.cancelReason {
            write(id, .cancel(reason: reason, nil), at: now)
        } else if job.record.lost > policy.maxLost {
            write(id, .fail(lostTooOften(job.record.lost, job.record.reason)), at: now)
        } else if let deadline = job.waitDeadline, deadline <= now, job.record.tries == 0 {
            let waited = job.record.limits.maxWait?.inSeconds ?? 0
            let why = job.record.reason.isEmpty ? "no card became free" : job.record.reason
            let outcome = AttemptOutcome(
                code: .waitedTooLong,
                reason: "waited for a card for \(waited) s (max_wait): \(why)"
            )
            write(id, .fail(outcome), at: now)
        } else if job.record.state == .retry {
            if let due = job.retryDue, due <= now { write(id, .requeue, at: now) }
        } else if job.untoldLoss == nil {
            needsPlacement = true
            enqueue(id)
        }
    }

    /// Gives the job its place in the queue, if it has none.
    private mutating func enqueue(_ id: JobID) {
        guard let number = jobs.number(of: id), let job = jobs[id], !job.isQueued else { return }
        let place = QueuePlace(priority: Int32(job.priority), number: number, order: job.record.order)
        if queue.insert(place, in: job.placement) { unjudged.append(job.placement) }
        jobs[id]?.isQueued = true
    }

    /// Closes an attempt that its worker has not claimed.
    mutating func closeUnclaimed(_ id: JobID, _ attempt: AttemptID, _ reason: String, at now: Timestamp) {
        guard let job = jobs[id], job.record.attempt == attempt, job.record.state == .scheduled else { return }
        jobs[id]?.lossReason = reason
        advance(id, at: now)
    }

    /// The run message is stored. If its attempt was taken back or ended meanwhile, nobody needs it any more.
    mutating func noteRun(_ id: JobID, _ gpu: GPUID, _ attempt: AttemptID, _ sequence: UInt64) {
        if let job = jobs[id], job.record.attempt == attempt, job.record.isBound {
            jobs[id]?.runSequence = sequence
        } else {
            actions.append(.deleteRun(gpu, attempt, sequence: sequence))
        }
    }

    mutating func count(_ state: JobState, by change: Int) {
        liveCounts[state, default: 0] += change
        switch state {
        case .enqueued, .waitingGPU, .retry: waitingCount += change
        case .scheduled, .running: inflightCount += change
        case .done, .failed, .cancelled, .rejected: break
        }
    }
}

extension JobRecord {
    /// An attempt holds a slot of the record's card.
    var isBound: Bool { state == .scheduled || state == .running }
}
