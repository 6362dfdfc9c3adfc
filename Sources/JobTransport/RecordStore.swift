import JobModel
import NATSClient

/// A record as the stream holds it, with the server's time.
package struct StoredRecord: Sendable {
    package let record: JobRecord
    package let sequence: UInt64
    /// Nanoseconds since 1970 by the server's clock.
    package let timestamp: Int64

    package init(_ message: StoredMessage) throws(MalformedMessage) {
        record = try JobRecord(parsing: message.payload)
        sequence = message.sequence
        timestamp = message.timestamp
    }
}

/// What became of a write of a record.
package enum RecordWriteOutcome: Sendable {
    case stored(sequence: UInt64)
    /// Another revision stands there; nil when there is none.
    case conflict(StoredRecord?)
    /// Refused for another reason; nothing was stored.
    case refused(String)
    /// The deadline came before the answer: the write may be stored, or may yet be.
    case unknown(NATSError)
}

/// The records of the jobs in ORG_JOBS.
package struct RecordStore: Sendable {
    private let jetStream: JetStream
    private let names: PoolNames

    package init(_ jetStream: JetStream, names: PoolNames) {
        self.jetStream = jetStream
        self.names = names
    }

    /// The record of a job by the answer of the stream's leader; nil if there is none.
    /// - Throws: ``JetStreamError``, or ``MalformedMessage`` when what stands there is not a record.
    package func read(_ job: JobID) async throws -> StoredRecord? {
        let message = try await jetStream.lastMessage(stream: names.jobsStream, subject: names.state(job))
        return try message.map { message throws(MalformedMessage) in try StoredRecord(message) }
    }

    /// The record that stands at a sequence; nil if there is none, or another revision has taken its place.
    /// - Throws: like ``read(_:)``.
    package func read(sequence: UInt64) async throws -> StoredRecord? {
        let message = try await jetStream.message(stream: names.jobsStream, sequence: sequence)
        return try message.map { message throws(MalformedMessage) in try StoredRecord(message) }
    }

    /// The sequence of the newest revision of all; 0 when there is no record.
    package func lastSequence() async throws(JetStreamError) -> UInt64 {
        try await jetStream.lastMessage(stream: names.jobsStream, subject: ">")?.sequence ?? 0
    }

    /// Sends a write without waiting for its answer: writes reach the server in the order of these calls, and their
    /// answers come back in that order. What is not settled by its first answer goes on with ``write(_:expected:after:until:)``.
    ///
    /// - Parameter completion: called exactly once, on a thread that must not be blocked; possibly before this returns.
    package func send(
        _ write: EncodedRecord,
        expected: UInt64,
        completion: @escaping @Sendable (PublishOutcome) -> Void
    ) {
        jetStream.publish(
            write.bytes,
            to: names.state(write.record.id),
            expectedLastSubjectSequence: expected,
            completion: completion
        )
    }

    /// Stores a revision if the record stands at `expected` (0: if there is none), and goes on until it knows.
    /// - Parameters:
    ///   - first: what the write came to when it was already sent once.
    ///   - until: when to give up; the outcome is unknown then.
    package func write(
        _ record: JobRecord,
        expected: UInt64,
        after first: PublishOutcome? = nil,
        until: ContinuousClock.Instant
    ) async -> RecordWriteOutcome {
        let op = record.op
        let outcome = await jetStream.compareAndSet(
            record.encoded(),
            to: names.state(record.id),
            stream: names.jobsStream,
            expected: expected,
            isOurs: { message in Self.mark(of: message) == op },
            after: first,
            until: until
        )
        return Self.outcome(outcome)
    }

    private static func outcome(_ outcome: CompareAndSetOutcome) -> RecordWriteOutcome {
        switch outcome {
        case .stored(let sequence): return .stored(sequence: sequence)
        case .refused(let error): return .refused(error.description)
        case .unknown(let error): return .unknown(error)
        case .conflict(nil): return .conflict(nil)
        case .conflict(let message?):
            do {
                return .conflict(try StoredRecord(message))
            } catch {
                return .refused("what stands in the record's place is \(error)")
            }
        }
    }

    /// The same for who holds an attempt: nothing is sent a second time unless the record still stands at `expected` as
    /// this attempt's.
    package func write(
        _ record: JobRecord,
        expected: UInt64,
        holding attempt: AttemptID,
        until: ContinuousClock.Instant
    ) async -> RecordWriteOutcome {
        let op = record.op
        let outcome = await jetStream.compareAndSet(
            record.encoded(),
            to: names.state(record.id),
            stream: names.jobsStream,
            expected: expected,
            isOurs: { message in Self.mark(of: message) == op },
            isBase: { message in Self.attempt(of: message) == attempt },
            until: until
        )
        return Self.outcome(outcome)
    }

    /// The mark of the write that made a revision; nil for what is not a record, which is nobody's.
    private static func mark(of message: StoredMessage) -> OperationID? {
        do {
            return try JobRecord(parsing: message.payload).op
        } catch {
            return nil
        }
    }

    /// The attempt that a revision names; nil for what is not a record.
    private static func attempt(of message: StoredMessage) -> AttemptID? {
        do {
            return try JobRecord(parsing: message.payload).attempt
        } catch {
            return nil
        }
    }
}
