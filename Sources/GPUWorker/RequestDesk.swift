import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// Takes the leader's requests to this worker, and answers them; and tells every new leader that this worker lives.
final class RequestDesk: Sendable {
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
    private let caches: CacheDesk
    private let state = Mutex(State())

    init(context: WorkerContext, mailbox: Mailbox<WorkerEvent>, pulse: WorkerPulse, caches: CacheDesk) {
        self.context = context
        self.mailbox = mailbox
        self.pulse = pulse
        self.caches = caches
    }

    func start() throws(NATSError) {
        var subscriptions: [NATSSubscription] = []
        for verb in WorkerRequest.Verb.allCases {
            subscriptions.append(
                try context.connection.subscribe(context.names.workerRequest(context.gpu, verb)) { [weak self] in
                    self?.take(verb, $0)
                }
            )
        }
        subscriptions.append(
            try context.connection.subscribe(context.names.maestroEvent("state")) { [weak self] in self?.greet($0) }
        )
        state.withLock { $0.subscriptions = subscriptions }
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
            guard try JSON(parsing: message.payload)["event"] == "leading" else { return }
            pulse.beat()
            caches.beat()
        } catch {
            context.logger.debug(
                "ignored a message",
                metadata: ["subject": "\(message.subject)", "reason": "\(error)"]
            )
        }
    }

    private func take(_ verb: WorkerRequest.Verb, _ message: NATSMessage) {
        let request: WorkerRequest
        do throws(MalformedMessage) {
            request = try WorkerRequest(verb, parsing: message.payload)
        } catch {
            return answer(message.replySubject, .refused(error.description))
        }
        let token = state.withLock { state -> RequestToken? in
            guard state.waiting.count < Self.limit else { return nil }
            state.number += 1
            let token = RequestToken(state.number)
            if let subject = message.replySubject { state.waiting[token] = subject }
            return token
        }
        guard let token else { return answer(message.replySubject, .refused("too many requests wait; try again")) }
        mailbox.send(WorkerEvent(request, token))
    }

    func reply(_ token: RequestToken, _ reply: WorkerAnswer) {
        answer(state.withLock { $0.waiting.removeValue(forKey: token) }, reply)
    }

    private func answer(_ subject: String?, _ answer: WorkerAnswer) {
        guard let subject else { return }
        context.publish(answer.encoded(), on: subject)
    }
}

extension WorkerEvent {
    fileprivate init(_ request: WorkerRequest, _ token: RequestToken) {
        switch request {
        case .cancel(let job, let attempt): self = .cancelAsked(job, attempt, token)
        case .evict(let job, let attempt, let code, let reason):
            self = .evictAsked(job, attempt, code, reason: reason, token)
        case .probe: self = .probeAsked(token)
        }
    }
}
