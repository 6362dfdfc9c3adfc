import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// The shell of ``WorkerCore``: gives it what happens, carries out what it decides.
struct WorkerShell: Sendable {
    let context: WorkerContext
    let mailbox: Mailbox<WorkerEvent>
    let inbox: RunInbox
    let launcher: TaskLauncher
    let pulse: WorkerPulse
    let requests: RequestDesk
    let keeper: CardKeeper
    let caches: CacheDesk

    /// Works until it was told to stop and nothing is left to do.
    func run(_ core: WorkerCore, recovered: [RecoveredAttempt]) async {
        let timer = DeadlineTimer(on: context.connection.loop) { [mailbox] in mailbox.send(.timerFired) }
        let observer = context.connection.addObserver { [mailbox] event in
            if case .reconnected = event { mailbox.send(.reconnected) }
        }
        await keeper.begin()
        mailbox.sendOutcome(.began(recovered))
        await withDiscardingTaskGroup { group in
            await serve(core, timer, &group)
            group.cancelAll()
        }
        observer.cancel()
        timer.cancel()
        mailbox.close()
    }

    private func serve(_ initial: WorkerCore, _ timer: DeadlineTimer, _ group: inout DiscardingTaskGroup) async {
        var core = initial
        var isFinished = false
        while !isFinished {
            let events = await mailbox.receive()
            // Closed: there is no more time.
            if events.isEmpty { return }
            for event in events {
                let now = context.clock.now()
                for action in core.handle(event, at: now) {
                    if case .finish = action { isFinished = true }
                    if case .heartbeat = action { note(core) }
                    perform(action, at: now, timer, &group)
                }
            }
            // Heartbeats are sent on this thread too, so none comes before this.
            note(core)
        }
    }

    private func note(_ core: WorkerCore) { pulse.note(running: core.running, isDraining: core.isDraining) }

    private func perform(
        _ action: WorkerAction,
        at now: Timestamp,
        _ timer: DeadlineTimer,
        _ group: inout DiscardingTaskGroup
    ) {
        switch action {
        case .announceReady: announceReady(&group)
        case .pull(let count): inbox.pull(count)
        case .ack(let token): inbox.ack(token)
        case .nak(let token, let delay): inbox.nak(token, delay: delay)
        case .inProgress(let tokens): inbox.inProgress(tokens)
        case .prepare(let message): group.addTask { await prepare(message) }
        case .readRecord(let job, let attempt): group.addTask { await readRecord(job, attempt) }
        case .write(let attempt, let record, let expected):
            group.addTask { await write(attempt, record, expected: expected) }
        case .start(let attempt, let record): group.addTask { await launcher.start(attempt, record) }
        case .fence(let attempt, let until, let grace): launcher.fence(attempt, until: until, grace: grace)
        case .terminate(let attempt): launcher.terminate(attempt)
        case .kill(let attempt): launcher.kill(attempt)
        case .examine(let attempt): group.addTask { await keeper.examine(attempt) }
        case .report(let report): group.addTask { await launcher.report(report) }
        case .tell(let attempt, let events): group.addTask { await tell(attempt, events) }
        case .refuse(let event, let messageID, let token):
            group.addTask { await refuse(event, messageID: messageID, token) }
        case .close(let attempt, _): group.addTask { await launcher.close(attempt) }
        case .reply(let token, let answer): requests.reply(token, answer)
        case .probe: group.addTask { await keeper.probe() }
        case .heartbeat: pulse.beat()
        case .armTimer(let due): timer.arm(after: due.map { $0 - now })
        case .notice(let text): context.notice(text)
        case .finish: break
        }
    }

    private func announceReady(_ group: inout DiscardingTaskGroup) {
        context.tell("up", context.facts)
        pulse.ready()
        group.addTask { await inbox.serve() }
        // Looks into directories, and these may take their time.
        group.addTask(executorPreference: globalConcurrentExecutor) { [caches] in await caches.run() }
        group.addTask {
            await pulse.run { [mailbox] in
                mailbox.sendOutcome(.timerFired)
            } measure: { [keeper] in
                await keeper.look()
            } tidy: { [launcher] in
                await launcher.tidy()
            }
        }
        context.logger.notice("ready", metadata: ["gpu": "\(context.gpu)", "incarnation": "\(context.incarnation)"])
    }

    // MARK: records

    /// How long a write goes on without an answer: as long as this process lives.
    private var patience: ContinuousClock.Instant { .now + .seconds(24 * 3600) }

    private func revision(_ stored: StoredRecord) -> RecordRevision {
        RecordRevision(record: stored.record, sequence: stored.sequence)
    }

    /// Reads a record until the server answers; nil in the outer sense when the worker ends before.
    private func read(_ job: JobID) async -> RecordRevision?? {
        while !Task.isCancelled {
            do {
                return .some(try await context.records.read(job).map(revision))
            } catch let error as MalformedMessage {
                // Not a record of any attempt; the leader tells what stands there.
                context.notice("the record of job \(job) is \(error)")
                return .some(nil)
            } catch {
                context.logger.warning("a record cannot be read", metadata: ["job": "\(job)", "error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return nil
    }

    private func prepare(_ message: RunMessage) async {
        guard let attempt = message.attempt, let revision = await read(message.record.id) else { return }
        // Of the record as it stands: that is what would be run.
        let objection: TaskObjection? = if let revision { await launcher.objection(to: revision.record) } else { nil }
        mailbox.sendOutcome(.prepared(attempt, revision, objection))
    }

    private func readRecord(_ job: JobID, _ attempt: AttemptID) async {
        guard let revision = await read(job) else { return }
        mailbox.sendOutcome(.recordRead(attempt, revision))
    }

    private func write(_ attempt: AttemptID, _ record: JobRecord, expected: UInt64) async {
        switch await context.records.write(record, expected: expected, holding: attempt, until: patience) {
        case .stored(let sequence):
            mailbox.sendOutcome(.writeEnded(attempt, record.op, .stored(sequence: sequence)))
        case .conflict(let current):
            mailbox.sendOutcome(.writeEnded(attempt, record.op, .conflict(current.map(revision))))
        case .refused(let reason):
            mailbox.sendOutcome(.writeEnded(attempt, record.op, .refused(reason)))
        case .unknown(let error):
            // This process ends: its next life finds out from the record and the journal.
            context.logger.debug("a write was given up", metadata: ["attempt": "\(attempt)", "error": "\(error)"])
        }
    }

    // MARK: events

    /// An event as it is published.
    private struct Publication: Sendable {
        let subject: String
        let payload: [UInt8]
        var messageID: String?
        var expected: UInt64?

        init(_ event: OutgoingEvent, _ names: PoolNames) {
            switch event {
            case .done(let payload, let id):
                self.init(subject: names.done, payload: payload, messageID: id)
            case .error(let payload, let id):
                self.init(subject: names.error, payload: payload, messageID: id)
            case .result(let job, let payload):
                self.init(subject: names.result(job), payload: payload, expected: 0)
            }
        }

        private init(subject: String, payload: [UInt8], messageID: String? = nil, expected: UInt64? = nil) {
            self.subject = subject
            self.payload = payload
            self.messageID = messageID
            self.expected = expected
        }
    }

    private func tell(_ attempt: AttemptID, _ events: [OutgoingEvent]) async {
        let publications = events.map { Publication($0, context.names) }
        for publication in await sendAll(publications) { await store(publication) }
        if !Task.isCancelled { mailbox.sendOutcome(.told(attempt)) }
    }

    /// Sends all of them, in their order and before the first answer, since people wait for the last one.
    /// - Returns: those that were not stored, in their order.
    private func sendAll(_ publications: [Publication]) async -> [Publication] {
        let failed = await withCheckedContinuation { continuation in
            let answers = Answers(expected: publications.count) { continuation.resume(returning: $0) }
            for (index, publication) in publications.enumerated() {
                context.jetStream.publish(
                    publication.payload,
                    to: publication.subject,
                    messageID: publication.messageID,
                    expectedLastSubjectSequence: publication.expected
                ) { answers.note(index, isSettled: Self.isSettled($0)) }
            }
        }
        return failed.sorted().map { publications[$0] }
    }

    /// Gathers the answers to several publishes.
    private final class Answers: Sendable {
        private let state: Mutex<(left: Int, failed: [Int])>
        private let done: @Sendable ([Int]) -> Void

        /// - Parameters:
        ///   - expected: how many come; at least one.
        ///   - done: called once, with the numbers of those that settled nothing.
        init(expected: Int, _ done: @escaping @Sendable ([Int]) -> Void) {
            state = Mutex((expected, []))
            self.done = done
        }

        func note(_ number: Int, isSettled: Bool) {
            let failed = state.withLock { state -> [Int]? in
                state.left -= 1
                if !isSettled { state.failed.append(number) }
                return state.left == 0 ? state.failed : nil
            }
            if let failed { done(failed) }
        }
    }

    private static func isSettled(_ outcome: PublishOutcome) -> Bool {
        switch outcome {
        case .stored: true
        case .refused(let error): error.isWrongLastSequence
        case .unknown: false
        }
    }

    private func refuse(_ event: ErrorEvent, messageID: String, _ token: MessageToken) async {
        await store(Publication(.error(event.encoded(), messageID: messageID), context.names))
        if !Task.isCancelled { inbox.ack(token) }
    }

    /// Stores one event; returns when it is stored, or was before.
    private func store(_ publication: Publication) async {
        while !Task.isCancelled {
            let outcome = await context.jetStream.publishUntilDefinite(
                publication.payload,
                to: publication.subject,
                messageID: publication.messageID,
                expectedLastSubjectSequence: publication.expected,
                until: patience
            )
            switch outcome {
            case .stored, .unknown: return
            case .refused(let error) where error.isWrongLastSequence: return
            case .refused(let error):
                context.logger.warning(
                    "an event was refused; trying again",
                    metadata: ["subject": "\(publication.subject)", "error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
    }
}
