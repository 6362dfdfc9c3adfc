import Logging
import NATSClient
import Synchronization
import WireJSON

/// A durable pull consumer that is there as long as its owner serves it.
///
/// It is made anew at the start, when it is missing, and with each new connection: what the server had sent into the lost
/// one would else come only after the ack wait, and an old server that was killed can lose the place of a consumer. So what
/// is not acked then comes again, and its receiver must know it by its record.
package final class DurableConsumer: Sendable {
    /// How long the server waits for an ack before it delivers again.
    package static let ackWait = Duration.seconds(30)

    /// What it is.
    package struct Description: Sendable {
        package var stream: String
        package var name: String
        /// The subject whose messages it delivers.
        package var subject: String
        /// How many messages may be delivered and not yet acked.
        package var maxAckPending: Int
        /// The most messages that are asked for at one time.
        package var capacity: Int
        /// What its messages are, for the log: "submissions".
        package var content: String

        package init(
            stream: String,
            name: String,
            subject: String,
            maxAckPending: Int,
            capacity: Int,
            content: String
        ) {
            self.stream = stream
            self.name = name
            self.subject = subject
            self.maxAckPending = maxAckPending
            self.capacity = capacity
            self.content = content
        }

        /// The consumer as the server's API takes it.
        fileprivate var configuration: JSON {
            [
                "durable_name": .string(name), "ack_policy": "explicit", "deliver_policy": "all",
                "ack_wait": .int(DurableConsumer.ackWait.wholeNanoseconds), "max_deliver": -1,
                "max_ack_pending": .int(maxAckPending), "filter_subject": .string(subject), "max_waiting": 64,
            ]
        }
    }

    private struct State {
        var puller: PullConsumer?
        /// What was asked for before there was a consumer to ask.
        var earlyDemand = 0
        var isClosed = false
    }

    private let jetStream: JetStream
    private let description: Description
    private let logger: Logger
    /// Something happened after which the consumer may be gone, or may have given messages to nobody.
    private let doubts = Mailbox<Void>(capacity: 64)
    private let state = Mutex(State())

    package init(_ jetStream: JetStream, _ description: Description, logger: Logger) {
        self.jetStream = jetStream
        self.description = description
        self.logger = logger
    }

    /// Asks for that many messages more.
    package func request(_ count: Int) {
        let puller = state.withLock { state in
            if state.puller == nil { state.earlyDemand += count }
            return state.puller
        }
        puller?.request(count)
    }

    /// Keeps the consumer until its task is cancelled or it is closed. Pulling goes on until it is closed.
    /// - Parameter take: gets the messages one after the other, on a thread of the client; must not block for long.
    package func serve(_ take: @escaping @Sendable (JetStreamMessage) -> Void) async {
        let observer = jetStream.connection.addObserver { [doubts] event in
            switch event {
            case .connected, .reconnected: doubts.sendOutcome(())
            case .disconnected, .closed, .asyncError: break
            }
        }
        defer { observer.cancel() }
        await withTaskCancellationHandler {
            while !Task.isCancelled {
                guard await make(take), !(await doubts.receive().isEmpty) else { return }
            }
        } onCancel: {
            doubts.close()
        }
    }

    /// Ends the keeping and the pulling.
    package func close() {
        doubts.close()
        let puller = state.withLock { state in
            state.isClosed = true
            return state.puller.take()
        }
        puller?.close()
    }

    /// Makes the consumer anew, and pulls from it.
    /// - Returns: false when the task was cancelled or the consumer closed before that worked.
    private func make(_ take: @escaping @Sendable (JetStreamMessage) -> Void) async -> Bool {
        while !Task.isCancelled, !state.withLock({ $0.isClosed }) {
            do {
                _ = try await jetStream.recreateConsumer(stream: description.stream, description.configuration)
                try pull(take)
                return true
            } catch {
                logger.warning(
                    "the consumer of \(description.content) cannot be made yet",
                    metadata: ["error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
        return false
    }

    private func pull(_ take: @escaping @Sendable (JetStreamMessage) -> Void) throws(NATSError) {
        if let puller = state.withLock({ $0.puller }) { return puller.retryNow() }
        var options = PullConsumer.Options()
        options.capacity = description.capacity
        let puller = try PullConsumer(
            jetStream,
            stream: description.stream,
            consumer: description.name,
            options: options,
            onEvent: { [doubts, logger, content = description.content] event in
                if event == .consumerMissing { doubts.sendOutcome(()) }
                logger.debug("pulling \(content)", metadata: ["event": "\(event)"])
            },
            handler: take
        )
        let demand = state.withLock { state -> Int? in
            guard !state.isClosed else { return nil }
            state.puller = puller
            defer { state.earlyDemand = 0 }
            return state.earlyDemand
        }
        guard let demand else { return puller.close() }
        puller.request(demand)
    }
}
