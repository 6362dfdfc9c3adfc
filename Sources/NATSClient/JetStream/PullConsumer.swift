import Synchronization
import WireJSON

/// Pulls messages of one durable consumer, as many as its owner asks for, for the life of the process.
///
/// One subscription takes everything; requests are sent again after reconnects, server restarts and missed heartbeats.
/// When a request was lost on the way its messages may come although another one was sent in its place, so the
/// handler may get up to `capacity` more than was asked for.
package final class PullConsumer: Sendable {
    package struct Options: Sendable {
        /// The most messages that are asked for at one time, however many the owner wants.
        package var capacity = 256
        /// How long one request stands at the server.
        package var expires: Duration = .seconds(30)
        /// How often the server says that it lives while it has no messages; at most half of `expires`.
        package var heartbeat: Duration = .seconds(5)

        package init() {}
    }

    package let stream: String
    package let consumer: String
    private let jetStream: JetStream
    private let pullSubject: String
    let inbox = "_INBOX.\(RandomToken.make())"
    private let options: Options
    private let onEvent: @Sendable (PullConsumerEvent) -> Void
    private let handler: @Sendable (JetStreamMessage) -> Void
    private let alarm = Alarm(label: "nats.pull")

    private struct State {
        var pull: PullState
        var alarmTime = UInt64.max
        var subscription: NATSSubscription?
        var observer: ObserverToken?
        var check: Task<Void, Never>?
        var isClosed = false
    }
    private let state: Mutex<State>

    /// Starts without demand: nothing is pulled before ``request(_:)``. The consumer need not exist yet.
    ///
    /// - Parameters:
    ///   - onEvent: called on threads of the client; must not block.
    ///   - handler: gets the messages one after the other, on a delivery thread; must not block.
    /// - Throws: `badSubject` for a name that cannot be, `badOption` for times that do not fit together.
    package init(
        _ jetStream: JetStream,
        stream: String,
        consumer: String,
        options: Options = Options(),
        onEvent: @escaping @Sendable (PullConsumerEvent) -> Void,
        handler: @escaping @Sendable (JetStreamMessage) -> Void
    ) throws(NATSError) {
        try Subject.checkToken(stream, "pull consumer")
        try Subject.checkToken(consumer, "pull consumer")
        if options.capacity < 1 || options.heartbeat <= .zero || options.heartbeat * 2 > options.expires {
            let cause = "capacity must be at least 1, the heartbeat positive and at most half of expires"
            throw NATSError(.badOption, "pull consumer", subject: consumer, cause: cause)
        }
        self.jetStream = jetStream
        self.stream = stream
        self.consumer = consumer
        self.options = options
        self.onEvent = onEvent
        self.handler = handler
        pullSubject = "\(jetStream.prefix).CONSUMER.MSG.NEXT.\(stream).\(consumer)"
        state = Mutex(
            State(
                pull: PullState(
                    PullState.Options(
                        capacity: options.capacity,
                        expires: options.expires.wholeNanoseconds,
                        heartbeat: options.heartbeat.wholeNanoseconds
                    )
                )
            )
        )
        alarm.onRing { [weak self] in self?.rang() }
        let subscription = try jetStream.connection.subscribeRaw(inbox + ".*") { [weak self] arrival in
            switch arrival {
            case .message(let message): self?.received(message)
            // Whichever request it was: they all go to the same place.
            case .noResponders: self?.handle(.ended(request: 0, status: 503, description: "", undelivered: nil))
            }
        }
        let observer = jetStream.connection.addObserver { [weak self] event in
            switch event {
            case .connected, .reconnected: self?.handle(.connected)
            case .disconnected, .closed: self?.handle(.disconnected)
            case .asyncError: break
            }
        }
        state.withLock { state in
            state.subscription = subscription
            state.observer = observer
        }
        if jetStream.connection.isConnected { handle(.connected) }
    }

    deinit {
        alarm.cancel()
        state.withLock { state in
            state.observer?.cancel()
            state.check?.cancel()
        }
    }

    /// Asks for `count` messages more. They come when there are any; what was asked for before stays asked for.
    package func request(_ count: Int) { handle(.demanded(count)) }

    /// Messages asked for and not delivered yet.
    package var demand: Int { state.withLock { $0.pull.demand } }

    /// Pulls again at once: the owner has made the consumer anew.
    package func retryNow() { handle(.consumerMade) }

    /// Ends pulling. Messages under way are not handed over any more and come again after their ack wait.
    package func close() {
        let (subscription, observer, check) = state.withLock { state in
            state.isClosed = true
            return (state.subscription, state.observer, state.check)
        }
        subscription?.cancel()
        observer?.cancel()
        check?.cancel()
        alarm.cancel()
    }

    private func received(_ message: RawMessage) {
        if let status = message.status {
            if status == 100 { return handle(.heartbeat) }
            guard let request = UInt64(message.subject.dropFirst(inbox.count + 1)) else { return }
            handle(
                .ended(
                    request: request,
                    status: status,
                    description: message.header("Description") ?? "",
                    undelivered: message.header("Nats-Pending-Messages").flatMap { Int($0) }
                )
            )
        } else if let message = JetStreamMessage(message, connection: jetStream.connection) {
            handle(.delivered)
            if !state.withLock({ $0.isClosed }) { handler(message) }
        }
    }

    private func rang() {
        state.withLock { $0.alarmTime = .max }
        handle(.timePassed)
    }

    private func handle(_ event: PullState.Event) {
        let now = MonotonicClock.now
        let actions = state.withLock { state -> [PullState.Action] in
            if state.isClosed { return [] }
            let actions = state.pull.handle(event, at: now)
            // An alarm that rings too early only looks; setting it for every message would cost a system call each.
            if let time = state.pull.wakeTime, time < state.alarmTime {
                state.alarmTime = time
                alarm.set(at: time)
            }
            return actions
        }
        for action in actions { perform(action) }
    }

    private func perform(_ action: PullState.Action) {
        switch action {
        case .report(let event): onEvent(event)
        case .checkConsumer: checkConsumer()
        case .pull(let request, let batch):
            let body: JSON = [
                "batch": .int(batch), "expires": .int(options.expires.wholeNanoseconds),
                "idle_heartbeat": .int(options.heartbeat.wholeNanoseconds),
            ]
            do {
                try jetStream.connection.publish(
                    body.encoded(),
                    to: pullSubject,
                    replySubject: "\(inbox).\(request)"
                )
            } catch {
                handle(.notSent(request: request))
            }
        }
    }

    private func checkConsumer() {
        let (jetStream, stream, consumer) = (jetStream, stream, consumer)
        let task = Task { [weak self] in
            do throws(JetStreamError) {
                _ = try await jetStream.consumerInfo(stream: stream, consumer)
                self?.handle(.consumerChecked(exists: true))
            } catch {
                let missing = error.apiError.map { $0.isConsumerNotFound || $0.isStreamNotFound } ?? false
                // No answer says nothing about the consumer; the next silence asks again.
                if missing { self?.handle(.consumerChecked(exists: false)) }
            }
        }
        state.withLock { $0.check = task }
    }
}
