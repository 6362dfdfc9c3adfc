import JobTransport
import NATSClient
import ServiceSupport

/// Reads what a stream holds now, to its end.
enum Replay {
    private enum Event: Sendable {
        case message(StoredMessage)
        case end
        case failed(JetStreamError)
        case deadline
    }

    /// Hands over the record of every job as it stands now.
    static func records(
        _ client: PoolClient,
        what: String,
        _ take: (StoredMessage) throws -> Void
    ) async throws {
        let names = client.names
        try await run(client, stream: names.jobsStream, subject: names.statePrefix + ".*", what: what, take)
    }

    /// Hands over the messages of a stream in order until all that it held are there.
    /// - Parameters:
    ///   - headersOnly: leave the payloads out.
    ///   - what: what is read, for messages: "the jobs".
    ///   - silence: how long nothing may arrive before the server counts as gone.
    static func run(
        _ client: PoolClient,
        stream: String,
        subject: String,
        policy: DeliverPolicy = .lastPerSubject,
        headersOnly: Bool = false,
        what: String,
        silence: Duration = .seconds(10),
        _ take: (StoredMessage) throws -> Void
    ) async throws {
        let mailbox = Mailbox<Event>(capacity: 65_536)
        var options = OrderedConsumer.Options()
        options.deliverPolicy = policy
        options.filterSubject = subject
        options.headersOnly = headersOnly
        let consumer = try OrderedConsumer(client.jetStream, stream: stream, options: options) { event in
            switch event {
            case .message(let message, _): mailbox.send(.message(message))
            case .caughtUp: mailbox.send(.end)
            case .recreated: break
            case .failed(let error): mailbox.send(.failed(error))
            }
        }
        let timer = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.deadline) }
        defer {
            // Closed first, so that a sender that waits for room goes on.
            mailbox.close()
            consumer.close()
            timer.cancel()
        }
        while true {
            timer.arm(after: silence)
            for event in await mailbox.receive() {
                switch event {
                case .message(let message): try take(message)
                case .end: return
                case .failed(let error): throw PoolClient.failure(error, what)
                case .deadline: throw FatalError(.unavailable, "\(what): the server fell silent")
                }
            }
        }
    }
}
