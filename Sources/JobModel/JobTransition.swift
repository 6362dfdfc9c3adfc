/// One legal step of a job. Every step is one compare-and-set on the record.
package enum JobTransition: Sendable, Equatable {
    /// The leader binds the job to a card: enqueued or waiting_gpu -> scheduled.
    case schedule(gpu: GPUID, attempt: AttemptID, owner: Incarnation)
    /// The leader takes an unclaimed attempt back: scheduled -> enqueued.
    case takeBack(reason: String)
    /// The leader finds no card that may take the job: enqueued -> waiting_gpu.
    case waitForCard(reason: String)
    /// The leader found cards again: waiting_gpu -> enqueued.
    case cardsBack
    /// The worker claims its attempt: scheduled -> running. From here `tries` counts it.
    case claim
    /// The worker's attempt succeeded: running -> done.
    case finish(AttemptOutcome)
    /// No further attempt: running -> failed by the worker, waiting states -> failed by the leader.
    case fail(AttemptOutcome)
    /// The attempt failed and another is due after the delay: running -> retry.
    case retry(AttemptOutcome, delay: Duration)
    /// The backoff has passed: retry -> enqueued.
    case requeue
    /// The attempt's worker is gone: running -> enqueued. Costs no retry; `lost` counts it.
    case lose(reason: String)
    /// Somebody asked to cancel a running job; its worker kills it: running -> running.
    case requestCancel(reason: String)
    /// Not to run, or killed on request: any state that is not terminal -> cancelled.
    case cancel(reason: String, AttemptOutcome?)
    /// The worker's own rules forbid the task: scheduled -> rejected.
    case reject(AttemptOutcome)

    /// The state this step leads to.
    package var target: JobState {
        switch self {
        case .schedule: .scheduled
        case .takeBack, .cardsBack, .requeue, .lose: .enqueued
        case .waitForCard: .waitingGPU
        case .claim, .requestCancel: .running
        case .finish: .done
        case .fail: .failed
        case .retry: .retry
        case .cancel: .cancelled
        case .reject: .rejected
        }
    }

    /// The states this step may start from.
    package var sources: Set<JobState> {
        switch self {
        case .schedule: [.enqueued, .waitingGPU]
        case .takeBack, .claim, .reject: [.scheduled]
        case .waitForCard: [.enqueued]
        case .cardsBack: [.waitingGPU]
        case .finish, .retry, .lose, .requestCancel: [.running]
        case .fail: [.running, .enqueued, .waitingGPU, .retry]
        case .requeue: [.retry]
        case .cancel: [.enqueued, .waitingGPU, .scheduled, .running, .retry]
        }
    }
}

/// A step that the state machine does not have.
package struct IllegalTransition: Error, Equatable, CustomStringConvertible {
    package let job: JobID
    package let from: JobState
    package let to: JobState

    package var description: String { "job \(job) cannot go from \(from.rawValue) to \(to.rawValue)" }
}
