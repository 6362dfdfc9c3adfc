import Glibc
import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// What a command hears while it follows jobs.
enum FollowUpdate: Sendable {
    /// A revision of a job's record, newer than any that was told before.
    case record(StoredRecord)
    /// A piece of a followed job's output.
    case output(LogChunk)
    /// There is no such job, and no submission is waiting that could be it.
    case unknown(JobID)
    /// Something that a person may want to know; told once.
    case trouble(String)
}

/// How following ended.
enum FollowEnd: Sendable, Equatable {
    /// Every job has ended, or does not exist.
    case complete
    /// The deadline passed before these ended.
    case deadline([JobID])
    /// Somebody pressed Ctrl-C.
    case interrupted([JobID])
}

/// Follows jobs to their end: any number of them with one consumer.
///
/// The consumer tells only what happens from now on. Once it stands, and again whenever it had to be made anew, the
/// records of all jobs that have not ended are read; so nothing is missed, and a pool of a million records costs no
/// more than a small one.
struct JobFollow {
    private enum Event: Sendable {
        case change(StoredMessage)
        case standing
        case read(JobID, StoredRecord?)
        case readsEnded(missing: [JobID])
        case absent([JobID])
        case output(StoredMessage)
        case outputEnd(UInt64)
        case lookAgain
        case trouble(String)
        case deadline
        case signal
        case cancelled
    }

    private let client: PoolClient
    private let jobs: [JobID]
    private let showsOutput: Bool
    private let mailbox = Mailbox<Event>()

    private var waiting: Set<JobID>
    private var sequences: [JobID: UInt64] = [:]
    private var outputPlaces: [OutputPlace: UInt64] = [:]
    private var outputSequence: UInt64 = 0
    /// The sequence of the last piece of output of a job that has ended; nil while it runs.
    private var outputEnd: UInt64?
    private var seeksOutputEnd = false
    private var output: OrderedConsumer?
    private var troubles: Set<String> = []

    private struct OutputPlace: Hashable {
        let attempt: AttemptID
        let stream: LogChunk.Stream
    }

    /// - Parameter showsOutput: follow the output too; for one job.
    init(_ client: PoolClient, _ jobs: [JobID], showsOutput: Bool = false) {
        self.client = client
        var seen: Set<JobID> = []
        self.jobs = jobs.filter { seen.insert($0).inserted }
        self.showsOutput = showsOutput && self.jobs.count == 1
        waiting = seen
    }

    /// Follows until all jobs have ended.
    /// - Parameters:
    ///   - deadline: how long at most; nil is for ever.
    ///   - catchesInterrupts: whether Ctrl-C ends the wait instead of the program.
    mutating func run(
        deadline: Duration? = nil,
        catchesInterrupts: Bool = true,
        _ update: (FollowUpdate) throws -> Void
    ) async throws -> FollowEnd {
        let mailbox = mailbox
        let subject = jobs.count == 1 ? client.names.state(jobs[0]) : client.names.statePrefix + ".*"
        let records = try consumer(client.names.jobsStream, subject, .new, wanted: Set(jobs.map(client.names.state)))
        let timer = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.deadline) }
        let pause = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.lookAgain) }
        timer.arm(after: deadline)
        defer {
            records.close()
            output?.close()
            timer.cancel()
            pause.cancel()
        }
        return try await withTaskCancellationHandler {
            try await listen(catchesInterrupts: catchesInterrupts, pause, update)
        } onCancel: {
            mailbox.sendOutcome(.cancelled)
        }
    }

    private mutating func listen(
        catchesInterrupts: Bool,
        _ pause: DeadlineTimer,
        _ update: (FollowUpdate) throws -> Void
    ) async throws -> FollowEnd {
        let mailbox = mailbox
        return try await withThrowingTaskGroup { group in
            defer { group.cancelAll() }
            if catchesInterrupts {
                group.addTask { for await _ in Interrupts.stream() { mailbox.sendOutcome(.signal) } }
            }
            while true {
                if isComplete { return .complete }
                for event in await mailbox.receive() {
                    switch event {
                    case .cancelled: throw CancellationError()
                    case .deadline: return .deadline(remaining)
                    case .signal: return .interrupted(remaining)
                    case .standing, .lookAgain:
                        let reading = remaining
                        group.addTask { [client] in await Self.read(reading, client, into: mailbox) }
                    case .readsEnded(let missing):
                        guard !missing.isEmpty else { break }
                        let isNothingAdmitted = sequences.isEmpty
                        group.addTask { [client] in
                            await Self.look(
                                for: missing,
                                isNothingAdmitted: isNothingAdmitted,
                                client,
                                into: mailbox,
                                pause
                            )
                        }
                    case .change(let message): try note(message, update)
                    case .read(_, let record?): try note(record, update)
                    case .read(_, nil): break
                    case .absent(let jobs):
                        for job in jobs where sequences[job] == nil && waiting.remove(job) != nil {
                            try update(.unknown(job))
                        }
                    case .output(let message): try note(output: message, update)
                    case .outputEnd(let sequence): outputEnd = sequence
                    case .trouble(let text):
                        if troubles.insert(text).inserted { try update(.trouble(text)) }
                    }
                }
                // Not before: what a job prints comes after what it is.
                if showsOutput, output == nil, !sequences.isEmpty { output = try outputConsumer() }
                if showsOutput, waiting.isEmpty, !seeksOutputEnd, sequences[jobs[0]] != nil {
                    seeksOutputEnd = true
                    group.addTask { [client, jobs] in await Self.findOutputEnd(jobs[0], client, into: mailbox) }
                }
            }
        }
    }

    private var remaining: [JobID] { jobs.filter(waiting.contains) }

    private var isComplete: Bool {
        guard waiting.isEmpty else { return false }
        guard showsOutput, sequences[jobs[0]] != nil else { return true }
        return outputEnd.map { outputSequence >= $0 } ?? false
    }

    // MARK: what arrives

    private mutating func note(_ message: StoredMessage, _ update: (FollowUpdate) throws -> Void) throws {
        do {
            try note(StoredRecord(message), update)
        } catch let error as MalformedMessage {
            try update(.trouble("what stands at \(message.subject) is \(error)"))
        }
    }

    private mutating func note(_ stored: StoredRecord, _ update: (FollowUpdate) throws -> Void) throws {
        let id = stored.record.id
        guard waiting.contains(id), stored.sequence > sequences[id] ?? 0 else { return }
        sequences[id] = stored.sequence
        if stored.record.state.isTerminal { waiting.remove(id) }
        try update(.record(stored))
    }

    private mutating func note(output message: StoredMessage, _ update: (FollowUpdate) throws -> Void) throws {
        outputSequence = max(outputSequence, message.sequence)
        do {
            let chunk = try LogChunk(parsing: message.payload)
            // A piece whose ack was lost was sent twice.
            let place = OutputPlace(attempt: chunk.attempt, stream: chunk.stream)
            if let last = outputPlaces[place], chunk.offset <= last, !chunk.isLast { return }
            outputPlaces[place] = chunk.offset
            try update(.output(chunk))
        } catch let error as MalformedMessage {
            try update(.trouble("a piece of output is \(error)"))
        }
    }

    // MARK: where it comes from

    private func consumer(
        _ stream: String,
        _ subject: String,
        _ policy: DeliverPolicy,
        wanted: Set<String>
    ) throws -> OrderedConsumer {
        var options = OrderedConsumer.Options()
        options.deliverPolicy = policy
        options.filterSubject = subject
        let mailbox = mailbox
        return try OrderedConsumer(client.jetStream, stream: stream, options: options) { event in
            switch event {
            case .message(let message, _):
                if wanted.contains(message.subject) { mailbox.sendOutcome(.change(message)) }
            case .caughtUp: mailbox.sendOutcome(.standing)
            case .recreated: break
            case .failed(let error): mailbox.sendOutcome(.trouble(PoolClient.failure(error, stream).message))
            }
        }
    }

    private func outputConsumer() throws -> OrderedConsumer {
        var options = OrderedConsumer.Options()
        options.deliverPolicy = .all
        options.filterSubject = client.names.log(jobs[0])
        let mailbox = mailbox
        return try OrderedConsumer(client.jetStream, stream: client.names.logsStream, options: options) { event in
            switch event {
            // The bus holds a bounded number of pieces of each job.
            case .message(let message, _): mailbox.sendOutcome(.output(message))
            case .caughtUp, .recreated: break
            case .failed(let error): mailbox.sendOutcome(.trouble(PoolClient.failure(error, "the output").message))
            }
        }
    }

    /// Reads the records of jobs, some at a time.
    private static func read(_ jobs: [JobID], _ client: PoolClient, into mailbox: Mailbox<Event>) async {
        var missing: [JobID] = []
        await RecordReads.run(jobs, client) { reading in
            let job = reading.job
            switch reading.result {
            case .success(let record):
                if record == nil { missing.append(job) }
                mailbox.sendOutcome(.read(job, record))
            case .failure(let error):
                // When the connection is back, the consumer stands again, and everything is read again.
                mailbox.sendOutcome(.trouble(PoolClient.failure(error, "the record of \(job)").message))
            }
        }
        mailbox.sendOutcome(.readsEnded(missing: missing))
    }

    /// Finds out whether jobs without a record may still get one: only while submissions wait to be admitted.
    private static func look(
        for missing: [JobID],
        isNothingAdmitted: Bool,
        _ client: PoolClient,
        into mailbox: Mailbox<Event>,
        _ pause: DeadlineTimer
    ) async {
        do {
            let queue = try await client.jetStream.streamInfo(client.names.workQueueStream)
            guard queue.messages == 0 else {
                if isNothingAdmitted {
                    let what = missing.count == 1 ? "\(missing[0]) is not" : "none of the \(missing.count) jobs is"
                    mailbox.sendOutcome(.trouble("\(what) admitted yet: submissions wait for a maestro to take them"))
                }
                // That a submission is refused leaves no trace in the records: nothing tells when to look again.
                return pause.arm(after: .seconds(2))
            }
            var absent: [JobID] = []
            for job in missing {
                if let record = try await client.records.read(job) {
                    mailbox.sendOutcome(.read(job, record))
                } else {
                    absent.append(job)
                }
            }
            mailbox.sendOutcome(.absent(absent))
        } catch {
            mailbox.sendOutcome(.trouble(PoolClient.failure(error, "the queue").message))
            pause.arm(after: .seconds(2))
        }
    }

    /// The output of an ended job is complete on the bus: its last piece tells where it ends.
    private static func findOutputEnd(_ job: JobID, _ client: PoolClient, into mailbox: Mailbox<Event>) async {
        do {
            let last = try await client.jetStream.lastMessage(
                stream: client.names.logsStream,
                subject: client.names.log(job)
            )
            mailbox.sendOutcome(.outputEnd(last?.sequence ?? 0))
        } catch {
            mailbox.sendOutcome(.trouble(PoolClient.failure(error, "the output").message))
            mailbox.sendOutcome(.outputEnd(0))
        }
    }
}
