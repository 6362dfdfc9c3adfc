import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// Carries a ``StreamMigration`` out. Killed at any moment it leaves every job in some stream, and the next run goes on:
/// a message is removed only when what replaces it is stored.
struct Migrator: Sendable {
    let client: PoolClient
    let unpin: Bool

    /// What was done.
    struct Summary: Sendable {
        var records = 0
        var resubmitted = 0
        var refreshed = 0
        /// Dispatched attempts whose jobs had ended.
        var ended = 0
        /// Jobs that had not ended, and whose tasks are nowhere.
        var lost: [JobID] = []
    }

    /// The last word of an older scheduler on a job.
    private struct OldState {
        let isTerminal: Bool
        let timestamp: Int64
    }

    private static let patience = Duration.seconds(30)
    private var names: PoolNames { client.names }
    private var jetStream: JetStream { client.jetStream }

    // MARK: looking

    func look() async throws -> StreamMigration.Facts {
        var facts = StreamMigration.Facts()
        facts.events = try await StreamsCommand.info(names.eventsStream, client)
        facts.workQueue = try await StreamsCommand.info(names.workQueueStream, client)
        if facts.events != nil {
            let held = try await jetStream.subjects(of: names.eventsStream, matching: names.statePrefix + ".*")
            facts.states = held.keys.sorted()
        }
        guard facts.workQueue != nil else { return facts }
        facts.consumers = try await jetStream.consumers(stream: names.workQueueStream)
        facts.dispatched = try await jetStream.subjects(of: names.workQueueStream, matching: ">")
        facts.dispatched[names.enqueueSubject] = nil
        if let first = try await submission(from: 1) {
            facts.oldestSubmission = WallClock.now() - Double(first.timestamp) / 1e9
        }
        return facts
    }

    private func submission(from sequence: UInt64) async throws -> StoredMessage? {
        try await jetStream.nextMessage(stream: names.workQueueStream, subject: names.enqueueSubject, from: sequence)
    }

    // MARK: doing

    func carryOut(_ migration: StreamMigration, _ facts: StreamMigration.Facts) async throws -> Summary {
        var summary = Summary()
        var old: [JobID: OldState] = [:]
        for step in migration.steps {
            switch step {
            case .reshape(let stream, _, _): try await reshape(stream)
            case .carryRecords: old = try await carryRecords(facts.states, &summary)
            case .removeConsumer(let stream, let name):
                _ = try await jetStream.deleteConsumer(stream: stream, name)
            case .resubmitRuns: try await resubmitRuns(old, &summary)
            case .refreshSubmissions: try await refresh(&summary)
            case .forgetStates:
                summary.lost = try await withoutTask(old)
                guard summary.lost.isEmpty else { break }
                try await jetStream.purge(stream: names.eventsStream, subject: names.statePrefix + ".*")
            }
        }
        return summary
    }

    private func reshape(_ stream: String) async throws {
        let layout = PoolStreams(names: names, limits: .standard)
        let info = try await jetStream.streamInfo(stream)
        _ = try await jetStream.updateStream(layout.reshaped(info))
    }

    /// Copies the last state of each job to ORG_JOBS if it is a record; what is none tells whether its job had ended.
    private func carryRecords(_ subjects: [String], _ summary: inout Summary) async throws -> [JobID: OldState] {
        var old: [JobID: OldState] = [:]
        for subject in subjects {
            let last = try await jetStream.lastMessage(stream: names.eventsStream, subject: subject)
            guard let last, let job = names.job(from: subject) else { continue }
            if let record = try? JobRecord(parsing: last.payload), record.id == job {
                if summary.records == 0 { try await ensureRecords() }
                try await store(last.payload, to: subject, expected: 0)
                summary.records += 1
            } else {
                let word = (try? JSON(parsing: last.payload))?["state"]?.stringValue ?? ""
                old[job] = OldState(
                    isTerminal: JobState(rawValue: word)?.isTerminal ?? false,
                    timestamp: last.timestamp
                )
            }
        }
        return old
    }

    private func ensureRecords() async throws {
        let replicas = try await jetStream.streamInfo(names.eventsStream).config["num_replicas"]?.intValue ?? 1
        var limits = StreamLimits.standard
        limits.replicas = Int(replicas)
        try await PoolStreams(names: names, limits: limits).ensureRecords(jetStream)
    }

    private func resubmitRuns(_ old: [JobID: OldState], _ summary: inout Summary) async throws {
        let stream = names.workQueueStream
        var next: UInt64 = 1
        while let run = try await jetStream.nextMessage(stream: stream, subject: names.runPrefix + ".*", from: next) {
            next = run.sequence + 1
            switch DispatchedTask(run, names: names, unpin: unpin) {
            case .record(let record):
                try await ensureRecords()
                try await store(record.encoded(), to: names.state(record.id), expected: 0)
                summary.records += 1
            case .task(let id?, _) where old[id].map({ $0.isTerminal && $0.timestamp > run.timestamp }) == true:
                summary.ended += 1
            case .task(_, let bytes):
                try await resubmit(bytes, of: run)
                summary.resubmitted += 1
            }
            _ = try await jetStream.deleteMessage(stream: stream, sequence: run.sequence)
        }
    }

    /// Stores the submissions again in their order, each as it was.
    private func refresh(_ summary: inout Summary) async throws {
        let end = try await jetStream.streamInfo(names.workQueueStream).lastSequence
        var next: UInt64 = 1
        while let message = try await submission(from: next), message.sequence <= end {
            next = message.sequence + 1
            guard case .task(_, let bytes) = DispatchedTask(message, names: names, unpin: false) else { continue }
            try await resubmit(bytes, of: message)
            summary.refreshed += 1
            _ = try await jetStream.deleteMessage(stream: names.workQueueStream, sequence: message.sequence)
        }
    }

    /// - Parameter message: what it was before. Not `sub:<id>` tells repetitions: the server may know that one from a
    ///   submission that was taken long ago, and would store nothing.
    private func resubmit(_ bytes: [UInt8], of message: StoredMessage) async throws {
        let id = "migrate:\(message.sequence):\(message.timestamp)"
        try await store(bytes, to: names.enqueueSubject, messageID: id)
    }

    /// Returns when it is stored, or was before.
    private func store(
        _ payload: [UInt8],
        to subject: String,
        messageID: String? = nil,
        expected: UInt64? = nil
    ) async throws {
        let outcome = await jetStream.publishUntilDefinite(
            payload,
            to: subject,
            messageID: messageID,
            expectedLastSubjectSequence: expected,
            until: .now + Self.patience
        )
        switch outcome {
        case .stored: return
        case .refused(let error) where expected != nil && error.isWrongLastSequence: return
        case .refused(let error):
            throw FatalError(.deadline, "\(subject): \(error); nothing is lost, run it again when that is put right")
        case .unknown(let error): throw FatalError(.unavailable, "\(subject): \(error); nothing is lost, run it again")
        }
    }

    // MARK: what is left

    /// Submissions that are looked through for the tasks of jobs that the older scheduler knew.
    private static let searchLimit: UInt64 = 100_000

    /// Jobs that had not ended, and whose tasks no stream holds.
    private func withoutTask(_ old: [JobID: OldState]) async throws -> [JobID] {
        var open = Set(old.filter { !$0.value.isTerminal }.keys)
        guard !open.isEmpty, let queue = try await StreamsCommand.info(names.workQueueStream, client),
            queue.messages <= Self.searchLimit
        else { return [] }
        var next: UInt64 = 1
        while !open.isEmpty, let message = try await submission(from: next) {
            next = message.sequence + 1
            if let id = (try? JSON(parsing: message.payload))?["task_id"]?.stringValue.flatMap({ JobID($0) }) {
                open.remove(id)
            }
        }
        return open.sorted()
    }
}
