import CNATS
import Dispatch
import Synchronization
import WireJSON

/// A connection to the bus, which finds its way back for ever.
///
/// `start` works before any server is up. While there is no connection nothing is sent and nothing is kept to be sent
/// later: `publish` throws `notConnected`. Requests in flight end as `disconnected` when the connection drops: whether
/// the server took them is unknown.
///
/// No call blocks for the network, except that a write waits while the server takes no more bytes (the flow control
/// of the protocol), up to the write deadline of the options.
package final class NATSConnection: Sendable {
    package let options: NATSConnectionOptions
    let link: Mutex<ConnectionLink>
    let requests: RequestTable
    /// Lifecycle in order: opening, what the library reports, closing. Opening blocks.
    let lifecycle = DispatchQueue(label: "nats.lifecycle")
    /// Calls of the library that free things and wait for its locks.
    let cleanup = DispatchQueue(label: "nats.cleanup")
    private let flushes = DispatchQueue(label: "nats.flush")
    /// Requests are answered on `<inbox>.<request number in base 16>`.
    private let inbox: RequestInbox
    private let replies: NATSSubscription

    /// Checks the options, including that the files in them can be read. Does not connect.
    package init(options: NATSConnectionOptions) throws(NATSError) {
        _ = try OptionsBuilder(options, session: 0)
        self.options = options
        requests = RequestTable(limit: options.maximumRequests)
        inbox = RequestInbox()
        link = Mutex(ConnectionLink())
        let (requests, inbox) = (requests, inbox)
        replies = NATSSubscription(
            subject: inbox.wildcard,
            queue: nil,
            limit: .unlimited,
            connection: nil
        ) { message in
            if let number = inbox.number(of: message) { requests.complete(number, message) }
        }
        let replies = replies
        link.withLock { $0.subscriptions[replies.number] = WeakSubscription(replies) }
    }

    deinit {
        requests.failAll(.closed, cause: "the connection object is gone")
        guard let session = link.withLock({ $0.session }) else { return }
        cleanup.async { session.close() }
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

    /// What is known of the server; nil while there is no connection.
    package var serverInfo: ServerInfo? { link.withLock { $0.isConnected ? $0.server : nil } }

    // MARK: Sending

    /// Sends a message to whoever listens now, without any answer.
    ///
    /// - Throws: `notConnected`, `closed`, `badSubject`, `badHeader`, `tooLarge`: nothing was sent; `disconnected`,
    ///   `timeout`: the connection broke while writing.
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
        let status = session.publish(frame, headerCount: headerCount, payload)
        if status != NATS_OK {
            throw NATSError(
                status: status,
                operation.description,
                subject: subject,
                detail: NATSSession.threadError()
            )
        }
    }

    /// Sends a request and waits for one answer.
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
        let block = try HeaderBlock(headers)
        let result: Result<NATSMessage, NATSError> = await withCheckedContinuation { continuation in
            request(payload, to: subject, block, "request", deadline: deadline) { answer in
                continuation.resume(returning: answer.map { $0.copy() })
            }
        }
        let message = try result.get()
        if message.isNoResponders { throw NATSError(.noResponders, "request", subject: subject) }
        return message
    }

    /// Sends a request; the completion is called exactly once, possibly before this returns.
    func request(
        _ payload: [UInt8],
        to subject: String,
        _ headers: HeaderBlock,
        _ operation: StaticString,
        deadline: Duration,
        completion: @escaping RequestTable.Completion
    ) {
        let number: UInt64
        do {
            try Subject.checkPublish(subject, operation.description)
            let time = MonotonicClock.now + deadline.wholeNanoseconds
            number = try requests.add(operation, subject, deadline: time, completion: completion)
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
    ///   - pendingLimit: how many messages may wait for the handler.
    ///   - handler: called on a thread that delivers to other subscriptions too: must not block. Calls for one
    ///     subscription come one after the other, in the order of arrival.
    package func subscribe(
        _ subject: String,
        queue: String? = nil,
        pendingLimit: PendingLimit = .standard,
        handler: @escaping @Sendable (NATSMessage) -> Void
    ) throws(NATSError) -> NATSSubscription {
        try subscribeRaw(subject, queue: queue, pendingLimit: pendingLimit) { handler($0.copy()) }
    }

    func subscribeRaw(
        _ subject: String,
        queue: String? = nil,
        pendingLimit: PendingLimit,
        handler: @escaping CallbackRegistry.MessageHandler
    ) throws(NATSError) -> NATSSubscription {
        try Subject.checkSubscribe(subject, "subscribe")
        if let queue { try Subject.checkPublish(queue, "subscribe with queue group") }
        let subscription = NATSSubscription(
            subject: subject,
            queue: queue,
            limit: pendingLimit,
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
