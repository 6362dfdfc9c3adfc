import JobModel
import JobTransport
import NATSClient
import WireJSON

/// The run messages against the records: each belongs to an attempt, and each scheduled attempt has one.
enum RunExam {
    /// A message of ORG_RUN.
    struct Message: Sendable {
        let sequence: UInt64
        let timestamp: Int64
        let subject: String
        let payload: [UInt8]
        let run: Result<RunMessage, MalformedMessage>
    }

    struct Facts: Sendable {
        var messages: [Message] = []
        /// The records of their jobs; missing where a read proved that there is none.
        var records: [JobID: StoredRecord] = [:]
        /// Jobs without a record that have a result.
        var results: Set<JobID> = []
        /// Not all messages were looked at.
        var isCut = false
    }

    /// More messages than this are not looked at: a pool has a few for each card.
    private static let most = 20_000

    static func gather(_ client: PoolClient, _ pool: PoolFacts) async throws -> Facts {
        var facts = Facts()
        let names = client.names
        guard pool.streams[names.runStream] != nil else { return facts }
        var next: UInt64 = 1
        // A work queue gives its messages to one consumer alone: they are read one by one.
        while let message = try await client.jetStream.nextMessage(
            stream: names.runStream,
            subject: names.runPrefix + ".*",
            from: next
        ) {
            next = message.sequence + 1
            facts.messages.append(Message(message, enqueueSubject: names.enqueueSubject))
            guard facts.messages.count < most else {
                facts.isCut = true
                break
            }
        }
        try await readRecords(client, &facts)
        return facts
    }

    private static func readRecords(_ client: PoolClient, _ facts: inout Facts) async throws {
        var absent: [JobID] = []
        var failure: (any Error)?
        await RecordReads.run(Set(facts.messages.compactMap(\.job)), client) { reading in
            switch reading.result {
            case .success(let stored?): facts.records[reading.job] = stored
            case .success(nil): absent.append(reading.job)
            // An unreadable record is told where the records are looked at.
            case .failure(let error): if !(error is MalformedMessage) { failure = error }
            }
        }
        if let failure { throw failure }
        for job in absent {
            let subject = client.names.result(job)
            if try await client.jetStream.lastMessage(stream: client.names.eventsStream, subject: subject) != nil {
                facts.results.insert(job)
            }
        }
    }

    // MARK: judging

    /// - Parameter horizon: how long the record of an ended job is kept at least, in seconds.
    static func judge(
        _ facts: Facts,
        _ records: RecordExam.Facts,
        _ pool: PoolFacts,
        horizon: Double,
        now: Double
    ) -> [Finding] {
        let unreadable = Set(records.unreadable.map(\.subject))
        var findings = facts.messages.filter { pool.age($0.timestamp, now: now) > pool.patience }
            .compactMap { judge($0, facts, unreadable, pool, horizon: horizon, now: now) }
        guard !facts.isCut else { return findings }
        let dispatched = Set(facts.messages.compactMap(\.attempt))
        for stored in records.bound where stored.record.state == .scheduled {
            let age = pool.age(stored.timestamp, now: now)
            guard age > pool.claimPatience, let attempt = stored.record.attempt, !dispatched.contains(attempt) else {
                continue
            }
            findings.append(
                Finding(
                    .records,
                    pool.leader == nil ? .warning : .error,
                    "scheduled_without_run",
                    "job \(stored.record.id) is scheduled, and no run message tells its worker",
                    evidence:
                        "for card \(stored.record.gpu?.text ?? "?") since \(Printable.duration(age)), attempt \(attempt)",
                    advice: "take the attempt back: the job goes to the queue again",
                    repair: .takeBack(stored.record.id, attempt: attempt, sequence: stored.sequence)
                )
            )
        }
        return findings
    }

    private static func judge(
        _ message: Message,
        _ facts: Facts,
        _ unreadable: Set<String>,
        _ pool: PoolFacts,
        horizon: Double,
        now: Double
    ) -> Finding? {
        let age = pool.age(message.timestamp, now: now)
        let place = "message \(message.sequence) on \(message.subject), \(Printable.duration(age)) old"
        let run: RunMessage
        switch message.run {
        case .success(let parsed): run = parsed
        case .failure(let error): return foreign(message, error, place)
        }
        guard let attempt = run.attempt else { return nil }
        let job = run.record.id
        guard let stored = facts.records[job] else {
            if unreadable.contains(where: { $0.hasSuffix(".\(job)") }) { return nil }
            return withoutRecord(run, attempt, message, facts, place, isOld: age > horizon)
        }
        if stored.record.attempt == attempt, [.scheduled, .running].contains(stored.record.state) { return nil }
        return Finding(
            .records,
            .warning,
            "run_orphan",
            "a run message belongs to no attempt: job \(job) is \(stored.record.state.rawValue)",
            evidence: "\(place), attempt \(attempt); the record has \(stored.record.attempt?.text ?? "none")",
            advice: "remove that message: no worker runs it, and one that gets it drops it",
            repair: .removeRun(sequence: message.sequence, attempt: attempt)
        )
    }

    private static func foreign(_ message: Message, _ error: MalformedMessage, _ place: String) -> Finding {
        Finding(
            .records,
            .warning,
            "run_foreign",
            "what stands on \(message.subject) was sent by no maestro",
            evidence: "\(place): \(error.reason)",
            advice: "remove it, and submit on gpu.task.enqueue; a maestro dispatches",
            repair: .removeForeignRun(sequence: message.sequence, payload: message.payload)
        )
    }

    private static func withoutRecord(
        _ run: RunMessage,
        _ attempt: AttemptID,
        _ message: Message,
        _ facts: Facts,
        _ place: String,
        isOld: Bool
    ) -> Finding {
        let job = run.record.id
        if facts.results.contains(job) || isOld {
            return Finding(
                .records,
                .warning,
                "run_orphan",
                "a run message belongs to job \(job), which has ended and is forgotten",
                evidence: isOld
                    ? "\(place); the records of ended jobs are kept less long" : "\(place); its result is there",
                advice: "remove that message",
                repair: .removeRun(sequence: message.sequence, attempt: attempt)
            )
        }
        return Finding(
            .records,
            .error,
            "record_lost",
            "the record of job \(job) is lost; its run message still tells of it",
            evidence: "\(place); neither a record nor a result is there: the records were put back to an older state",
            advice: "make the record anew from the message: the job goes to the queue again",
            repair: .restoreRecord(run)
        )
    }
}

extension RunExam.Message {
    fileprivate init(_ message: StoredMessage, enqueueSubject: String) {
        sequence = message.sequence
        timestamp = message.timestamp
        subject = message.subject
        payload = message.payload
        do throws(MalformedMessage) {
            run = .success(try RunMessage(parsing: message.payload, enqueueSubject: enqueueSubject))
        } catch {
            run = .failure(error)
        }
    }

    private var parsed: RunMessage? {
        guard case .success(let run) = run else { return nil }
        return run
    }

    fileprivate var job: JobID? { parsed?.record.id }
    fileprivate var attempt: AttemptID? { parsed?.attempt }
}
