import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON
import WorkerCore

/// Takes the leader's requests to this worker, and answers them; and tells every new leader that this worker lives.
final class RequestDesk: Sendable {
    private let context: WorkerContext
    private let mailbox: Mailbox<WorkerEvent>
    private let pulse: WorkerPulse
    private let caches: CacheDesk
    private let pending = PendingRequests(limit: 1024)
    private let subscriptions = Mutex<[NATSSubscription]>([])

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
        self.subscriptions.withLock { $0 = subscriptions }
    }

    func stop() {
        let subscriptions = subscriptions.withLock { subscriptions in
            defer { subscriptions = [] }
            return subscriptions
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
        guard let token = pending.add(message.replySubject) else {
            return answer(message.replySubject, .refused("too many requests wait; try again"))
        }
        mailbox.send(WorkerEvent(request, token))
    }

    func reply(_ token: RequestToken, _ reply: WorkerAnswer) {
        answer(pending.take(token), reply)
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
