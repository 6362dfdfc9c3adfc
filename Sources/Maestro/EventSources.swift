import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import Synchronization

/// Everything the leader hears: the records as they change, registrations, control records of cards, heartbeats, readings
/// and results.
final class EventSources: Sendable {
    private struct State {
        var subscriptions: [NATSSubscription] = []
        var consumers: [OrderedConsumer] = []
        var observer: ObserverToken?
        /// The records were all replayed.
        var isLive = false
        /// Records that were replayed and not yet handed over, which happens once for all that one round of the loop brings.
        var replayed: [SchedulerEvent] = []
    }

    private let context: MaestroContext
    private let mailbox: Mailbox<SchedulerEvent>
    private let requests: RequestDesk
    /// The writes of this term whose revisions are still to be heard.
    private let echoes: RecordEchoes
    /// What to add to a time of the server to get one of ours.
    private let serverClockOffset: Duration
    /// The server that the term began with; each start of one has another id. Nil if there was no connection.
    private let server: String?
    private let state = Mutex(State())

    /// - Parameter mailbox: closed when the connection comes back to another server than `server`.
    init(
        context: MaestroContext,
        mailbox: Mailbox<SchedulerEvent>,
        requests: RequestDesk,
        echoes: RecordEchoes,
        serverClockOffset: Duration,
        server: String?
    ) {
        self.context = context
        self.mailbox = mailbox
        self.requests = requests
        self.echoes = echoes
        self.serverClockOffset = serverClockOffset
        self.server = server
    }

    /// Starts to listen: to workers and results before the records, so that nothing falls between.
    func start() throws(NATSError) {
        let names = context.names
        try listen(names.heartbeat) { [requests] message throws(MalformedMessage) in
            let heartbeat = try Heartbeat(parsing: message.payload)
            guard let token = message.replySubject.flatMap({ requests.register($0) }) else {
                return .heartbeat(heartbeat)
            }
            return .heartbeatAsked(heartbeat, token)
        }
        try listen(names.metrics) { message throws(MalformedMessage) in
            .reading(try CardReading(parsing: message.payload))
        }
        try listen(names.cacheHeartbeat) { message throws(MalformedMessage) in
            .cache(try CacheReport(parsing: message.payload))
        }
        try listen(names.workerDown) { message throws(MalformedMessage) in
            .workerDown(try WorkerNotice(parsing: message.payload))
        }
        let observer = context.connection.addObserver { [weak self] event in
            if case .reconnected(let info) = event { self?.noteReconnected(to: info) }
        }
        state.withLock { $0.observer = observer }
        // It may have come back to another one before anybody watched.
        if let info = context.connection.serverInfo, info.serverID != server { mailbox.close() }
        try follow(names.controlStream, nil, .lastPerSubject) { [weak self] in self?.noteControl($0) }
        try follow(names.eventsStream, names.resultPrefix + ".*", .new, headersOnly: true) { [weak self] in
            self?.noteResult($0)
        }
        // The stream keeps one message for each subject, and that needs no list of all subjects, for which a server of
        // version 2.9 hears nothing else for seconds when there are a million.
        try follow(names.jobsStream, nil, .all) { [weak self] in self?.noteRecord($0) }
    }

    func stop() {
        let (subscriptions, consumers, observer) = state.withLock { ($0.subscriptions, $0.consumers, $0.observer) }
        observer?.cancel()
        for subscription in subscriptions { subscription.cancel() }
        for consumer in consumers { consumer.close() }
    }

    private func noteReconnected(to info: ServerInfo) {
        if info.serverID == server { return mailbox.send(.reconnected) }
        context.logger.notice("the server was started again: the term begins anew", metadata: ["url": "\(info.url)"])
        mailbox.close()
    }

    private func listen(
        _ subject: String,
        parse: @escaping @Sendable (NATSMessage) throws(MalformedMessage) -> SchedulerEvent
    ) throws(NATSError) {
        let subscription = try context.connection.subscribe(subject) { [mailbox, logger = context.logger] message in
            do throws(MalformedMessage) {
                mailbox.send(try parse(message))
            } catch {
                logger.warning("ignored a message", metadata: ["subject": "\(subject)", "reason": "\(error)"])
            }
        }
        state.withLock { $0.subscriptions.append(subscription) }
    }

    private func follow(
        _ stream: String,
        _ filter: String?,
        _ policy: DeliverPolicy,
        headersOnly: Bool = false,
        handler: @escaping @Sendable (StoredMessage) -> Void
    ) throws(NATSError) {
        var options = OrderedConsumer.Options()
        options.deliverPolicy = policy
        options.filterSubject = filter
        options.headersOnly = headersOnly
        let consumer = try OrderedConsumer(context.jetStream, stream: stream, options: options) {
            [weak self, logger = context.logger] event in
            switch event {
            case .message(let message, _): handler(message)
            case .caughtUp(let last): self?.noteReplayed(stream, last)
            case .recreated(let reason):
                logger.info("following again", metadata: ["stream": "\(stream)", "reason": "\(reason)"])
            case .failed(let error):
                logger.warning("cannot follow yet", metadata: ["stream": "\(stream)", "error": "\(error)"])
            }
        }
        state.withLock { $0.consumers.append(consumer) }
    }

    // MARK: what is heard

    private func noteRecord(_ message: StoredMessage) {
        let isLive = state.withLock { $0.isLive }
        let job = context.names.job(from: message.subject)
        do throws(MalformedMessage) {
            let record = try record(of: job, message)
            // A record that is just being written was stored now; an older one when the server's clock says.
            let storedAt = isLive ? context.clock.now() : storedAt(message)
            let revision = RecordRevision(record: record, sequence: message.sequence, storedAt: storedAt)
            tell(isLive ? .recordChanged(revision) : .replayed(revision), isLive: isLive)
        } catch {
            tell(.recordUnreadable(job, sequence: message.sequence, reason: error.description), isLive: isLive)
        }
    }

    private func tell(_ event: SchedulerEvent, isLive: Bool) {
        if isLive { return mailbox.send(event) }
        let isFirst = state.withLock { state in
            state.replayed.append(event)
            return state.replayed.count == 1
        }
        if isFirst { context.connection.loop.post { [weak self] in self?.handReplayedOver() } }
    }

    private func handReplayedOver() {
        let events = state.withLock { state in
            defer { state.replayed = [] }
            return state.replayed
        }
        if !events.isEmpty { mailbox.send(contentsOf: events) }
    }

    private func record(of job: JobID?, _ message: StoredMessage) throws(MalformedMessage) -> JobRecord {
        if let job, let ours = echoes.take(message.payload, of: job, at: message.sequence) { return ours }
        let record = try JobRecord(parsing: message.payload)
        guard record.id == job else {
            throw MalformedMessage("record", "it is of job \(record.id), but stands at \(message.subject)")
        }
        return record
    }

    /// When the server's clock says that a message was stored, on ours.
    private func storedAt(_ message: StoredMessage) -> Timestamp {
        Timestamp(nanoseconds: message.timestamp) + serverClockOffset
    }

    /// On the loop, like all that is heard, so that everything that came before is handed over before.
    private func noteReplayed(_ stream: String, _ last: UInt64) {
        context.connection.loop.post { [weak self] in
            guard let self else { return }
            if stream == context.names.jobsStream {
                handReplayedOver()
                state.withLock { $0.isLive = true }
                mailbox.send(.replayFinished(lastSequence: last))
            } else if stream == context.names.controlStream {
                mailbox.send(.controlReplayed)
            }
        }
    }

    /// Registrations and the control records of cards share their stream with the lease and other records of the leader.
    private func noteControl(_ message: StoredMessage) {
        if message.subject.hasPrefix(context.names.registrationPrefix) {
            register(message)
        } else if message.subject.hasPrefix(context.names.cardControlPrefix) {
            noteCardControl(message)
        }
    }

    private func noteCardControl(_ message: StoredMessage) {
        guard let gpu = GPUID(String(message.subject.dropFirst(context.names.cardControlPrefix.count))) else { return }
        do throws(MalformedMessage) {
            let record = try CardControl(parsing: message.payload)
            guard record.gpu == gpu else {
                throw MalformedMessage(
                    "control record",
                    "it is of card \(record.gpu), but stands at \(message.subject)"
                )
            }
            let storedAt = storedAt(message)
            mailbox.send(.cardControl(ControlRevision(record: record, sequence: message.sequence, storedAt: storedAt)))
        } catch {
            mailbox.send(.cardControlUnreadable(gpu, sequence: message.sequence, reason: error.description))
        }
    }

    private func register(_ message: StoredMessage) {
        do throws(MalformedMessage) {
            mailbox.send(.registered(try WorkerRegistration(parsing: message.payload)))
        } catch {
            context.logger.warning(
                "ignored a registration",
                metadata: ["subject": "\(message.subject)", "reason": "\(error)"]
            )
        }
    }

    private func noteResult(_ message: StoredMessage) {
        if let job = context.names.job(from: message.subject) { mailbox.send(.resultSeen(job)) }
    }
}
