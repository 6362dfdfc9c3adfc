import JobModel
import Synchronization

/// A record and the bytes that it is stored as.
package struct EncodedRecord: Sendable {
    package let record: JobRecord
    package let bytes: [UInt8]

    package init(_ record: JobRecord) {
        self.record = record
        bytes = record.encoded()
    }
}

/// Writes whose echo is still to come: who follows the stream of records gets its own revisions back, and knows them by
/// their bytes without reading them.
///
/// What is kept ends with the echo, with a later revision of the job, or when its write is given up. Where none of these
/// comes (the record was removed before its echo was delivered), the limit bounds what stays.
package final class RecordEchoes: Sendable {
    private struct Sent {
        let write: EncodedRecord
        /// Where the record stood that this write was made from.
        let expected: UInt64
    }

    private struct State {
        /// One for each job: it has one write under way.
        var sent: [JobID: Sent] = [:]
        var size = 0

        mutating func remove(_ job: JobID) {
            if let old = sent.removeValue(forKey: job) { size -= old.write.bytes.count }
        }
    }

    private let limit: Int
    private let state = Mutex(State())

    /// - Parameter limit: how many bytes of stored records are kept; a write that does not fit is read like anybody's when
    ///   it comes back.
    package init(limit: Int = 16 << 20) { self.limit = limit }

    /// How many are kept.
    package var count: Int { state.withLock { $0.sent.count } }

    /// A write is about to be sent; it takes the place of an earlier one of its job.
    package func expect(_ write: EncodedRecord, after expected: UInt64) {
        state.withLock { state in
            state.remove(write.record.id)
            guard state.size + write.bytes.count <= limit else { return }
            state.sent[write.record.id] = Sent(write: write, expected: expected)
            state.size += write.bytes.count
        }
    }

    /// The write was not stored, and will not be.
    package func forget(_ record: JobRecord) {
        state.withLock { state in
            if state.sent[record.id]?.write.record.op == record.op { state.remove(record.id) }
        }
    }

    /// The record of a revision that the stream delivers, if it is the one that was sent; nil when it has to be read.
    package func take(_ bytes: [UInt8], of job: JobID, at sequence: UInt64) -> JobRecord? {
        state.withLock { state in
            guard let sent = state.sent[job] else { return nil }
            let isEcho = sent.write.bytes == bytes
            // A later revision stands where this write would, or has replaced it before it was delivered.
            if isEcho || sequence > sent.expected { state.remove(job) }
            return isEcho ? sent.write.record : nil
        }
    }
}
