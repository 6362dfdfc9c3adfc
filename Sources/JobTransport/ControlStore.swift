import JobModel
import NATSClient

/// A record of ORG_CTL that is moved by compare-and-set and marked with the operation that wrote it.
package protocol ControlRecord: Sendable {
    var op: OperationID { get }
    func encoded() -> [UInt8]
    init(parsing bytes: [UInt8]) throws(MalformedMessage)
}

extension LeaderLease: ControlRecord {}
extension WorkerRegistration: ControlRecord {}
extension CardControl: ControlRecord {}

/// The leader lease, the worker registrations and the control records of the cards in ORG_CTL.
package struct ControlStore: Sendable {
    package struct Stored<Record: ControlRecord>: Sendable {
        package let record: Record
        package let sequence: UInt64
        /// Nanoseconds since 1970 by the server's clock.
        package let timestamp: Int64

        package init(_ message: StoredMessage) throws(MalformedMessage) {
            record = try Record(parsing: message.payload)
            sequence = message.sequence
            timestamp = message.timestamp
        }
    }

    package enum Outcome<Record: ControlRecord>: Sendable {
        case stored(sequence: UInt64)
        case conflict(Stored<Record>?)
        /// Refused, or unknown at the deadline: why.
        case failed(String)
    }

    private let jetStream: JetStream
    private let stream: String

    package init(_ jetStream: JetStream, names: PoolNames) {
        self.jetStream = jetStream
        stream = names.controlStream
    }

    /// The record at a subject; nil if there is none.
    /// - Throws: ``JetStreamError``, or ``MalformedMessage``.
    package func read<Record: ControlRecord>(
        _ subject: String,
        as type: Record.Type = Record.self
    ) async throws -> Stored<Record>? {
        let message = try await jetStream.lastMessage(stream: stream, subject: subject)
        return try message.map { message throws(MalformedMessage) in try Stored(message) }
    }

    /// Stores a record if its subject stands at `expected` (0: if there is none), and goes on until it knows or the
    /// deadline has passed.
    package func write<Record: ControlRecord>(
        _ record: Record,
        to subject: String,
        expected: UInt64,
        until: ContinuousClock.Instant
    ) async -> Outcome<Record> {
        let op = record.op
        let outcome = await jetStream.compareAndSet(
            record.encoded(),
            to: subject,
            stream: stream,
            expected: expected,
            isOurs: { message in
                do {
                    return try Record(parsing: message.payload).op == op
                } catch {
                    // What is not such a record was not written by us.
                    return false
                }
            },
            until: until
        )
        switch outcome {
        case .stored(let sequence): return .stored(sequence: sequence)
        case .conflict(nil): return .conflict(nil)
        case .conflict(let message?):
            do {
                return .conflict(try Stored(message))
            } catch {
                return .failed("what stands at \(subject) is \(error)")
            }
        case .refused(let error): return .failed(error.description)
        case .unknown(let error): return .failed(error.description)
        }
    }
}
