/// The record of a job: the truth about it, stored as the one message of `gpu.task.state.<task_id>`.
///
/// A record changes only by ``apply(_:op:at:)``, and every change is written by compare-and-set at the sequence of
/// the revision it was made from.
package struct JobRecord: Sendable, Equatable {
    package let id: JobID
    package private(set) var state: JobState
    /// The mark of the write that made this revision.
    package private(set) var op: OperationID
    /// The submission as it came, byte for byte but for white space around it; empty when a cancel or a refusal made the
    /// record without one.
    package let submission: [UInt8]
    /// `sha256:` and the hexadecimal digest of the submission.
    package let digest: String
    /// The sequence of the submission in its stream: the order among jobs of one priority.
    package let order: UInt64
    package let limits: JobLimits

    /// The card of the current or last attempt.
    package private(set) var gpu: GPUID?
    /// The fencing token of the current or last attempt.
    package private(set) var attempt: AttemptID?
    /// The life of the worker that the attempt was given to.
    package private(set) var owner: Incarnation?
    /// Attempts that were claimed so far.
    package private(set) var tries: Int
    /// Those among them that ended with their worker, not by themselves.
    package private(set) var lost: Int
    /// The last attempts that ended in state retry, oldest first: what their workers find out when they have crashed before
    /// they could tell it, and the record has moved on.
    package private(set) var failedAttempts: [AttemptID]
    /// The last attempts that were lost or given back, oldest first.
    package private(set) var lostAttempts: [AttemptID]
    /// Why the job is in its state, for a person; empty when there is nothing to say.
    package private(set) var reason: String
    /// In state retry: how long after this revision the job is due again.
    package private(set) var retryDelay: Duration?
    /// Somebody asked for the running job to be killed.
    package private(set) var cancelRequested: Bool
    /// How the last attempt ended, if one did.
    package private(set) var outcome: AttemptOutcome?
    package private(set) var times: JobTimes

    /// Fields that this version does not know, with the bytes of their values.
    package let extra: [UnknownField]

    package struct UnknownField: Sendable, Equatable {
        package let key: String
        package let raw: [UInt8]
    }

    /// A record of a job that was just admitted: enqueued, never tried.
    package init(
        admitting id: JobID,
        submission: [UInt8],
        digest: String,
        order: UInt64,
        limits: JobLimits,
        op: OperationID,
        at now: Timestamp,
        submitted: Double
    ) {
        self.init(
            untried: id,
            submission: Self.withoutSpaceAround(submission),
            digest: digest,
            order: order,
            limits: limits,
            op: op,
            times: JobTimes(submitted: submitted, updated: now.seconds)
        )
    }

    /// What stands around a JSON value is no part of it, and is gone when the record was stored.
    private static func withoutSpaceAround(_ text: [UInt8]) -> [UInt8] {
        func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0A).contains(byte) || byte == 0x0D }
        guard let start = text.firstIndex(where: { !isSpace($0) }), let end = text.lastIndex(where: { !isSpace($0) }),
            start > text.startIndex || end < text.endIndex - 1
        else { return text }
        return Array(text[start...end])
    }

    /// A record whose ``isUntried`` holds, from its parts.
    package init(
        untried id: JobID,
        submission: [UInt8],
        digest: String,
        order: UInt64,
        limits: JobLimits,
        op: OperationID,
        times: JobTimes
    ) {
        self.init(
            id: id,
            state: .enqueued,
            op: op,
            submission: submission,
            digest: digest,
            order: order,
            limits: limits,
            gpu: nil,
            attempt: nil,
            owner: nil,
            tries: 0,
            lost: 0,
            reason: "",
            retryDelay: nil,
            cancelRequested: false,
            outcome: nil,
            times: times,
            extra: []
        )
    }

    /// A record that is terminal from the start: a refused submission, or the cancel of an id not yet seen.
    package init(
        refusing id: JobID,
        state: JobState,
        outcome: AttemptOutcome,
        submission: [UInt8],
        digest: String,
        order: UInt64,
        op: OperationID,
        at now: Timestamp,
        submitted: Double
    ) {
        self.init(
            id: id,
            state: state,
            op: op,
            submission: submission,
            digest: digest,
            order: order,
            limits: .none,
            gpu: nil,
            attempt: nil,
            owner: nil,
            tries: 0,
            lost: 0,
            reason: outcome.reason,
            retryDelay: nil,
            cancelRequested: false,
            outcome: outcome,
            times: JobTimes(submitted: submitted, ended: now.seconds, updated: now.seconds),
            extra: []
        )
    }

    init(
        id: JobID,
        state: JobState,
        op: OperationID,
        submission: [UInt8],
        digest: String,
        order: UInt64,
        limits: JobLimits,
        gpu: GPUID?,
        attempt: AttemptID?,
        owner: Incarnation?,
        tries: Int,
        lost: Int,
        failedAttempts: [AttemptID] = [],
        lostAttempts: [AttemptID] = [],
        reason: String,
        retryDelay: Duration?,
        cancelRequested: Bool,
        outcome: AttemptOutcome?,
        times: JobTimes,
        extra: [UnknownField]
    ) {
        self.id = id
        self.state = state
        self.op = op
        self.submission = submission
        self.digest = digest
        self.order = order
        self.limits = limits
        self.gpu = gpu
        self.attempt = attempt
        self.owner = owner
        self.tries = tries
        self.lost = lost
        self.failedAttempts = failedAttempts
        self.lostAttempts = lostAttempts
        self.reason = reason
        self.retryDelay = retryDelay
        self.cancelRequested = cancelRequested
        self.outcome = outcome
        self.times = times
        self.extra = extra
    }

    /// The job is enqueued, and nothing was ever done about it.
    package var isUntried: Bool {
        state == .enqueued && gpu == nil && attempt == nil && owner == nil && tries == 0 && lost == 0 && reason.isEmpty
            && retryDelay == nil && !cancelRequested && outcome == nil && times.scheduled == nil && times.started == nil
            && times.ended == nil && failedAttempts.isEmpty && lostAttempts.isEmpty
    }

    /// Attempts that failed by themselves; these are what ``JobLimits/maxRetries`` bounds.
    package var failures: Int { max(0, tries - lost) }

    /// Makes the next revision.
    /// - Parameters:
    ///   - op: the mark of the write that is to store it, new for each write.
    ///   - now: for the times that people read; no decision depends on them.
    /// - Throws: ``IllegalTransition`` when the state machine has no such step; the record is unchanged then.
    package mutating func apply(
        _ transition: JobTransition,
        op: OperationID,
        at now: Timestamp
    ) throws(IllegalTransition) {
        guard transition.sources.contains(state), state.successors.contains(transition.target) else {
            throw IllegalTransition(job: id, from: state, to: transition.target)
        }
        self.op = op
        state = transition.target
        reason = ""
        retryDelay = nil
        times.updated = now.seconds
        switch transition {
        case .schedule(let gpu, let attempt, let owner):
            self.gpu = gpu
            self.attempt = attempt
            self.owner = owner
            times.scheduled = now.seconds
        case .takeBack(let why), .waitForCard(let why):
            reason = why
        case .cardsBack, .requeue:
            break
        case .claim:
            tries += 1
            outcome = nil
            times.started = now.seconds
        case .lose(let why):
            lost += 1
            remember(in: \.lostAttempts)
            reason = why
        case .requestCancel(let why):
            cancelRequested = true
            reason = why
        case .retry(let outcome, let delay):
            self.outcome = outcome
            reason = outcome.reason
            retryDelay = delay
            remember(in: \.failedAttempts)
        case .finish(let outcome), .fail(let outcome), .reject(let outcome):
            end(with: outcome, reason: outcome.reason, at: now)
        case .cancel(let why, let outcome):
            end(with: outcome ?? AttemptOutcome(code: .cancelled, reason: why), reason: why, at: now)
        }
    }

    /// How many attempts ``failedAttempts`` and ``lostAttempts`` hold at most, each.
    private static let rememberedAttempts = 20

    private mutating func remember(in list: WritableKeyPath<JobRecord, [AttemptID]>) {
        guard let attempt else { return }
        self[keyPath: list] = self[keyPath: list].suffix(Self.rememberedAttempts - 1) + [attempt]
    }

    private mutating func end(with outcome: AttemptOutcome?, reason: String, at now: Timestamp) {
        self.outcome = outcome
        self.reason = reason
        times.ended = now.seconds
    }
}

/// What bounds a job's life, fixed when it is admitted: the task's own wishes, else the pool's defaults.
package struct JobLimits: Sendable, Equatable {
    /// How long one attempt may run.
    package var timeout: Duration
    /// How many failed attempts are followed by another.
    package var maxRetries: Int
    /// The backoff before the first retry; it doubles with each further one.
    package var retryBackoff: Duration
    /// How long the job may wait for its first card, from its admission; nil means for ever.
    package var maxWait: Duration?
    /// For a job that must not run on when its worker is cut off: the times by which that is made sure.
    package var fence: Fence?

    package init(
        timeout: Duration,
        maxRetries: Int,
        retryBackoff: Duration,
        maxWait: Duration?,
        fence: Fence? = nil
    ) {
        self.timeout = timeout
        self.maxRetries = maxRetries
        self.retryBackoff = retryBackoff
        self.maxWait = maxWait
        self.fence = fence
    }

    /// For records of jobs that never run.
    package static let none = JobLimits(timeout: .zero, maxRetries: 0, retryBackoff: .zero, maxWait: nil)
}

/// When things happened to a job, in seconds since 1970 by the clock of whoever wrote it: for people, not for decisions.
package struct JobTimes: Sendable, Equatable {
    /// When the stream stored the submission.
    package var submitted: Double
    package var scheduled: Double?
    package var started: Double?
    package var ended: Double?
    /// When this revision was made.
    package var updated: Double

    package init(
        submitted: Double,
        scheduled: Double? = nil,
        started: Double? = nil,
        ended: Double? = nil,
        updated: Double
    ) {
        self.submitted = submitted
        self.scheduled = scheduled
        self.started = started
        self.ended = ended
        self.updated = updated
    }
}
