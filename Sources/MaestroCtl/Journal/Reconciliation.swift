import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// Compares what was submitted from here with what the pool knows, and submits again what it does not know.
struct Reconciliation: Sendable {
    let client: PoolClient
    let journal: SubmissionJournal

    /// What the pool knows of a submission.
    enum Fate: Sendable, Equatable {
        case ended(JobState)
        case alive(JobState)
        /// It waits to be admitted.
        case queued
        /// The id belongs to a job with other content.
        case conflict
        /// Its record is there and cannot be read.
        case unreadable(String)
        /// A read proved that there is no record of it.
        case unknown
    }

    /// What was done about a submission.
    enum Action: Sendable, Equatable {
        case none(Fate)
        case resubmitted
        /// The server had it already.
        case known
        /// Older than ids are remembered: whether it ran can no longer be told.
        case tooOld
        case refused(String)
        /// No answer: it may be stored now, and stays in the journal.
        case unanswered(String)
        /// What would be done, had it not been left out.
        case wouldResubmit
    }

    struct Step: Sendable, Equatable {
        let entry: JournalEntry
        let action: Action
    }

    /// Above this many the whole stream of records is read instead of single ones.
    private static let mostReads = 2000

    /// The fate of each submission, in their order.
    func look(at entries: [JournalEntry]) async throws(FatalError) -> [Fate] {
        let wanted = Dictionary(entries.map { ($0.submission.id, $0.submission) }) { first, _ in first }
        var records: [JobID: Result<StoredRecord?, any Error>] = [:]
        do {
            if wanted.count > Self.mostReads {
                try await replay(wanted) { records[$0] = $1 }
            }
            // That a record is absent is proven only by a read.
            await RecordReads.run(wanted.keys.filter { records[$0] == nil }, client) { reading in
                records[reading.job] = reading.result
            }
            var fates = try entries.map { try Self.fate(of: $0.submission, records[$0.submission.id]) }
            if fates.contains(.unknown), let waiting = try await WaitingSubmissions.ids(client) {
                for index in fates.indices where fates[index] == .unknown {
                    if waiting.contains(entries[index].submission.id) { fates[index] = .queued }
                }
            }
            return fates
        } catch {
            throw PoolClient.failure(error, "the records")
        }
    }

    private func replay(
        _ wanted: [JobID: Submission],
        _ take: (JobID, Result<StoredRecord?, any Error>) -> Void
    ) async throws {
        try await Replay.records(client, what: "the jobs") { message in
            guard let job = client.names.job(from: message.subject), wanted[job] != nil else { return }
            take(job, Result { try StoredRecord(message) })
        }
    }

    private static func fate(
        of submission: Submission,
        _ found: Result<StoredRecord?, any Error>?
    ) throws -> Fate {
        do {
            guard let record = try found?.get()?.record else { return .unknown }
            // A record without a task is a refusal, or a cancel that came first: either way the job's end.
            guard record.submission.isEmpty || record.submission == submission.bytes else { return .conflict }
            return record.state.isTerminal ? .ended(record.state) : .alive(record.state)
        } catch let error as MalformedMessage {
            return .unreadable(error.description)
        }
    }

    /// Forgets what has ended.
    func cleanUp() async throws(FatalError) {
        let entries = try journal.read().entries
        let fates = try await look(at: entries)
        let ended = Set(zip(entries, fates).filter { $1.isEnd }.map(\.0.submission))
        try journal.forget { ended.contains($0) }
    }

    /// Looks at everything, submits again what the pool does not know, and forgets what needs no more remembering.
    /// - Parameters:
    ///   - horizon: the age above which an id may have been used and forgotten.
    ///   - isDry: only say what would be done.
    func run(horizon: Duration, now: Double, isDry: Bool = false) async throws(FatalError) -> [Step] {
        let entries = try journal.read().entries
        let fates = try await look(at: entries)
        var actions = zip(entries, fates).map { Self.action(for: $1, age: now - $0.time, horizon: horizon) }
        if !isDry {
            let lost = actions.indices.filter { actions[$0] == .wouldResubmit }
            let answers = try await resubmit(lost.map { entries[$0].submission })
            for index in lost { actions[index] = answers[entries[index].submission] ?? .unanswered("it was not sent") }
            let settled = Set(zip(entries, actions).filter { $1.isSettled }.map(\.0.submission))
            try journal.forget { settled.contains($0) }
        }
        return zip(entries, actions).map { Step(entry: $0, action: $1) }
    }

    static func action(for fate: Fate, age: Double, horizon: Duration) -> Action {
        guard fate == .unknown else { return .none(fate) }
        return max(0, age) > horizon.inSeconds ? .tooOld : .wouldResubmit
    }

    /// Submits the same bytes under the same ids.
    private func resubmit(_ submissions: [Submission]) async throws(FatalError) -> [Submission: Action] {
        var actions: [Submission: Action] = [:]
        let source = submissions.map { Result<Submission, FatalError>.success($0) }
        try await Submitter(client.jetStream, names: client.names)
            .submit(source, patience: .seconds(60)) { actions[$0] = Self.action(for: $1) }
        return actions
    }

    private static func action(for outcome: SubmissionOutcome) -> Action {
        switch outcome {
        case .stored(_, isDuplicate: false): .resubmitted
        case .stored(_, isDuplicate: true): .known
        case .conflict: .none(.conflict)
        case .full(let reason), .refused(let reason): .refused(reason)
        case .unknown(let error): .unanswered("\(error)")
        }
    }
}

extension Reconciliation.Fate {
    /// The submission needs no more remembering.
    var isEnd: Bool {
        switch self {
        case .ended, .conflict: true
        case .alive, .queued, .unreadable, .unknown: false
        }
    }
}

extension Reconciliation.Action {
    /// Nothing more can be done about it: the journal forgets it, once it was told.
    var isSettled: Bool {
        switch self {
        case .none(let fate): fate.isEnd
        case .tooOld: true
        case .resubmitted, .known, .refused, .unanswered, .wouldResubmit: false
        }
    }

    /// Somebody has to look at it.
    var isTrouble: Bool {
        switch self {
        case .none(.conflict), .none(.unreadable), .tooOld, .refused, .unanswered: true
        case .none, .resubmitted, .known, .wouldResubmit: false
        }
    }
}
