import JobModel
import WireJSON

/// Cards on which jobs fail that succeed elsewhere.
extension SchedulerCore {
    /// Draws the consequences of an attempt that its worker has ended.
    mutating func noteEnd(of old: Job, as record: JobRecord, at now: Timestamp) {
        guard phase == .leading, old.record.isBound, old.record.attempt == record.attempt, let gpu = record.gpu else {
            return
        }
        switch record.state {
        case .done:
            noteSuccess(on: gpu, at: now)
            for card in failures.noteSuccess(of: record.id, old.kind, on: gpu, at: now) { judge(card, at: now) }
        case .failed, .retry:
            guard record.outcome?.mayBeTheCardsFault == true else { return }
            failures.noteFailure(of: record.id, old.kind, on: gpu, at: now)
        case .enqueued, .waitingGPU, .scheduled, .running, .cancelled, .rejected: break
        }
    }

    /// Quarantines a card that enough of the failures speak against; on probation one is enough.
    private mutating func judge(_ gpu: GPUID, at now: Timestamp) {
        guard let control = details[gpu]?.control.wanted(policy: policy, at: now), control.quarantine == nil else {
            return
        }
        let needed = control.probation == nil ? nil : 1
        guard let jobs = failures.jobsAgainst(gpu, needed: needed, at: now), mayQuarantine(gpu, at: now) else { return }
        let names = jobs.prefix(8).map(\.text).joined(separator: ", ")
        let more = jobs.count > 8 ? " and \(jobs.count - 8) more" : ""
        let reason = jobs.count == 1 ? "a job failed on it alone" : "\(jobs.count) jobs failed on it alone"
        let evidence = "\(names)\(more): they, or others of their kind, succeeded on other cards after that"
        change(gpu, .quarantine(.failures, reason: reason, evidence: Self.short(evidence)), at: now)
    }

    /// Failures may take no more than a part of the pool: what fails may still be the jobs.
    private mutating func mayQuarantine(_ gpu: GPUID, at now: Timestamp) -> Bool {
        let quarantined = details.values.count {
            $0.control.wanted(policy: policy, at: now).quarantine?.kind == .failures
        }
        let registered = cards.values.count { $0.owner != nil }
        let most = policy.quarantineMax == 0 ? 0 : max(1, registered * policy.quarantineMax / 100)
        guard quarantined >= most else {
            isQuarantineFull = false
            return true
        }
        guard !isQuarantineFull else { return false }
        isQuarantineFull = true
        announce("quarantine_limit", [("gpu_id", gpu.json), ("quarantined", .int(quarantined)), ("limit", .int(most))])
        return false
    }
}

extension AttemptOutcome {
    /// The process ran and failed, and not for want of its program: 126 and 127 are a shell's words for that.
    fileprivate var mayBeTheCardsFault: Bool {
        switch code {
        case .exit: returnCode != 126 && returnCode != 127
        case .signal, .timeout: true
        case .spawn, .lost, .cancelled, .drained, .overheated, .cardFailed, .fenced, .badTask, .forbidden, .idConflict,
            .tooOld, .waitedTooLong, .tooManyJobs, .notDispatched, .workerFault, nil:
            false
        }
    }
}
