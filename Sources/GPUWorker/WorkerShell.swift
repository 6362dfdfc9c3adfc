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
    let requests: CancelDesk

    /// Works until it was told to stop and nothing is left to do.
    func run(_ core: WorkerCore, recovered: [RecoveredAttempt]) async {
        let timer = DeadlineTimer(label: "gpu-worker.timer") { [mailbox] in mailbox.send(.timerFired) }
        let observer = context.connection.addObserver { [mailbox] event in
            if case .reconnected = event { mailbox.send(.reconnected) }
        }
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
            for event in await mailbox.receive() {
                let now = context.clock.now()
                let actions = core.handle(event, at: now)
                pulse.note(running: core.running, isDraining: core.isDraining)
                for action in actions {
                    if action == .finish { isFinished = true }
                    perform(action, at: now, timer, &group)
                }
            }
        }
    }

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
        case .terminate(let attempt): launcher.terminate(attempt)
        case .kill(let attempt): launcher.kill(attempt)
        case .report(let report): group.addTask { await launcher.report(report) }
        case .tell(let attempt, let events): group.addTask { await tell(attempt, events) }
        case .refuse(let event, let messageID, let token):
            group.addTask { await refuse(event, messageID: messageID, token) }
        case .close(let attempt, _): group.addTask { await launcher.close(attempt) }
        case .reply(let token, let ok, let error): requests.reply(token, ok: ok, error: error)
        case .heartbeat: pulse.beat()
        case .armTimer(let due): timer.arm(after: due.map { $0 - now })
        case .notice(let text): context.notice(text)
        case .finish: break
        }
    }

    private func announceReady(_ group: inout DiscardingTaskGroup) {
        context.tell("up", pulse.facts)
        pulse.ready()
        group.addTask { await inbox.serve() }
        group.addTask { await pulse.run() }
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
            } catch {
                context.logger.warning("a record cannot be read", metadata: ["job": "\(job)", "error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return nil
    }

    private func prepare(_ message: RunMessage) async {
        guard let attempt = message.attempt, let revision = await read(message.record.id) else { return }
        let objection = revision == nil ? nil : await launcher.objection(to: message.record)
        mailbox.sendOutcome(.prepared(attempt, revision, objection))
    }

    private func readRecord(_ job: JobID, _ attempt: AttemptID) async {
        guard let revision = await read(job) else { return }
        mailbox.sendOutcome(.recordRead(attempt, revision))
    }

    private func write(_ attempt: AttemptID, _ record: JobRecord, expected: UInt64) async {
        switch await context.records.write(record, expected: expected, until: patience) {
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

    private func tell(_ attempt: AttemptID, _ events: [OutgoingEvent]) async {
        for event in events {
            switch event {
            case .done(let payload, let id): await store(payload, on: context.names.done, messageID: id)
            case .error(let payload, let id): await store(payload, on: context.names.error, messageID: id)
            case .result(let job, let payload):
                await store(payload, on: context.names.result(job), messageID: nil, expected: 0)
            }
        }
        if !Task.isCancelled { mailbox.sendOutcome(.told(attempt)) }
    }

    private func refuse(_ event: ErrorEvent, messageID: String, _ token: MessageToken) async {
        await store(event.encoded(), on: context.names.error, messageID: messageID)
        if !Task.isCancelled { inbox.ack(token) }
    }

    /// Stores one event; returns when it is stored, or was before.
    private func store(_ payload: [UInt8], on subject: String, messageID: String?, expected: UInt64? = nil) async {
        while !Task.isCancelled {
            let outcome = await context.jetStream.publishUntilDefinite(
                payload,
                to: subject,
                messageID: messageID,
                expectedLastSubjectSequence: expected,
                until: patience
            )
            switch outcome {
            case .stored, .unknown: return
            case .refused(let error) where error.isWrongLastSequence: return
            case .refused(let error):
                context.logger.warning(
                    "an event was refused; trying again",
                    metadata: ["subject": "\(subject)", "error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
    }
}
