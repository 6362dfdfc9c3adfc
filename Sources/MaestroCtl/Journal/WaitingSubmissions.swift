import JobModel
import JobTransport
import NATSClient
import WireJSON

/// The submissions that wait in ORG_WQ for a maestro to admit them.
enum WaitingSubmissions {
    /// More than this are not looked through.
    static let most: UInt64 = 20_000

    /// The ids of those that wait; nil when there are too many to look through.
    ///
    /// A work queue gives its messages to one consumer alone, so they are read one by one, in several places at once.
    static func ids(_ client: PoolClient) async throws -> Set<JobID>? {
        let queue = try await client.jetStream.streamInfo(client.names.workQueueStream)
        guard queue.messages > 0 else { return [] }
        guard queue.messages <= most else { return nil }
        let width = (queue.lastSequence - queue.firstSequence) / 16 + 1
        return try await withThrowingTaskGroup(of: Set<JobID>.self) { group in
            var start = queue.firstSequence
            while start <= queue.lastSequence {
                let range = start..<(start + width)
                group.addTask { try await ids(in: range, client) }
                start += width
            }
            return try await group.reduce(into: []) { $0.formUnion($1) }
        }
    }

    private static func ids(in range: Range<UInt64>, _ client: PoolClient) async throws -> Set<JobID> {
        var found: Set<JobID> = []
        var next = range.lowerBound
        while let message = try await client.jetStream.nextMessage(
            stream: client.names.workQueueStream,
            subject: client.names.enqueueSubject,
            from: next
        ), range.contains(message.sequence) {
            if let job = job(in: message.payload) { found.insert(job) }
            next = message.sequence + 1
        }
        return found
    }

    private static func job(in payload: [UInt8]) -> JobID? {
        do {
            return try JSON(parsing: payload)["task_id"]?.stringValue.flatMap { JobID($0) }
        } catch {
            // Whatever it is, it is no submission that was journalled.
            return nil
        }
    }
}
