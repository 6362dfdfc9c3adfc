import Synchronization
import WireJSON

/// Reads a stream in order, without acks and for ever.
///
/// An ephemeral push consumer delivers; its numbering shows every gap. On a gap, missing heartbeats or a reconnect a
/// new one is made behind the last message handed over, so the owner sees every message once and in order, through
/// restarts of the server. The server stops sending while the handler is behind (its flow control).
package final class OrderedConsumer: Sendable {
    package struct Options: Sendable {
        package var deliverPolicy = DeliverPolicy.lastPerSubject
        /// Only subjects that match; nil for all of the stream.
        package var filterSubject: String?
        /// Leave the payloads out; the header `Nats-Msg-Size` tells their size.
        package var headersOnly = false
        /// How often the server says that it lives while it has no messages.
        package var heartbeat: Duration = .seconds(5)

        package init() {}
    }

    package let stream: String
    private let jetStream: JetStream
    private let options: Options
    private let handler: @Sendable (OrderedConsumerEvent) -> Void
    private let alarm = Alarm(label: "nats.ordered")
    private let inbox = "_INBOX.\(RandomToken.make())"

    private struct State {
        var ordered: OrderedState
        var alarmTime = UInt64.max
        var subscription: NATSSubscription?
        var observer: ObserverToken?
        var tasks: [UInt64: Task<Void, Never>] = [:]
        var lastTask: UInt64 = 0
        var isClosed = false
    }
    private let state: Mutex<State>
    /// Held while an event is decided on and handed over, so that events come one after the other in order. Never taken
    /// by what a handler may call.
    private let delivery = Mutex(())

    /// Starts at once if there is a connection, else when there is one. The stream need not exist yet.
    ///
    /// - Parameter handler: gets the events one after the other, on threads of the client; must not block.
    /// - Throws: `badSubject`, `badOption`, `closed`.
    package init(
        _ jetStream: JetStream,
        stream: String,
        options: Options = Options(),
        handler: @escaping @Sendable (OrderedConsumerEvent) -> Void
    ) throws(NATSError) {
        try Subject.checkToken(stream, "ordered consumer")
        if let filter = options.filterSubject { try Subject.checkSubscribe(filter, "ordered consumer") }
        if options.heartbeat < .milliseconds(100) {
            throw NATSError(
                .badOption,
                "ordered consumer",
                subject: stream,
                cause: "the heartbeat must be at least 100 ms"
            )
        }
        self.jetStream = jetStream
        self.stream = stream
        self.options = options
        self.handler = handler
        let heartbeat = options.heartbeat.wholeNanoseconds
        state = Mutex(State(ordered: OrderedState(policy: options.deliverPolicy, heartbeat: heartbeat)))
        alarm.onRing { [weak self] in self?.rang() }
        let observer = jetStream.connection.addObserver { [weak self] event in
            switch event {
            case .connected, .reconnected: self?.handle(.connected)
            case .disconnected, .closed: self?.handle(.disconnected)
            case .asyncError: break
            }
        }
        state.withLock { $0.observer = observer }
        if jetStream.connection.isConnected { handle(.connected) }
    }

    deinit {
        alarm.cancel()
        state.withLock { state in
            state.observer?.cancel()
            for task in state.tasks.values { task.cancel() }
        }
    }

    /// Ends it. No event is handed over afterwards, except one that is being handed over right now. May be called
    /// from the handler.
    package func close() {
        let (subscription, observer, tasks) = state.withLock { state in
            state.isClosed = true
            return (state.subscription, state.observer, state.tasks.values)
        }
        subscription?.cancel()
        observer?.cancel()
        for task in tasks { task.cancel() }
        alarm.cancel()
    }

    private func rang() {
        state.withLock { $0.alarmTime = .max }
        handle(.timePassed)
    }

    /// - Parameter message: makes the message that came with the event, if it is to be handed over.
    private func handle(_ event: OrderedState.Event, message: () -> OrderedConsumerEvent? = { nil }) {
        var requests: [OrderedState.Action] = []
        delivery.withLock { _ in
            for action in decide(event) {
                switch action {
                case .deliver: if let event = message() { hand(event) }
                case .reportRecreated(let reason): hand(.recreated(reason))
                case .reportCaughtUp(let sequence): hand(.caughtUp(lastStreamSequence: sequence))
                case .create, .sample: requests.append(action)
                }
            }
        }
        for request in requests { perform(request) }
    }

    private func decide(_ event: OrderedState.Event) -> [OrderedState.Action] {
        let now = MonotonicClock.now
        return state.withLock { state in
            if state.isClosed { return [] }
            let actions = state.ordered.handle(event, at: now)
            if let time = state.ordered.wakeTime, time < state.alarmTime {
                state.alarmTime = time
                alarm.set(at: time)
            }
            return actions
        }
    }

    private func hand(_ event: OrderedConsumerEvent) {
        if !state.withLock({ $0.isClosed }) { handler(event) }
    }

    private func fail(_ error: JetStreamError, _ event: OrderedState.Event) {
        delivery.withLock { _ in hand(.failed(error)) }
        handle(event)
    }

    // MARK: The server's side

    private func received(_ message: RawMessage, generation: UInt64) {
        if message.status == 100 {
            if let reply = message.replySubject { return answerFlowControl(reply) }
            if let stalled = message.header("Nats-Consumer-Stalled") { answerFlowControl(stalled) }
            let last = message.header("Nats-Last-Consumer").flatMap { UInt64($0) }
            return handle(.heartbeat(generation: generation, lastConsumerSequence: last))
        }
        guard let metadata = message.replySubject.flatMap(MessageMetadata.init(ackSubject:)) else { return }
        let event = OrderedState.Event.message(
            generation: generation,
            consumerSequence: metadata.consumerSequence,
            streamSequence: metadata.streamSequence,
            pending: metadata.pending
        )
        handle(event) {
            let copy = message.copy()
            let stored = StoredMessage(
                subject: copy.subject,
                sequence: metadata.streamSequence,
                timestamp: metadata.timestamp,
                headers: copy.headers,
                payload: copy.payload
            )
            return .message(stored, pending: metadata.pending)
        }
    }

    /// Everything before has been handed over: the server may send on. If the answer is lost with the connection, so
    /// is the consumer; if the write failed otherwise, the server asks again with its next heartbeat.
    private func answerFlowControl(_ subject: String) {
        do {
            try jetStream.connection.publish([], to: subject)
        } catch {
            delivery.withLock { _ in hand(.failed(.unknown(error))) }
        }
    }

    private func perform(_ action: OrderedState.Action) {
        state.withLock { state in
            if state.isClosed { return }
            state.lastTask += 1
            let number = state.lastTask
            state.tasks[number] = Task { [weak self] in
                switch action {
                case .create(let generation, let policy, let known): await self?.create(generation, policy, known)
                case .sample(let generation): await self?.sample(generation)
                case .deliver, .reportRecreated, .reportCaughtUp: break
                }
                self?.state.withLock { _ = $0.tasks.removeValue(forKey: number) }
            }
        }
    }

    private func create(_ generation: UInt64, _ policy: DeliverPolicy, _ known: UInt64?) async {
        do throws(JetStreamError) {
            // A server that starts a consumer behind the end of its stream would wait there silently.
            if let known, try await jetStream.streamInfo(stream).lastSequence < known {
                return handle(.rolledBack(generation: generation))
            }
            let inbox = try subscribe(generation)
            let body: JSON = ["stream_name": .string(stream), "config": config(policy, deliverTo: inbox)]
            let answer = try await jetStream.request("CONSUMER.CREATE.\(stream)", body)
            handle(
                .created(
                    generation: generation,
                    start: answer["delivered"]?["stream_seq"]?.unsignedValue ?? 0,
                    pending: answer["num_pending"]?.unsignedValue ?? 0
                )
            )
        } catch {
            fail(error, .createFailed(generation: generation))
        }
    }

    /// Each generation has an inbox of its own: without interest in the old one, the server drops the old consumer.
    private func subscribe(_ generation: UInt64) throws(JetStreamError) -> String {
        let subject = "\(inbox).\(generation)"
        do throws(NATSError) {
            // Bounded by the server's flow control.
            let subscription = try jetStream.connection.subscribeRaw(subject) { [weak self] arrival in
                if case .message(let message) = arrival { self?.received(message, generation: generation) }
            }
            let (old, isClosed) = state.withLock { state in
                let old = state.subscription
                state.subscription = subscription
                return (old, state.isClosed)
            }
            old?.cancel()
            if isClosed { subscription.cancel() }
            return subject
        } catch {
            throw .unknown(error)
        }
    }

    private func config(_ policy: DeliverPolicy, deliverTo inbox: String) -> JSON {
        var config: [(String, JSON)] = [
            ("deliver_subject", .string(inbox)), ("ack_policy", "none"), ("max_deliver", 1), ("flow_control", true),
            ("idle_heartbeat", .int(options.heartbeat.wholeNanoseconds)), ("mem_storage", true), ("num_replicas", 1),
            ("inactive_threshold", .int(max(options.heartbeat * 2, .seconds(10)).wholeNanoseconds)),
        ]
        switch policy {
        case .lastPerSubject: config.append(("deliver_policy", "last_per_subject"))
        case .new: config.append(("deliver_policy", "new"))
        case .all: config.append(("deliver_policy", "all"))
        case .byStartSequence(let sequence):
            config += [("deliver_policy", "by_start_sequence"), ("opt_start_seq", .int(max(1, sequence)))]
        case .byStartTime(let time):
            config += [("deliver_policy", "by_start_time"), ("opt_start_time", .string(time))]
        }
        // "last per subject" is refused without a filter.
        if let filter = options.filterSubject ?? (policy == .lastPerSubject ? ">" : nil) {
            config.append(("filter_subject", .string(filter)))
        }
        if options.headersOnly { config.append(("headers_only", true)) }
        return .object(JSONObject(config))
    }

    private func sample(_ generation: UInt64) async {
        do throws(JetStreamError) {
            let last = try await jetStream.lastMessage(stream: stream, subject: options.filterSubject ?? ">")
            handle(.sampled(generation: generation, lastSequence: last?.sequence ?? 0))
        } catch {
            // The next heartbeat looks again; a lost stream shows when the consumer falls silent.
            handle(.sampleFailed(generation: generation))
        }
    }
}
