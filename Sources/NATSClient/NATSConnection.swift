import CNATS
import Dispatch
import EventLoop
import Synchronization
import WireJSON

/// A connection to the bus, which finds its way back for ever.
///
/// `start` works before any server is up. While there is no connection nothing is sent and nothing is kept to be sent
/// later: `publish` throws `notConnected`. Requests in flight end as `disconnected` when the connection drops: whether
/// the server took them is unknown.
///
/// Messages are read, handed over and sent on one event loop. Whatever is published in one round of it leaves in one
/// system call; from other threads a message is handed to the loop. No call blocks for the network.
package final class NATSConnection: Sendable {
    package let options: NATSConnectionOptions
    /// Where handlers are called. Tasks that mostly send and receive do best there, since then nothing has to be handed
    /// from thread to thread: see ``EventLoop``.
    package let loop: EventLoop
    let link: Mutex<ConnectionLink>
    let requests: RequestTable
    /// Lifecycle in order: opening, what the library reports, closing. Opening blocks.
    let lifecycle = DispatchQueue(label: "nats.lifecycle")
    /// Calls of the library that free things and wait for its locks.
    let cleanup = DispatchQueue(label: "nats.cleanup")
    private let flushes = DispatchQueue(label: "nats.flush")
    let pings = DispatchQueue(label: "nats.ping")
    /// Requests are answered on `<inbox>.<request number in base 16>`.
    private let inbox: RequestInbox
    private let replies: NATSSubscription

    /// Checks the options, including that the files in them can be read. Does not connect.
    package init(options: NATSConnectionOptions) throws(NATSError) {
        _ = try OptionsBuilder(options, urls: options.urls, session: 0, socket: CallbackRegistry.makeNumber())
        self.options = options
        do throws(Errno) {
            loop = try EventLoop()
        } catch {
            throw NATSError(.library, "make an event loop", cause: error.description)
        }
        requests = RequestTable(limit: options.maximumRequests)
        inbox = RequestInbox()
        link = Mutex(ConnectionLink(servers: ServerList(options.urls)))
        let (requests, inbox) = (requests, inbox)
        replies = NATSSubscription(
            subject: inbox.wildcard,
            queue: nil,
            connection: nil
        ) { arrival in
            switch arrival {
            case .message(let message): if let number = inbox.number(of: message) { requests.complete(number, message) }
            case .noResponders: requests.doubt(of: inbox.number)
            }
        }
        let replies = replies
        link.withLock { $0.subscriptions[replies.number] = WeakSubscription(replies) }
    }

    deinit {
        requests.failAll(.closed, cause: "the connection object is gone")
        let session = link.withLock { $0.session }
        cleanup.async { [loop] in
            session?.close()
            loop.stop()
        }
    }

    /// Begins to connect in the background and goes on for ever. Idempotent.
    package func start() throws(NATSError) {
        let phase = link.withLock { link in
            let phase = link.phase
            if phase == .idle { link.phase = .running }
            return phase
        }
        switch phase {
        case .idle: lifecycle.async { [weak self] in self?.open() }
        case .running: break
        case .closed: throw NATSError(.closed, "start")
        }
    }

    package var isConnected: Bool { link.withLock { $0.isConnected } }

    /// How often the connection has been made: 0 before the first time. A change means that everything the server
    /// kept for the old connection is gone.
    package var epoch: UInt64 { link.withLock { $0.epoch } }

    /// Changes whenever something comes from the server, if only a part of a message; nil while there is no connection.
    package var arrivals: ConnectionArrivals? {
        link.withLock { link in
            guard link.isConnected, let session = link.session else { return nil }
            return ConnectionArrivals(epoch: link.epoch, reads: session.reads)
        }
    }

    /// What is known of the server; nil while there is no connection.
    package var serverInfo: ServerInfo? { link.withLock { $0.isConnected ? $0.server : nil } }

    // MARK: Sending

    /// Sends a message to whoever listens now, without any answer.
    ///
    /// - Throws: `notConnected`, `congested`, `closed`, `badSubject`, `badHeader`, `tooLarge`: nothing was sent.
    package func publish(
        _ payload: [UInt8],
        to subject: String,
        replySubject: String? = nil,
        headers: NATSHeaders = [:]
    ) throws(NATSError) {
        try Subject.checkPublish(subject, "publish")
        var frame = Array(subject.utf8)
        frame.append(0)
        if let replySubject {
            try Subject.checkPublish(replySubject, "publish with reply subject")
            frame.append(contentsOf: replySubject.utf8)
        }
        frame.append(0)
        let block = try HeaderBlock(headers)
        frame.append(contentsOf: block.bytes)
        try send(frame, headerCount: block.count, payload, "publish", subject)
    }

    /// - Parameter frame: see `cnats_publish`.
    private func send(
        _ frame: [UInt8],
        headerCount: Int,
        _ payload: [UInt8],
        _ operation: StaticString,
        _ subject: String
    ) throws(NATSError) {
        let (session, isClosed) = link.withLock { ($0.isConnected ? $0.session : nil, $0.phase == .closed) }
        guard let session else {
            throw NATSError(isClosed ? .closed : .notConnected, operation.description, subject: subject)
        }
        if session.isCongested {
            throw NATSError(
                .congested,
                operation.description,
                subject: subject,
                cause: "the server takes nothing of what was sent before"
            )
        }
        let status = session.publish(frame, headerCount: headerCount, payload)
        if status == NATS_CONNECTION_CLOSED {
            throw NATSError(.notConnected, operation.description, subject: subject, cause: "it has just been lost")
        }
        if status != NATS_OK {
            throw NATSError(
                status: status,
                operation.description,
                subject: subject,
                detail: NATSSession.threadError()
            )
        }
    }

    /// Sends a request and waits for one answer, which has a subscription of its own.
    ///
    /// Not ended by the cancellation of the task: a request cannot be taken back, and its deadline bounds the wait.
    ///
    /// - Throws: `noResponders` if nobody listens, `timeout` or `disconnected` if no answer came (the effect is
    ///   unknown), or what `publish` throws.
    package func request(
        _ payload: [UInt8],
        to subject: String,
        headers: NATSHeaders = [:],
        deadline: Duration
    ) async throws(NATSError) -> NATSMessage {
        let own = RequestInbox()
        let requests = requests
        let answers = try subscribeRaw(own.wildcard) { arrival in
            switch arrival {
            case .message(let message): if let number = own.number(of: message) { requests.complete(number, message) }
            case .noResponders: requests.refuse(of: own.number)
            }
        }
        defer { answers.cancel() }
        return try await answer(payload, to: subject, headers, on: own, deadline: deadline)
    }

    /// The same for what is asked often and answered soon, as JetStream does: the answers share a subscription. That nobody
    /// listens is told a moment later, and perhaps also of other requests that are as long without an answer.
    func ask(
        _ payload: [UInt8],
        to subject: String,
        headers: NATSHeaders = [:],
        deadline: Duration
    ) async throws(NATSError) -> NATSMessage {
        try await answer(payload, to: subject, headers, on: inbox, deadline: deadline)
    }

    private func answer(
        _ payload: [UInt8],
        to subject: String,
        _ headers: NATSHeaders,
        on inbox: RequestInbox,
        deadline: Duration
    ) async throws(NATSError) -> NATSMessage {
        let block = try HeaderBlock(headers)
        let result: Result<NATSMessage, NATSError> = await withCheckedContinuation { continuation in
            ask(payload, to: subject, block, "request", on: inbox, deadline: deadline) { answer in
                continuation.resume(returning: answer.map { $0.copy() })
            }
        }
        return try result.get()
    }

    /// Asks; the completion is called exactly once, possibly before this returns.
    func ask(
        _ payload: [UInt8],
        to subject: String,
        _ headers: HeaderBlock,
        _ operation: StaticString,
        on own: RequestInbox? = nil,
        deadline: Duration,
        completion: @escaping RequestTable.Completion
    ) {
        let inbox = own ?? inbox
        let number: UInt64
        do {
            try Subject.checkPublish(subject, operation.description)
            let time = MonotonicClock.now + deadline.wholeNanoseconds
            number = try requests.add(operation, subject, inbox: inbox.number, deadline: time, completion: completion)
        } catch {
            return completion(.failure(error))
        }
        var frame: [UInt8] = []
        frame.reserveCapacity(subject.utf8.count + headers.bytes.count + 52)
        frame.append(contentsOf: subject.utf8)
        frame.append(0)
        inbox.append(replySubjectFor: number, to: &frame)
        frame.append(0)
        frame.append(contentsOf: headers.bytes)
        do {
            try send(frame, headerCount: headers.count, payload, operation, subject)
        } catch {
            // If it is gone already, it was completed by the loss of the connection.
            if requests.withdraw(number) { completion(.failure(error)) }
        }
    }

    // MARK: Receiving

    /// Subscribes to a subject, in which wildcards may stand. Works before the first connection and across all later
    /// ones. The subscription ends with the returned object.
    ///
    /// - Parameters:
    ///   - queue: the queue group, of which one member gets each message.
    ///   - handler: called on the loop, which serves everything of this connection: must not wait for anything that needs
    ///     it. While it waits, no more is read from the server. Calls for one subscription come in the order of arrival.
    package func subscribe(
        _ subject: String,
        queue: String? = nil,
        handler: @escaping @Sendable (NATSMessage) -> Void
    ) throws(NATSError) -> NATSSubscription {
        try subscribeRaw(subject, queue: queue) { arrival in
            if case .message(let message) = arrival { handler(message.copy()) }
        }
    }

    func subscribeRaw(
        _ subject: String,
        queue: String? = nil,
        handler: @escaping LibrarySubscription.Handler
    ) throws(NATSError) -> NATSSubscription {
        try Subject.checkSubscribe(subject, "subscribe")
        if let queue { try Subject.checkPublish(queue, "subscribe with queue group") }
        let subscription = NATSSubscription(
            subject: subject,
            queue: queue,
            connection: self,
            handler: handler
        )
        let session = try link.withLock { link throws(NATSError) -> NATSSession? in
            if link.phase == .closed { throw NATSError(.closed, "subscribe", subject: subject) }
            link.subscriptions[subscription.number] = WeakSubscription(subscription)
            return link.session
        }
        if let session { try subscription.install(on: session) }
        return subscription
    }

    func removeSubscription(_ number: UInt) { link.withLock { _ = $0.subscriptions.removeValue(forKey: number) } }

    /// Waits until the server has taken everything that was published before.
    package func flush(deadline: Duration) async throws(NATSError) {
        guard let session = link.withLock({ $0.isConnected ? $0.session : nil }) else {
            throw NATSError(.notConnected, "flush")
        }
        let status = await withCheckedContinuation { continuation in
            flushes.async { continuation.resume(returning: session.flush(milliseconds: deadline.wholeMilliseconds)) }
        }
        if status != NATS_OK { throw NATSError(status: status, "flush") }
    }

    /// Asks a server what it is: the one connected to, or in a cluster whichever answers first.
    ///
    /// The library does not show what the server said at connecting, so this goes through the statistics service
    /// that servers offer to every account.
    package func serverSoftware(deadline: Duration) async throws(NATSError) -> ServerSoftware {
        let subject = "$SYS.REQ.ACCOUNT.PING.STATZ"
        let answer = try await request([], to: subject, deadline: deadline)
        do {
            let server = try JSON(parsing: answer.payload)["server"]
            guard let version = server?["ver"]?.stringValue else {
                throw NATSError(.protocol, "ask for the version", subject: subject, cause: "the answer lacks it")
            }
            return ServerSoftware(
                name: server?["name"]?.stringValue ?? "",
                version: version,
                hasJetStream: server?["jetstream"]?.boolValue ?? false
            )
        } catch let error as NATSError {
            throw error
        } catch {
            throw NATSError(.protocol, "ask for the version", subject: subject, cause: "\(error)")
        }
    }
}
