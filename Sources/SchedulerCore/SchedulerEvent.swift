import JobModel
import WireJSON

/// A revision of a job's record as the stream holds it.
package struct RecordRevision: Sendable, Equatable {
    package var record: JobRecord
    /// Its sequence in ORG_JOBS.
    package var sequence: UInt64
    /// When the stream stored it, on the core's clock.
    package var storedAt: Timestamp

    package init(record: JobRecord, sequence: UInt64, storedAt: Timestamp) {
        self.record = record
        self.sequence = sequence
        self.storedAt = storedAt
    }
}

extension RecordRevision {
    /// The same, and not stored in the future: the server's clock may have been put back since, and what is due a while
    /// after that moment is not to wait for it to come round again.
    func stored(by now: Timestamp) -> RecordRevision {
        var revision = self
        revision.storedAt = min(storedAt, now)
        return revision
    }
}

/// A message of the work queue, not yet acknowledged.
package struct Submission: Sendable {
    package var bytes: [UInt8]
    /// `sha256:` and the hexadecimal digest of the bytes.
    package var digest: String
    /// Its sequence in ORG_WQ.
    package var sequence: UInt64
    /// When the stream stored it, nanoseconds since 1970 by the server's clock.
    package var timestamp: Int64
    /// How long ago that was.
    package var age: Duration
    /// What the shell acknowledges it with.
    package var token: UInt64

    package init(bytes: [UInt8], digest: String, sequence: UInt64, timestamp: Int64, age: Duration, token: UInt64) {
        self.bytes = bytes
        self.digest = digest
        self.sequence = sequence
        self.timestamp = timestamp
        self.age = age
        self.token = token
    }
}

/// What a write of a record came to. There is no "unknown" here: the shell goes on until it knows.
package enum WriteResult: Sendable {
    case stored(sequence: UInt64)
    /// Another revision stands there, or none at all.
    case conflict(RecordRevision?)
    /// The stream refuses the write for another reason (it is full, say); nothing was stored.
    case refused(String)
}

/// What a person asks to be done with a card.
package struct CardRequest: Sendable, Equatable {
    package enum Verb: String, Sendable, CaseIterable {
        case cordon, uncordon, drain, quarantine, clear
    }

    package var verb: Verb
    package var gpu: GPUID
    package var reason: String
    /// For a drain: how long running jobs may go on; nil until they have ended.
    package var delay: Duration?

    package init(_ verb: Verb, _ gpu: GPUID, reason: String = "", delay: Duration? = nil) {
        self.verb = verb
        self.gpu = gpu
        self.reason = reason
        self.delay = delay
    }
}

/// A card's control record as the stream holds it.
package struct ControlRevision: Sendable, Equatable {
    package var record: CardControl
    /// Its sequence in ORG_CTL.
    package var sequence: UInt64
    /// When the stream stored it, on the core's clock.
    package var storedAt: Timestamp

    package init(record: CardControl, sequence: UInt64, storedAt: Timestamp) {
        self.record = record
        self.sequence = sequence
        self.storedAt = storedAt
    }
}

extension ControlRevision {
    /// The same, and not stored in the future; see ``RecordRevision/stored(by:)``.
    func stored(by now: Timestamp) -> ControlRevision {
        var revision = self
        revision.storedAt = min(storedAt, now)
        return revision
    }
}

/// What a write of a control record came to; as with ``WriteResult``, there is no "unknown" here.
package enum ControlResult: Sendable {
    case stored(sequence: UInt64)
    /// Another revision stands there, or none at all.
    case conflict(ControlRevision?)
    /// Nothing was stored, for this reason.
    case refused(String)
}

/// What a probe of a card came to.
package enum ProbeResult: Sendable, Equatable {
    case works(evidence: String)
    case sick(evidence: String)
    /// It was not carried out: the worker does not answer, or is busy with another one.
    case notDone(reason: String)
}

package enum SchedulerEvent: Sendable {
    /// This process leads now.
    /// - resultsPlace: every terminal record up to this sequence has its result event.
    /// - serverClockOffset: what to add to a time of the server to get one of the core's clock.
    case began(resultsPlace: UInt64, serverClockOffset: Duration)
    /// A record that was there when the lead began.
    case replayed(RecordRevision)
    /// All records are known.
    case replayFinished(lastSequence: UInt64)
    /// A record changed; our own writes come back this way too.
    case recordChanged(RecordRevision)
    /// The record at a subject cannot be read.
    case recordUnreadable(JobID?, sequence: UInt64, reason: String)

    case submitted(Submission)

    case registered(WorkerRegistration)
    case heartbeat(Heartbeat)
    /// A heartbeat whose worker waits for an answer: that it was received.
    case heartbeatAsked(Heartbeat, RequestToken)
    case reading(CardReading)
    case cache(CacheReport)
    case workerDown(WorkerNotice)
    /// A card's control record; our own writes come back this way too.
    case cardControl(ControlRevision)
    /// The control record at a card's subject cannot be read.
    case cardControlUnreadable(GPUID, sequence: UInt64, reason: String)
    /// All registrations and control records are known that were there when the lead began.
    case controlReplayed

    case controlWritten(GPUID, OperationID, ControlResult)
    case probeEnded(GPUID, ProbeResult)
    /// The worker did not take the request to evict, for this reason.
    case evictionFailed(GPUID, JobID, reason: String)

    case writeEnded(JobID, OperationID, WriteResult)
    /// The run message was stored, at this sequence of ORG_RUN.
    case runPublished(JobID, GPUID, AttemptID, sequence: UInt64)
    /// The run message was not and will not be stored.
    case runRefused(JobID, AttemptID, reason: String)
    /// The record of a job that the core asked for; nil when a read proved that there is none.
    case recordRead(JobID, RecordRevision?)
    /// The loss of an attempt was told.
    case lossTold(JobID, AttemptID)
    case resultSeen(JobID)
    /// The result event is there, whoever published it.
    case resultSettled(JobID)

    case cancelAsked(JobID, reason: String, RequestToken)
    case whyAsked(JobID, RequestToken)
    case statusAsked(RequestToken)
    case jobsAsked(JobQuery, RequestToken)
    case cardsAsked(RequestToken)
    /// Everything about one card.
    case cardAsked(GPUID, RequestToken)
    case cardRequest(CardRequest, RequestToken)

    /// The removal of a terminal record came to its end: it is gone, or it is not, for this reason.
    case recordRemoved(sequence: UInt64, failure: String?)
    /// How full the records' stream is, 0 to 1.
    case storeFilled(Double)

    /// It is day or night now.
    case phase(DayPhase)

    case timerFired
    /// The connection is back after a gap in which nothing could be heard.
    case reconnected
}

package enum SchedulerAction: Sendable {
    /// Store this record if its subject stands at `expected` (0: if there is none). Answered by `writeEnded`.
    case write(JobRecord, expected: UInt64)
    /// Publish the run message, as long as the lease is trusted. Answered by `runPublished` or `runRefused`.
    case publishRun(GPUID, RunMessage)
    /// Delete a run message whose attempt was taken back.
    case deleteRun(GPUID, AttemptID, sequence: UInt64?)
    /// Acknowledge submissions: they are settled.
    case settle([UInt64])
    /// Publish on `gpu.task.err` (deduplicated by the id), then acknowledge the submission, if there is one.
    case publishError(ErrorEvent, messageID: String, settle: [UInt64])
    /// Publish on `gpu.task.err` that an attempt was lost (deduplicated by the id). Answered by `lossTold`.
    case tellLoss(JobID, AttemptID, ErrorEvent, messageID: String)
    /// See to it that the result event is there; `checkFirst` when somebody else may have published it.
    /// Answered by `resultSettled`.
    case publishResult(ResultEvent, checkFirst: Bool)
    /// Remember that every terminal record up to this sequence has its result.
    case storeResultsPlace(UInt64)
    /// Delete the terminal record at this sequence, after making sure that it is one. Answered by `recordRemoved`.
    case removeRecord(sequence: UInt64)
    /// Ask the worker to kill an attempt.
    case requestCancel(GPUID, JobID, AttemptID)
    /// Ask the worker to end an attempt and give its job back. A failure is told by `evictionFailed`.
    case requestEvict(GPUID, JobID, AttemptID, FailureCode, reason: String)
    /// Ask the worker whether its card works. Answered by `probeEnded`.
    case requestProbe(GPUID)
    /// Store this control record if its subject stands at `expected` (0: if there is none). Answered by
    /// `controlWritten`.
    case writeControl(CardControl, expected: UInt64)
    /// Read a record from the stream's leader. Answered by `recordRead`.
    case readRecord(JobID)
    /// Pull that many more submissions.
    case pull(Int)
    case reply(RequestToken, JSON)
    /// Fire `timerFired` at this time, in place of any earlier arming; nil for never.
    case armTimer(Timestamp?)
    /// A job was bound to a card; only when the policy asks for it.
    case decided(Decision)
    /// Tell on `maestro.state`.
    case announce(event: String, JSONObject)
    /// Something an operator should read in the log.
    case notice(String)
}
