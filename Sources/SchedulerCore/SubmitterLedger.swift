import JobModel

/// How many jobs of each submitter have not ended.
///
/// A courtesy among those who share a pool: the name is what a client says. Tasks that name nobody share one count.
struct SubmitterLedger: Sendable {
    private var counts: [String: Int] = [:]

    /// Jobs of that submitter that are being admitted, wait or run.
    func count(of submitter: String) -> Int { counts[submitter] ?? 0 }

    mutating func add(_ submitter: String) { counts[submitter, default: 0] += 1 }

    mutating func remove(_ submitter: String) {
        let left = count(of: submitter) - 1
        counts[submitter] = left > 0 ? left : nil
    }
}

extension SchedulerCore {
    private var countsSubmitters: Bool { policy.maxJobsPerSubmitter > 0 }

    /// Why a submitter may have no further job now; nil if it may.
    func objection(toSubmitterOf task: JobTask) -> String? {
        let submitter = task.submitter ?? ""
        guard countsSubmitters, submitters.count(of: submitter) >= policy.maxJobsPerSubmitter else { return nil }
        let who = submitter.isEmpty ? "those who name no submitter have" : "\(submitter) has"
        return "\(who) \(submitters.count(of: submitter)) jobs in the pool, as many as MAX_JOBS_PER_SUBMITTER allows; "
            + "submit it again under a new id when some have ended"
    }

    mutating func countJob(of task: JobTask, by change: Int) {
        guard countsSubmitters else { return }
        if change > 0 { submitters.add(task.submitter ?? "") } else { submitters.remove(task.submitter ?? "") }
    }

    /// A job that is known from its record.
    mutating func countSubmitter(of job: Job) {
        guard countsSubmitters else { return }
        submitters.add(job.submitter)
    }

    /// A job has ended, or its record is gone.
    mutating func discountSubmitter(of job: Job) {
        guard countsSubmitters else { return }
        submitters.remove(job.submitter)
    }
}
