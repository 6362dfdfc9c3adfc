import Crypto
import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import Synchronization
import WireJSON

/// Pulls submissions for the core, and acknowledges what it has settled.
final class SubmissionDesk: Sendable {
    private struct State {
        var number: UInt64 = 0
        var unsettled: [UInt64: JetStreamMessage] = [:]
        var serverClockOffset = Duration.zero
    }

    private let context: MaestroContext
    private let mailbox: Mailbox<SchedulerEvent>
    private let consumer: DurableConsumer
    private let state = Mutex(State())

    init(context: MaestroContext, mailbox: Mailbox<SchedulerEvent>) {
        self.context = context
        self.mailbox = mailbox
        let description = DurableConsumer.Description(
            stream: context.names.workQueueStream,
            name: context.names.enqueueConsumer,
            subject: context.names.enqueueSubject,
            maxAckPending: context.settings.policy.admissionWindow * 4,
            capacity: context.settings.policy.admissionWindow,
            content: "submissions"
        )
        consumer = DurableConsumer(context.jetStream, description, logger: context.logger)
    }

    /// What to add to a time of the server to get one of ours.
    var serverClockOffset: Duration {
        get { state.withLock { $0.serverClockOffset } }
        set { state.withLock { $0.serverClockOffset = newValue } }
    }

    /// Keeps the consumer until its task is cancelled. Submissions that come again are known by their records.
    func serve() async { await consumer.serve { [weak self] in self?.take($0) } }

    func stop() { consumer.close() }

    /// Asks for that many submissions more.
    func pull(_ count: Int) { consumer.request(count) }

    private func take(_ message: JetStreamMessage) {
        let (token, offset) = state.withLock { state in
            state.number += 1
            state.unsettled[state.number] = message
            return (state.number, state.serverClockOffset)
        }
        let stored = Timestamp(nanoseconds: message.metadata.timestamp) + offset
        mailbox.send(
            .submitted(
                Submission(
                    bytes: message.payload,
                    digest: Self.digest(message.payload),
                    sequence: message.metadata.streamSequence,
                    timestamp: message.metadata.timestamp,
                    age: context.clock.now() - stored,
                    token: token
                )
            )
        )
    }

    /// Acknowledges settled submissions. An ack that is lost brings the submission again, and its record tells it.
    func settle(_ tokens: [UInt64]) {
        for token in tokens {
            guard let message = state.withLock({ $0.unsettled.removeValue(forKey: token) }) else { continue }
            do throws(NATSError) {
                try message.ack()
            } catch {
                context.logger.debug("a submission could not be acknowledged", metadata: ["error": "\(error)"])
            }
        }
    }

    private static func digest(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text = Array("sha256:".utf8)
        for byte in SHA256.hash(data: bytes) {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}
