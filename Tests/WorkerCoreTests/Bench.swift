import JobModel
import Testing
import WorkerCore

/// A worker core with the records of a pool around it: does what the core asks, when the test says so.
final class Bench {
    var core: WorkerCore
    var ids: IdentifierSource
    var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    let gpu: GPUID
    let incarnation: Incarnation
    let otherLife: Incarnation
    /// The records as the stream holds them.
    var records: [JobID: RecordRevision] = [:]
    var lastSequence: UInt64 = 100
    var lastMessage: UInt64 = 0
    /// What the core has asked for and nobody has done yet.
    var todo: [WorkerAction] = []

    init(policy: WorkerPolicy = WorkerPolicy()) throws {
        var ids = IdentifierSource(seed: 7)
        gpu = try #require(GPUID("3"))
        incarnation = Incarnation(from: &ids)
        otherLife = Incarnation(from: &ids)
        self.ids = ids
        core = WorkerCore(gpu: gpu, incarnation: incarnation, policy: policy, ids: IdentifierSource(seed: 8))
    }

    /// A bench whose worker has begun, with nothing to recover.
    static func serving(_ policy: WorkerPolicy = WorkerPolicy()) throws -> Bench {
        let bench = try Bench(policy: policy)
        bench.handle(.began([]))
        #expect(bench.take(.announceReady))
        return bench
    }

    func handle(_ event: WorkerEvent) { todo += core.handle(event, at: now) }

    func pass(_ duration: Duration) {
        now = now + duration
        handle(.timerFired)
    }

    // MARK: records

    func job(_ name: String) throws -> JobID { try #require(JobID(name)) }

    func store(_ record: JobRecord) -> UInt64 {
        lastSequence += 1
        records[record.id] = RecordRevision(record: record, sequence: lastSequence)
        return lastSequence
    }

    /// Admits and schedules a job; the message is what a maestro would send.
    func dispatch(
        _ name: String,
        task: String = #"{"cmd":["true"]}"#,
        timeout: Duration = .seconds(60),
        retries: Int = 2,
        fence: Duration? = nil,
        owner: Incarnation? = nil
    ) throws -> RunMessage {
        var record = JobRecord(
            admitting: try job(name),
            submission: Array(task.utf8),
            digest: "sha256:00",
            order: 1,
            limits: JobLimits(
                timeout: timeout,
                maxRetries: retries,
                retryBackoff: .seconds(1),
                maxWait: nil,
                fence: fence.map { Fence($0) }
            ),
            op: OperationID(from: &ids),
            at: now,
            submitted: now.seconds
        )
        let attempt = AttemptID(from: &ids)
        let step = JobTransition.schedule(gpu: gpu, attempt: attempt, owner: owner ?? incarnation)
        try record.apply(step, op: OperationID(from: &ids), at: now)
        return RunMessage(record: record, sequence: store(record))
    }

    /// What a worker wrote down of the end of a message's attempt.
    func report(of message: RunMessage, _ outcome: AttemptOutcome) throws -> AttemptReport {
        AttemptReport(
            job: message.record.id,
            gpu: gpu,
            attempt: try #require(message.attempt),
            tries: 1,
            ran: true,
            outcome: outcome,
            workingDirectory: "/",
            type: "cmd",
            time: 1
        )
    }

    func deliver(_ message: RunMessage, number: UInt64? = nil) -> MessageToken {
        lastMessage += 1
        let token = MessageToken(number ?? lastMessage)
        handle(.runReceived(message, token))
        return token
    }

    /// Somebody else moves a record.
    func move(_ job: JobID, _ step: JobTransition) throws {
        var record = try #require(records[job]).record
        try record.apply(step, op: OperationID(from: &ids), at: now)
        _ = store(record)
    }

    func state(_ name: String) throws -> JobState { try #require(records[try job(name)]).record.state }

    // MARK: actions

    /// Removes an action that the core has asked for; false if it has not.
    func take(_ action: WorkerAction) -> Bool {
        guard let index = todo.firstIndex(of: action) else { return false }
        todo.remove(at: index)
        return true
    }

    func take<T>(_ pick: (WorkerAction) -> T?) -> T? {
        for (index, action) in todo.enumerated() {
            guard let found = pick(action) else { continue }
            todo.remove(at: index)
            return found
        }
        return nil
    }

    /// Answers the reads and writes that were asked for, as the stream would.
    func answer(objection: TaskObjection? = nil) {
        while let event = takeStoreAction(objection) { handle(event) }
    }

    func takeStoreAction(_ objection: TaskObjection? = nil) -> WorkerEvent? {
        for (index, action) in todo.enumerated() {
            switch action {
            case .prepare(let message):
                todo.remove(at: index)
                guard let attempt = message.attempt else { continue }
                return .prepared(attempt, records[message.record.id], objection)
            case .readRecord(let job, let attempt):
                todo.remove(at: index)
                return .recordRead(attempt, records[job])
            case .write(let attempt, let record, let expected):
                todo.remove(at: index)
                return .writeEnded(attempt, record.op, compareAndSet(record, expected))
            default: continue
            }
        }
        return nil
    }

    private func compareAndSet(_ record: JobRecord, _ expected: UInt64) -> WriteOutcome {
        let current = records[record.id]
        guard current?.sequence ?? 0 == expected else { return .conflict(current) }
        return .stored(sequence: store(record))
    }

    /// Delivers a job and lets it run.
    func run(_ name: String, timeout: Duration = .seconds(60), retries: Int = 2, fence: Duration? = nil) throws
        -> Started
    {
        let message = try dispatch(name, timeout: timeout, retries: retries, fence: fence)
        let token = deliver(message)
        answer()
        let attempt = try #require(message.attempt)
        let record = try #require(take { if case .start(attempt, let record) = $0 { record } else { nil } })
        #expect(record.state == .running && record.tries == 1)
        handle(.started(attempt, directory: "/cache/tasks/\(name)"))
        return Started(attempt: attempt, token: token, job: record.id)
    }

    struct Started {
        let attempt: AttemptID
        let token: MessageToken
        let job: JobID
    }

    /// The process ends; everything up to the ack happens. Returns what was told.
    func end(_ started: Started, _ exit: ProcessEnd.Exit, output: String = "") throws -> [OutgoingEvent] {
        let kept = AttemptReport.Output(bytes: Array(output.utf8), totalBytes: UInt64(output.utf8.count))
        handle(.ended(started.attempt, ProcessEnd(exit: exit, standardOutput: kept)))
        // The card is well.
        if take(.examine(started.attempt)) { handle(.examined(started.attempt)) }
        return try conclude(started)
    }

    /// From the report to the ack, each only after the one before.
    func conclude(_ started: Started) throws -> [OutgoingEvent] {
        _ = try #require(
            take { if case .report(let report) = $0, report.attempt == started.attempt { report } else { nil } }
        )
        #expect(try #require(records[started.job]).record.state == .running, "the report comes before the commit")
        handle(.reported(started.attempt))
        answer()
        let events = try #require(take { if case .tell(started.attempt, let events) = $0 { events } else { nil } })
        #expect(!todo.contains(.ack(started.token)), "the ack comes last")
        handle(.told(started.attempt))
        #expect(take(.close(started.attempt, started.job)))
        #expect(take(.ack(started.token)))
        return events
    }
}

extension [OutgoingEvent] {
    /// The events in words: "done", "error exit", "result failed".
    var words: [String] {
        map { event in
            switch event {
            case .done: "done"
            case .error(let bytes, _): "error " + Self.field("code", of: bytes)
            case .result(_, let bytes): "result " + Self.field("state", of: bytes)
            }
        }
    }

    private static func field(_ name: String, of bytes: [UInt8]) -> String {
        let text = String(decoding: bytes, as: UTF8.self)
        guard let found = text.split(separator: "\"\(name)\":\"", maxSplits: 1).dropFirst().first else { return "?" }
        return String(found.prefix { $0 != "\"" })
    }
}
