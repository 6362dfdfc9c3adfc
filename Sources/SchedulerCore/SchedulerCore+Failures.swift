import JobModel
import WireJSON

/// Cards on which jobs fail that succeed elsewhere.
extension SchedulerCore {
    /// Draws the consequences of an attempt that its worker has ended.
    mutating func noteEnd(of old: Job, as record: JobRecord, at now: Timestamp) {
        guard phase == .leading, old.record.isBound, old.record.attempt == record.attempt, let gpu = record.gpu else {
            return
        }
        if record.state == .done { noteSuccess(on: gpu, at: now) }
        // What ends before the ledger is filled is a part of the history.
        guard history == nil else { return }
        switch record.lastEnd {
        case .succeeded:
            for card in failures.noteSuccess(of: record.id, old.kind, on: gpu, at: now) { judge(card, at: now) }
        case .failed: failures.noteFailure(of: record.id, old.kind, on: gpu, at: now)
        case nil: break
        }
    }

    /// A new leader takes over what the records tell, once it knows them and the cards. It judges nobody by that: the leader
    /// before did.
    mutating func fillFailures(at now: Timestamp) {
        guard phase == .leading, knowsControl, let known = history.take() else { return }
        let registered = cards.values.filter { $0.owner != nil }.map(\.id)
        for entry in known.entries {
            guard let kind = entry.kind else { continue }
            if entry.hasFailedBefore {
                let isRecent = now - entry.storedAt <= FailureLedger.recentTime
                let candidates = isRecent ? registered : []
                failures.noteUnplacedFailure(of: entry.job, kind, among: candidates, at: entry.storedAt)
            }
            switch entry.end {
            case .succeeded(let gpu): _ = failures.noteSuccess(of: entry.job, kind, on: gpu, at: entry.storedAt)
            case .failed(let gpu):
                // What was decided about the card since settles what was before.
                if let settled = details[gpu]?.control.storedAt, settled >= entry.storedAt { continue }
                failures.noteFailure(of: entry.job, kind, on: gpu, isInherited: true, at: entry.storedAt)
            case nil: break
            }
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

extension FailureHistory.Entry {
    /// Nil when the submission is none, and nobody runs it again.
    fileprivate var kind: JobKind? {
        do {
            return JobKind(try JobTask(submission: submission).command)
        } catch {
            return nil
        }
    }
}
