import JobModel

/// A job that has not ended, as the leader holds it.
struct Job: Sendable {
    var record: JobRecord
    /// Where that revision stands in ORG_JOBS.
    var sequence: UInt64
    /// When the stream stored it.
    var storedAt: Timestamp
    var placement: PlacementClass
    let kind: JobKind
    var priority: Int
    /// What it reads: cards whose caches have it score better.
    let cacheKeys: [CacheKey]
    /// Whose job it is; empty for nobody's.
    let submitter: String

    /// The next revision, while its write is under way; nothing else is decided for the job until that has ended.
    var pending: JobRecord?
    /// The card whose slot the job holds.
    var card: GPUID?
    /// Where the run message of the current attempt stands in ORG_RUN, once that is known.
    var runSequence: UInt64?
    /// In state retry: when the job is due.
    var retryDue: Timestamp?
    /// Until when ``placement`` avoids a card.
    var avoidsUntil: Timestamp?
    /// When the job has waited for a card too long, if no attempt of it was claimed until then.
    var waitDeadline: Timestamp?
    /// Its place is in the queue, whether it may be bound to a card now or not.
    var isQueued = false
    /// Nothing is written before this time, because the stream refused the last write.
    var holdUntil: Timestamp?

    /// The attempt that was lost last, until that is told. Nothing is scheduled before: who finds the next attempt in the
    /// record could not tell the loss any more.
    var untoldLoss: AttemptID?

    var cancel: CancelIntent?
    /// Why the current attempt has to be closed although its worker did not; nil as long as it need not.
    var lossReason: String?
    /// When ``lossReason`` was first known.
    var lossSince: Timestamp?
    /// Heartbeats in a row of the owner that did not name the running attempt.
    var missedHeartbeats = 0
    var resultSeen = false

    struct CancelIntent: Sendable {
        var reason: String
        var requests: [RequestToken]

        /// One more request; the first one's reason stands.
        init(_ reason: String, _ request: RequestToken, after earlier: CancelIntent?) {
            self.reason = earlier?.reason ?? reason
            requests = (earlier?.requests ?? []) + [request]
        }
    }

    init(_ revision: RecordRevision, task: JobTask) {
        record = revision.record
        sequence = revision.sequence
        storedAt = revision.storedAt
        placement = PlacementClass(pin: task.gpu, isFenced: revision.record.limits.fence != nil)
        kind = JobKind(task.command)
        priority = task.priority
        cacheKeys = task.cacheKeys
        submitter = task.submitter ?? ""
    }

    /// The record has moved on: no write is under way from where it stood.
    mutating func adopt(_ revision: RecordRevision) {
        record = revision.record
        sequence = revision.sequence
        storedAt = revision.storedAt
        pending = nil
        holdUntil = nil
    }

    /// It may be bound to a card now.
    var isWaiting: Bool {
        pending == nil && holdUntil == nil && untoldLoss == nil
            && (record.state == .enqueued || record.state == .waitingGPU)
    }

    /// Why the job is to be cancelled; nil if nobody asked for it. A request that an earlier leader wrote down counts.
    var cancelReason: String? {
        cancel?.reason ?? (record.cancelRequested ? "cancelled on request" : nil)
    }
}
