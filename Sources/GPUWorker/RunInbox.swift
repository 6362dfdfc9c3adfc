import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// Pulls the run messages of this card, and acknowledges them when the core says so.
final class RunInbox: Sendable {
    private struct State {
        /// Where to acknowledge: the newest delivery of each message.
        var messages: [MessageToken: JetStreamMessage] = [:]
        var puller: PullConsumer?
    }

    private enum Change: Sendable {
        case consumerMissing
        case server(String)
    }

    /// How long the server waits for an ack before it delivers again.
    static let ackWait = Duration.seconds(30)

    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let changes = Mailbox<Change>(capacity: 64)
    private let state = Mutex(State())

    init(context: WorkerContext, mailbox: Mailbox<WorkerEvent>) throws(NATSError) {
        self.context = context
        self.mailbox = mailbox
        let puller = try PullConsumer(
            context.jetStream,
            stream: context.names.runStream,
            consumer: context.names.runConsumer(context.gpu),
            onEvent: { [changes, logger = context.logger] event in
                if event == .consumerMissing { changes.sendOutcome(.consumerMissing) }
                logger.debug("pulling runs", metadata: ["event": "\(event)"])
            },
            handler: { [weak self] in self?.take($0) }
        )
        state.withLock { $0.puller = puller }
    }

    /// Keeps the durable consumer until its task is cancelled: makes it anew at the start and after each restart of
    /// the server, since an old server can lose the place of a consumer. What it delivers again is known to the core.
    func serve() async {
        let observer = context.connection.addObserver { [changes] event in
            switch event {
            case .connected(let server), .reconnected(let server): changes.sendOutcome(.server(server.serverID))
            case .disconnected, .closed, .asyncError: break
            }
        }
        defer { observer.cancel() }
        var server = context.connection.serverInfo?.serverID
        guard await makeConsumer() else { return }
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                let batch = await changes.receive()
                if batch.isEmpty { return }
                var isNeeded = false
                for change in batch {
                    switch change {
                    case .consumerMissing: isNeeded = true
                    case .server(let id):
                        isNeeded = isNeeded || id != server
                        server = id
                    }
                }
                guard isNeeded else { continue }
                guard await makeConsumer() else { return }
            }
        } onCancel: {
            changes.close()
        }
    }

    func close() { state.withLock { $0.puller.take() }?.close() }

    private func makeConsumer() async -> Bool {
        let config: JSON = [
            "durable_name": .string(context.names.runConsumer(context.gpu)), "ack_policy": "explicit",
            "deliver_policy": "all", "ack_wait": .int(Self.ackWait.wholeNanoseconds), "max_deliver": -1,
            "max_ack_pending": 1024, "filter_subject": .string(context.names.run(context.gpu)), "max_waiting": 64,
        ]
        while !Task.isCancelled {
            do {
                _ = try await context.jetStream.recreateConsumer(stream: context.names.runStream, config)
                state.withLock { $0.puller }?.retryNow()
                return true
            } catch {
                context.logger.warning("the consumer of runs cannot be made yet", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return false
    }

    func pull(_ count: Int) { state.withLock { $0.puller }?.request(count) }

    private func take(_ message: JetStreamMessage) {
        let token = MessageToken(message.metadata.streamSequence)
        state.withLock { $0.messages[token] = message }
        do throws(MalformedMessage) {
            let run = try RunMessage(parsing: message.payload, enqueueSubject: context.names.enqueueSubject)
            mailbox.send(.runReceived(run, token))
        } catch {
            mailbox.send(.badRunReceived(reason: error.description, Self.job(in: message.payload), token))
        }
    }

    /// The job that a message on the wrong subject names, if it can be told.
    private static func job(in payload: [UInt8]) -> JobID? {
        do {
            return try JSON(parsing: payload)["task_id"]?.stringValue.flatMap { JobID($0) }
        } catch {
            return nil
        }
    }

    // MARK: acknowledging

    /// An ack that is lost brings the message again, and its record tells that it is done.
    func ack(_ token: MessageToken) {
        acknowledge(token, isLast: true) { message throws(NATSError) in try message.ack() }
    }

    func nak(_ token: MessageToken, delay: Duration) {
        acknowledge(token, isLast: true) { message throws(NATSError) in
            try message.nak(delay: delay == .zero ? nil : delay)
        }
    }

    func inProgress(_ tokens: [MessageToken]) {
        for token in tokens {
            acknowledge(token, isLast: false) { message throws(NATSError) in try message.inProgress() }
        }
    }

    private func acknowledge(
        _ token: MessageToken,
        isLast: Bool,
        _ body: (JetStreamMessage) throws(NATSError) -> Void
    ) {
        let message = state.withLock { isLast ? $0.messages.removeValue(forKey: token) : $0.messages[token] }
        guard let message else { return }
        do throws(NATSError) {
            try body(message)
        } catch {
            context.logger.debug("a run message could not be acknowledged", metadata: ["error": "\(error)"])
        }
    }
}
