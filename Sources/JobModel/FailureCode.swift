/// Why an attempt or a job did not succeed. The raw value is the stable `code` on the wire.
package enum FailureCode: String, Sendable, Hashable, CaseIterable {
    /// The process ended with a status other than 0.
    case exit
    /// The process was ended by a signal that we did not send.
    case signal
    /// The process outran its time limit and was killed.
    case timeout
    /// The process could not be started.
    case spawn
    /// The worker that ran it is gone.
    case lost
    /// Somebody cancelled the job.
    case cancelled
    /// The worker was told to stop while the job ran, and gave it back.
    case drained
    /// The card became too hot while the job ran.
    case overheated
    /// The card failed while the job ran.
    case cardFailed = "card_failed"
    /// The worker was cut off, and ended the job before anybody else may start it.
    case fenced
    /// The task is malformed or asks for something impossible.
    case badTask = "bad_task"
    /// The task asks for something that the pool or the worker forbids.
    case forbidden
    /// The id was used before, with another content.
    case idConflict = "id_conflict"
    /// The submission is older than the time for which used ids are remembered.
    case tooOld = "too_old"
    /// The job waited longer for a card than it was allowed to.
    case waitedTooLong = "waited_too_long"
    /// Its submitter has as many jobs in the pool as one may have.
    case tooManyJobs = "too_many_jobs"
    /// A message on the subject of runs that no maestro dispatched.
    case notDispatched = "not_dispatched"
    /// The worker could not use its own disk or directory.
    case workerFault = "worker_fault"

    /// Whether a worker ends a running attempt with it to give the job back to the pool: no fault of the job, so it
    /// costs no retry.
    package var isGivenBack: Bool {
        switch self {
        case .drained, .overheated, .cardFailed, .fenced: true
        case .exit, .signal, .timeout, .spawn, .lost, .cancelled, .badTask, .forbidden, .idConflict, .tooOld,
            .waitedTooLong, .tooManyJobs, .notDispatched, .workerFault:
            false
        }
    }
}
