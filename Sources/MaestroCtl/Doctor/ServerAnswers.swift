import JobTransport
import NATSClient
import WireJSON

/// Asks all servers of a cluster at once and collects their answers.
enum ServerAnswers {
    private enum Event: Sendable {
        case answer(JSON)
        case quiet
        case deadline
    }

    /// The answers that come until none has come for a while.
    /// - Returns: none when nobody answers, or the account may not ask.
    static func gather(_ client: PoolClient, _ subject: String) async throws(NATSError) -> [JSON] {
        let mailbox = Mailbox<Event>()
        let inbox = "_INBOX.doctor\(UInt64.random(in: 0 ... .max))"
        let subscription = try client.connection.subscribe(inbox) { message in
            do {
                mailbox.sendOutcome(.answer(try JSON(parsing: message.payload)))
            } catch {
                // The word that nobody listens has no payload.
                mailbox.sendOutcome(.quiet)
            }
        }
        defer { subscription.cancel() }
        let quiet = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.quiet) }
        let deadline = DeadlineTimer(on: client.connection.loop) { mailbox.sendOutcome(.deadline) }
        deadline.arm(after: .seconds(2))
        defer {
            quiet.cancel()
            deadline.cancel()
        }
        try client.connection.publish([], to: subject, replySubject: inbox)
        var answers: [JSON] = []
        while true {
            for event in await mailbox.receive() {
                switch event {
                case .answer(let json):
                    answers.append(json)
                    quiet.arm(after: .milliseconds(300))
                case .quiet, .deadline: return answers
                }
            }
        }
    }
}
