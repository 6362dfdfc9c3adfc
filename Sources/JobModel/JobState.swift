/// Where a job stands. The raw value is the word on the wire.
package enum JobState: String, Sendable, Hashable, CaseIterable {
    /// Admitted and waiting for a free slot.
    case enqueued
    /// Waiting for a card that is not there or may not be used now; the record's reason says why.
    case waitingGPU = "waiting_gpu"
    /// Bound to a card by an attempt that its worker has not claimed yet.
    case scheduled
    /// Claimed: the worker named by the record runs it, and only that worker moves the state.
    case running
    /// An attempt failed; the job goes back to the queue when its backoff has passed.
    case retry
    case done
    case failed
    case cancelled
    /// Never admitted; the record's reason says why.
    case rejected

    /// A record in a terminal state never changes again.
    package var isTerminal: Bool {
        switch self {
        case .done, .failed, .cancelled, .rejected: true
        case .enqueued, .waitingGPU, .scheduled, .running, .retry: false
        }
    }

    /// The states that may follow this one in a record. ``JobTransition`` says who moves, and why.
    package var successors: Set<JobState> {
        switch self {
        case .enqueued: [.scheduled, .waitingGPU, .failed, .cancelled]
        case .waitingGPU: [.enqueued, .scheduled, .failed, .cancelled]
        case .scheduled: [.running, .enqueued, .cancelled, .rejected]
        case .running: [.running, .done, .failed, .retry, .enqueued, .cancelled]
        case .retry: [.enqueued, .failed, .cancelled]
        case .done, .failed, .cancelled, .rejected: []
        }
    }

    /// The states a new record may start in: admitted, refused, or cancelled before its submission arrived.
    package static let initial: Set<JobState> = [.enqueued, .rejected, .cancelled]
}
