import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// Takes the leader's requests to kill an attempt, and answers them; and tells every new leader that this worker lives.
final class CancelDesk: Sendable {
    private struct State {
        var number: UInt64 = 0
        var waiting: [RequestToken: String] = [:]
        var subscriptions: [NATSSubscription] = []
    }

    /// Requests that may wait for their answer at once.
    private static let limit = 1024

    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let pulse: WorkerPulse
    private let state = Mutex(State())

    init(context: WorkerContext, mailbox: Mailbox<WorkerEvent>, pulse: WorkerPulse) {
        self.context = context
        self.mailbox = mailbox
        self.pulse = pulse
    }

    func start() throws(NATSError) {
        let cancels = try context.connection.subscribe(context.names.workerRequest(context.gpu, .cancel)) {
            [weak self] message in
            self?.take(message)
        }
        let leaders = try context.connection.subscribe(context.names.maestroEvent("state")) { [weak self] message in
            self?.greet(message)
        }
        state.withLock { $0.subscriptions = [cancels, leaders] }
    }

    func stop() {
        let subscriptions = state.withLock { state in
            defer { state.subscriptions = [] }
            return state.subscriptions
        }
        for subscription in subscriptions { subscription.cancel() }
    }

    /// A new leader knows this worker from its registration alone: it places nothing here before the first heartbeat.
    private func greet(_ message: NATSMessage) {
        do {
            if try JSON(parsing: message.payload)["event"] == "leading" { pulse.beat() }
        } catch {
            context.logger.debug(
                "ignored a message",
                metadata: ["subject": "\(message.subject)", "reason": "\(error)"]
            )
        }
    }

    private func take(_ message: NATSMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: message.payload)
        } catch {
            return answer(message.replySubject, ok: false, error: "the request is \(error)")
        }
        guard let job = body["task_id"]?.stringValue.flatMap({ JobID($0) }),
            let attempt = body["attempt_id"]?.stringValue.flatMap({ AttemptID($0) })
        else { return answer(message.replySubject, ok: false, error: "task_id or attempt_id is missing or not an id") }
        let token = state.withLock { state -> RequestToken? in
            guard state.waiting.count < Self.limit else { return nil }
            state.number += 1
            let token = RequestToken(state.number)
            if let subject = message.replySubject { state.waiting[token] = subject }
            return token
        }
        guard let token else {
            return answer(message.replySubject, ok: false, error: "too many requests wait; try again")
        }
        mailbox.send(.cancelAsked(job, attempt, token))
    }

    func reply(_ token: RequestToken, ok: Bool, error: String) {
        answer(state.withLock { $0.waiting.removeValue(forKey: token) }, ok: ok, error: error)
    }

    private func answer(_ subject: String?, ok: Bool, error: String) {
        guard let subject else { return }
        let body: JSON = ok ? ["ok": true] : ["ok": false, "error": .string(error)]
        context.publish(body.encoded(), on: subject)
    }
}
