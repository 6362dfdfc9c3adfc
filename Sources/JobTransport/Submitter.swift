import JobModel
import NATSClient
import WireJSON

/// A job on its way into the pool: its id, and the bytes that every try sends.
package struct Submission: Sendable, Hashable {
    package let id: JobID
    /// The task with its id, the same at every try: an id with other bytes is another job, and refused.
    package let bytes: [UInt8]

    /// A submission that was made before: its bytes are sent as they were.
    package init(id: JobID, exactly bytes: [UInt8]) {
        self.id = id
        self.bytes = bytes
    }

    /// Checks a task and fixes its bytes.
    ///
    /// A task that names itself is sent as it is, so that submitting it again, even from another process, is the same
    /// job. Without an id it gets a generated one, the time of its first try, and who submits it unless it says so.
    /// - Parameter submitter: the name that jobs of one submitter are counted by: `user@host`.
    /// - Throws: ``TaskRefusal`` for a task that no maestro would admit; nothing has been sent then.
    package init(
        task bytes: [UInt8],
        now: Timestamp,
        submitter: String? = nil,
        from source: inout IdentifierSource
    ) throws(TaskRefusal) {
        let task = try JobTask(submission: bytes)
        if let id = task.id {
            self.id = id
            self.bytes = bytes
            return
        }
        let json: JSON
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw TaskRefusal("the submission is \(error)")
        }
        guard case .object(var object) = json else { throw TaskRefusal("the submission is not an object") }
        id = JobID.generated(at: now, from: &source)
        object["task_id"] = .string(id.text)
        object["submitted_at"] = .double(now.seconds)
        if task.submitter == nil, let submitter { object["submitter"] = .string(submitter) }
        self.bytes = JSON.object(object).encoded()
        // With its id it may have become too long.
        _ = try JobTask(submission: self.bytes)
    }
}

/// What became of a submission.
package enum SubmissionOutcome: Sendable, Equatable {
    /// The stream holds it: it will reach exactly one terminal state.
    case stored(sequence: UInt64, isDuplicate: Bool)
    /// The id belongs to a job with other content; that one is untouched, this one is not stored.
    case conflict
    /// The queue has no room: not stored. Later it may have; why, for a person.
    case full(String)
    /// Not stored, and it will not be; why, for a person.
    case refused(String)
    /// The deadline came before an answer: it may be stored. Submitting it again is safe.
    case unknown(NATSError)
}

/// Submits jobs, many at a time.
package struct Submitter: Sendable {
    private let jetStream: JetStream
    private let names: PoolNames
    private let window: Int

    /// - Parameter window: submissions that may wait for their ack at one time.
    package init(_ jetStream: JetStream, names: PoolNames, window: Int = 512) {
        self.jetStream = jetStream
        self.names = names
        self.window = max(1, window)
    }

    /// Submits one job and goes on until its fate is known.
    package func submit(_ submission: Submission, until: ContinuousClock.Instant) async -> SubmissionOutcome {
        await outcome(of: submission, await resend(submission, until: until))
    }

    /// Submits jobs in their order, a window of them at a time, and tells the fate of each as soon as it is known.
    ///
    /// A submission whose ack does not come is sent again, the same bytes under the same message id, until the server
    /// has answered or the patience is at its end.
    /// - Parameters:
    ///   - submissions: taken one by one as the window allows, so they may come from a file of any length.
    ///   - patience: how long after the server's last answer to any of them it is asked for the fate of the others.
    ///   - report: called once for each, in the order of the answers.
    ///   - afterBatch: called when the answers that came together were reported.
    /// - Throws: what the sequence throws; everything that was taken from it before has been reported then.
    package func submit<Submissions: Sequence<Result<Submission, Failure>>, Failure: Error>(
        _ submissions: Submissions,
        patience: Duration,
        report: (Submission, SubmissionOutcome) -> Void,
        afterBatch: () -> Void = {}
    ) async throws(Failure) {
        let answers = Mailbox<Answer>()
        let stream = names.workQueueStream
        var source = submissions.makeIterator()
        var failure: Failure?
        await withDiscardingTaskGroup { group in
            var answeredAt = ContinuousClock.now
            var inFlight = 0
            // Those among them that were sent once: they are answered, or given up, within seconds.
            var fresh = 0
            var isExhausted = false
            while true {
                while inFlight < window, !isExhausted {
                    switch source.next() {
                    case .success(let submission):
                        inFlight += 1
                        fresh += 1
                        send(submission) { answers.sendOutcome(Self.answer(submission, $0, in: stream)) }
                    case .failure(let error):
                        failure = error
                        isExhausted = true
                    case nil: isExhausted = true
                    }
                }
                guard inFlight > 0 else { break }
                // A thread that wakes for every answer would take longer than the answers do.
                let batch = await answers.receive(atLeast: max(1, min(fresh, window / 8)))
                for answer in batch {
                    switch answer {
                    case .known(let submission, let outcome, let isFirst):
                        inFlight -= 1
                        if isFirst { fresh -= 1 }
                        if case .unknown = outcome {} else { answeredAt = .now }
                        report(submission, outcome)
                    case .toBeChecked(let submission, let acknowledged):
                        fresh -= 1
                        group.addTask {
                            let outcome = await outcome(of: submission, acknowledged)
                            answers.sendOutcome(.known(submission, outcome, isFirst: false))
                        }
                    case .toBeSentAgain(let submission):
                        fresh -= 1
                        let until = answeredAt + patience
                        group.addTask {
                            let outcome = await submit(submission, until: until)
                            answers.sendOutcome(.known(submission, outcome, isFirst: false))
                        }
                    }
                }
                afterBatch()
            }
        }
        if let failure { throw failure }
    }

    private static func messageID(_ submission: Submission) -> String { "sub:\(submission.id)" }

    /// The first try, which keeps the order: later tries overtake and are overtaken.
    private func send(_ submission: Submission, completion: @escaping @Sendable (PublishOutcome) -> Void) {
        jetStream.publish(
            submission.bytes,
            to: names.enqueueSubject,
            messageID: Self.messageID(submission),
            completion: completion
        )
    }

    private func resend(_ submission: Submission, until: ContinuousClock.Instant) async -> PublishOutcome {
        await jetStream.publishUntilDefinite(
            submission.bytes,
            to: names.enqueueSubject,
            messageID: Self.messageID(submission),
            until: until
        )
    }

    /// An answer to a first try, most of which need nothing more, or to what followed.
    private enum Answer: Sendable {
        case known(Submission, SubmissionOutcome, isFirst: Bool)
        case toBeChecked(Submission, PublishOutcome)
        case toBeSentAgain(Submission)
    }

    private static func answer(_ submission: Submission, _ outcome: PublishOutcome, in stream: String) -> Answer {
        switch outcome {
        case .unknown: .toBeSentAgain(submission)
        case .refused(let error): .known(submission, refusal(error), isFirst: true)
        case .stored(let ack) where !ack.isDuplicate && ack.stream == stream:
            .known(submission, .stored(sequence: ack.sequence, isDuplicate: false), isFirst: true)
        case .stored: .toBeChecked(submission, outcome)
        }
    }

    private func outcome(of submission: Submission, _ answer: PublishOutcome) async -> SubmissionOutcome {
        switch answer {
        case .unknown(let error): .unknown(error)
        case .refused(let error): Self.refusal(error)
        case .stored(let ack) where ack.stream != names.workQueueStream:
            .refused(
                "the stream \(ack.stream) took it, not \(names.workQueueStream): the server holds streams of another "
                    + "layout, or this program's STREAM_WQ is not the pool's"
            )
        case .stored(let ack) where ack.isDuplicate: await verdict(onDuplicate: submission, ack)
        case .stored(let ack): .stored(sequence: ack.sequence, isDuplicate: false)
        }
    }

    /// The server tells duplicates by their id alone: whether the content is the same too is seen in what it holds.
    private func verdict(onDuplicate submission: Submission, _ ack: PublishAck) async -> SubmissionOutcome {
        let same = SubmissionOutcome.stored(sequence: ack.sequence, isDuplicate: true)
        do {
            let stream = names.workQueueStream
            if let first = try await jetStream.message(stream: stream, sequence: ack.sequence) {
                return first.payload == submission.bytes ? same : .conflict
            }
            let record = try await RecordStore(jetStream, names: names).read(submission.id)?.record
            // A record without a submission was made by a cancel that came first.
            guard let record, !record.submission.isEmpty else { return same }
            return record.submission == submission.bytes ? same : .conflict
        } catch {
            // The promise stands without the check: the stream holds a job of this id.
            return same
        }
    }

    private static func refusal(_ error: JetStreamAPIError) -> SubmissionOutcome {
        // 10077: most messages or bytes, 10023: no room, 10122 and 10047: out of storage.
        guard [10077, 10023, 10122, 10047].contains(error.errorCode) else { return .refused(error.description) }
        return .full("the queue is full (\(error)); submit it again when jobs have ended")
    }
}
