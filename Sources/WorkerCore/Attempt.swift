import JobModel

/// One attempt in the hands of this worker, from its message to its ack.
struct Attempt: Sendable {
    enum Phase: Sendable, Equatable {
        /// Its record is being read.
        case preparing
        /// Waits for a slot.
        case ready
        case claiming
        /// Claimed, and the answer came so late that it may have been given away since: its record is read once more before
        /// the process is started.
        case lookingToStart
        /// Holds a slot; its record is read once more before the claim.
        case lookingToClaim
        /// Its process is being started.
        case starting
        case running
        /// SIGTERM was sent.
        case terminating
        /// SIGKILL was sent.
        case killing
        /// The process has failed by itself; the card is looked at, whether it was the card's fault.
        case examining
        /// The process is gone; the report goes to disk, the output to the bus.
        case reporting
        /// Its record is read once more before the write that ends it.
        case lookingToCommit
        /// The write that ends it is under way.
        case committing
        /// That write was refused and is to be repeated.
        case pausing
        /// The events are being stored.
        case telling
        /// Left by an earlier life: its record is being read.
        case recovering
    }

    /// Why a process is made to end.
    enum StopCause: Sendable, Equatable {
        case timeout
        case cancelled
        /// The job goes back to the pool for a reason that is none of its own: a code that
        /// ``FailureCode/isGivenBack``.
        case givenBack(FailureCode, reason: String)
        /// The record says that the attempt is no longer ours.
        case superseded

        static let drained = StopCause.givenBack(
            .drained,
            reason: "its worker was told to stop, and gave the job back"
        )
        static let fenced = StopCause.givenBack(
            .fenced,
            reason: "its worker was cut off, and ended it before another may start it (partition)"
        )
    }

    /// The write that ends an attempt.
    enum Ending: Sendable, Equatable {
        /// By the outcome and the retry policy.
        case outcome
        /// Not to run here at all: from scheduled.
        case reject
        /// Given back without blame: the job goes to another worker.
        case lose
    }

    let id: AttemptID
    let job: JobID
    /// Its place in the order of arrival.
    let number: UInt64
    /// The message that brought it; nil for one that an earlier life left.
    var token: MessageToken?
    var phase: Phase
    /// The last revision that is known.
    var revision: RecordRevision
    /// Its record was asked for while it runs, and has not come.
    var isBeingRead = false
    /// The connection was lost since the last revision was read. A server that lost its power may have put the record back
    /// and given its sequence to another revision: a write at that sequence could land on somebody else's attempt.
    var mustLook = false
    /// When the claim was sent, or its record was asked for after that.
    var claimAskedAt: Timestamp?
    /// When the next step is due that nothing but time brings.
    var due: Timestamp?
    var startedAt: Timestamp?
    /// How long its process has run, once it has ended.
    var ranFor: Duration?
    var directory = ""
    var stop: StopCause?
    /// How its process ended, while the card is being looked at.
    var end: ProcessEnd?
    var ending = Ending.outcome
    /// It was not answered for in time: whatever comes later, it ends.
    var isFencedOut = false
    var report: AttemptReport?
    /// The revision that is being written.
    var writing: JobRecord?

    /// The times by which it has to end when this worker is cut off.
    var fence: Fence? { revision.record.limits.fence }

    /// Whether a process of it runs or is being started.
    var hasProcess: Bool {
        switch phase {
        case .starting, .running, .terminating, .killing: true
        case .preparing, .ready, .lookingToClaim, .claiming, .lookingToStart, .examining, .reporting, .lookingToCommit,
            .committing, .pausing, .telling, .recovering:
            false
        }
    }

    /// Whether it takes one of the slots.
    var isOccupying: Bool {
        switch phase {
        case .lookingToClaim, .claiming, .lookingToStart, .starting, .running, .terminating, .killing, .examining: true
        case .preparing, .ready, .reporting, .lookingToCommit, .committing, .pausing, .telling, .recovering: false
        }
    }

    /// Whether it waits for a slot.
    var isHeld: Bool { phase == .preparing || phase == .ready }

    /// Whether the pool should hear in heartbeats that this worker has it: from the claim to the end of the record's
    /// state running.
    var isOurs: Bool {
        switch phase {
        case .claiming, .lookingToStart, .starting, .running, .terminating, .killing, .examining, .reporting: true
        case .lookingToCommit, .committing, .pausing: ending != .reject
        case .preparing, .ready, .lookingToClaim, .telling, .recovering: false
        }
    }
}
