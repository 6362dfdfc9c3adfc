import JobModel

/// Each loss is told on `gpu.task.err`, also when the leader that wrote it down ends before it has told it.
extension SchedulerCore {
    /// How long the stream of events knows a message by its id: a loss that is told again within that is there once.
    private static let duplicateWindow = Duration.seconds(120)

    /// Tells that an attempt was lost, and keeps its job from being scheduled until that is stored.
    mutating func tellLoss(_ record: JobRecord, of attempt: AttemptID, on gpu: GPUID, reason: String) {
        let event = ErrorEvent(
            job: record.id,
            gpu: gpu,
            attempt: attempt,
            tries: record.tries,
            code: .lost,
            error: reason,
            state: record.state,
            time: record.times.updated
        )
        jobs[record.id]?.untoldLoss = attempt
        actions.append(.tellLoss(record.id, attempt, event, messageID: "err:\(attempt)"))
    }

    /// The leader before, or the worker, may have ended between writing a loss down and telling it. An older one was told,
    /// or nobody led for so long that it would be told twice.
    mutating func tellLossAgain(_ id: JobID, at now: Timestamp) {
        guard let job = jobs[id], !job.record.isBound, let attempt = job.record.lostAttempts.last,
            attempt == job.record.attempt, let gpu = job.record.gpu, now - job.storedAt < Self.duplicateWindow
        else { return }
        tellLoss(job.record, of: attempt, on: gpu, reason: job.record.reason)
    }

    mutating func noteLossTold(_ id: JobID, _ attempt: AttemptID, at now: Timestamp) {
        guard jobs[id]?.untoldLoss == attempt else { return }
        jobs[id]?.untoldLoss = nil
        advance(id, at: now)
    }
}
