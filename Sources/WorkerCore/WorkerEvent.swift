import JobModel

/// A run message that waits for its ack; the shell knows where to send it.
package struct MessageToken: Sendable, Hashable {
    /// The message's sequence in its stream: the same for every delivery of it.
    package let number: UInt64
    package init(_ number: UInt64) { self.number = number }
}

/// A revision of a record as it stands.
package struct RecordRevision: Sendable, Equatable {
    package let record: JobRecord
    package let sequence: UInt64

    package init(record: JobRecord, sequence: UInt64) {
        self.record = record
        self.sequence = sequence
    }
}

/// What became of a write of a record. There is no "unknown": the shell goes on until it knows.
package enum WriteOutcome: Sendable, Equatable {
    case stored(sequence: UInt64)
    /// Another revision stands there; nil when there is none.
    case conflict(RecordRevision?)
    /// Nothing was stored, for a reason that may pass (a full stream).
    case refused(String)
}

/// Why a worker will not run a task at all.
package struct TaskObjection: Sendable, Equatable {
    /// `forbidden` or `bad_task`.
    package let code: FailureCode
    package let reason: String

    package init(code: FailureCode, reason: String) {
        self.code = code
        self.reason = reason
    }
}

/// How the process of an attempt ended, after nothing of it was left.
package struct ProcessEnd: Sendable, Equatable {
    package enum Exit: Sendable, Equatable {
        case code(Int)
        case signal(Int)
        /// It outlived SIGKILL and may still use the card.
        case unkillable
    }

    package var exit: Exit
    package var standardOutput: AttemptReport.Output
    package var standardError: AttemptReport.Output
    package var userTime: Duration?
    package var systemTime: Duration?
    package var peakMemoryBytes: UInt64?
    /// What else a person should know: survivors, output that could not be kept.
    package var remarks: [String]

    package init(
        exit: Exit,
        standardOutput: AttemptReport.Output = .empty,
        standardError: AttemptReport.Output = .empty,
        userTime: Duration? = nil,
        systemTime: Duration? = nil,
        peakMemoryBytes: UInt64? = nil,
        remarks: [String] = []
    ) {
        self.exit = exit
        self.standardOutput = standardOutput
        self.standardError = standardError
        self.userTime = userTime
        self.systemTime = systemTime
        self.peakMemoryBytes = peakMemoryBytes
        self.remarks = remarks
    }
}

/// An attempt that an earlier life of this worker has left open in its journal.
package struct RecoveredAttempt: Sendable, Equatable {
    package let job: JobID
    package let attempt: AttemptID
    /// What it came to, if it had ended.
    package let report: AttemptReport?

    package init(job: JobID, attempt: AttemptID, report: AttemptReport?) {
        self.job = job
        self.attempt = attempt
        self.report = report
    }
}

/// What happens to a worker.
package enum WorkerEvent: Sendable {
    /// The processes of earlier lives are gone, the card is registered; these attempts are still to be closed.
    case began([RecoveredAttempt])
    case runReceived(RunMessage, MessageToken)
    /// A message on the subject of runs that no maestro has dispatched.
    case badRunReceived(reason: String, JobID?, MessageToken)
    /// The record as it stands (nil: there is none), and whether the worker may run the task.
    case prepared(AttemptID, RecordRevision?, TaskObjection?)
    case recordRead(AttemptID, RecordRevision?)
    case writeEnded(AttemptID, OperationID, WriteOutcome)
    /// The process runs, in this directory.
    case started(AttemptID, directory: String)
    /// No process was started: `spawn` or `worker_fault`.
    case startFailed(AttemptID, FailureCode, reason: String)
    case ended(AttemptID, ProcessEnd)
    /// The card was looked at; what was found has come before as `cardHeld` and `cardFailed`.
    case examined(AttemptID)
    /// The report is on the disk and the output has been sent.
    case reported(AttemptID)
    /// The events of the attempt are stored.
    case told(AttemptID)
    case cancelAsked(JobID, AttemptID, RequestToken)
    case evictAsked(JobID, AttemptID, FailureCode, reason: String, RequestToken)
    case probeAsked(RequestToken)
    case probeEnded(WorkerAnswer)
    /// Whether the card may take new jobs, at each look at it; nil: it may.
    case cardHeld(CardHold?)
    /// A fault was seen that spoils what runs on the card.
    case cardFailed(reason: String)
    /// The leader has received the heartbeat that was sent at that time.
    case heartbeatAnswered(sentAt: Timestamp)
    /// The connection was lost and is back.
    case reconnected
    case timerFired
    /// The process was told to stop; a second time means: at once.
    case stopAsked
}
