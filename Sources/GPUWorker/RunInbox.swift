import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// Pulls the run messages of this card, and acknowledges them when the core says so.
final class RunInbox: Sendable {
    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let consumer: DurableConsumer
    /// Where to acknowledge: the newest delivery of each message.
    private let messages = Mutex<[MessageToken: JetStreamMessage]>([:])

    init(context: WorkerContext, mailbox: Mailbox<WorkerEvent>) {
        self.context = context
        self.mailbox = mailbox
        let description = DurableConsumer.Description(
            stream: context.names.runStream,
            name: context.names.runConsumer(context.gpu),
            subject: context.names.run(context.gpu),
            maxAckPending: 1024,
            capacity: 256,
            content: "runs"
        )
        consumer = DurableConsumer(context.jetStream, description, logger: context.logger)
    }

    /// Keeps the consumer until its task is cancelled. What is delivered again is known to the core.
    func serve() async { await consumer.serve { [weak self] in self?.take($0) } }

    func close() { consumer.close() }

    func pull(_ count: Int) { consumer.request(count) }

    private func take(_ message: JetStreamMessage) {
        let token = MessageToken(message.metadata.streamSequence)
        messages.withLock { $0[token] = message }
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
        let message = messages.withLock { isLast ? $0.removeValue(forKey: token) : $0[token] }
        guard let message else { return }
        do throws(NATSError) {
            try body(message)
        } catch {
            context.logger.debug("a run message could not be acknowledged", metadata: ["error": "\(error)"])
        }
    }
}
