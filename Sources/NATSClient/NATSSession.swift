import CNATS
import Dispatch
import EventLoop
import Glibc
import Synchronization

/// One connection, from the time when it stands until it is lost.
///
/// Unchecked: the library guards the object behind the pointer, and the pointer never changes.
@safe
final class NATSSession: @unchecked Sendable {
    enum Event: Sendable {
        case closed(NATSError?)
        case error(NATSError)
    }

    /// Under which the C callbacks find this session.
    let number: UInt
    private let handle: OpaquePointer
    private let socket: SessionSocket
    private let loop: EventLoop
    private let onEvent: @Sendable (NATSSession, Event) -> Void
    /// Closing waits for threads of the library, so it happens here.
    private let cleanup: DispatchQueue
    private let subscriptions = Mutex<[WeakLibrarySubscription]>([])
    private let readCount = Atomic<UInt64>(0)

    private struct WeakLibrarySubscription: Sendable { weak let subscription: LibrarySubscription? }

    /// Connects to the first server that takes a connection. Blocks for as long as that takes.
    ///
    /// - Parameters:
    ///   - urls: the servers, in the order in which they are tried.
    ///   - loop: where messages are read, handed over and sent.
    /// - Throws: `notConnected` when none can be reached.
    static func open(
        _ options: NATSConnectionOptions,
        urls: [String],
        loop: EventLoop,
        cleanup: DispatchQueue,
        onEvent: @escaping @Sendable (NATSSession, Event) -> Void
    ) throws(NATSError) -> NATSSession {
        let number = CallbackRegistry.makeNumber()
        let socket = SessionSocket(loop: loop, writeDeadline: options.writeDeadline)
        let builder = try OptionsBuilder(options, urls: urls, session: number, socket: socket.number)
        CallbackRegistry.add(socket)
        var handle: OpaquePointer?
        let status = unsafe natsConnection_Connect(&handle, builder.handle)
        guard let handle = unsafe handle, status == NATS_OK else {
            CallbackRegistry.removeSocket(socket.number)
            throw NATSError(
                status: status,
                "connect",
                subject: options.urls.joined(separator: ","),
                detail: threadError()
            )
        }
        let session = unsafe NATSSession(number, handle, socket, loop, cleanup: cleanup, onEvent: onEvent)
        CallbackRegistry.add(session)
        guard socket.activate(session) else {
            session.close()
            throw NATSError(.library, "connect", cause: "the system has no room to watch another socket")
        }
        return session
    }

    private init(
        _ number: UInt,
        _ handle: OpaquePointer,
        _ socket: SessionSocket,
        _ loop: EventLoop,
        cleanup: DispatchQueue,
        onEvent: @escaping @Sendable (NATSSession, Event) -> Void
    ) {
        self.number = number
        unsafe self.handle = handle
        self.socket = socket
        self.loop = loop
        self.cleanup = cleanup
        self.onEvent = onEvent
    }

    deinit {
        CallbackRegistry.removeSession(number)
        CallbackRegistry.removeSocket(socket.number)
        // Unchecked for the same reason as the class.
        nonisolated(unsafe) let handle = unsafe handle
        cleanup.asyncAfter(deadline: .now() + LibraryGrace.period) { unsafe natsConnection_Destroy(handle) }
    }

    func happened(_ event: Event) { onEvent(self, event) }

    /// Closes the connection for good and waits for the library's threads and for the loop. Not to be called on either.
    func close() {
        CallbackRegistry.removeSession(number)
        // First, so that the library does not take away what the loop is reading with.
        socket.finish()
        unsafe natsConnection_Close(handle)
    }

    // MARK: on the loop

    /// How often something was read.
    var reads: UInt64 { readCount.load(ordering: .relaxed) }

    /// Reads once, and hands over what has come.
    func read() {
        readCount.add(1, ordering: .relaxed)
        unsafe natsConnection_ProcessReadEvent(handle)
        for one in subscriptions.withLock({ $0 }) { one.subscription?.deliver() }
    }

    /// Writes once, as much as the socket takes.
    func write() { unsafe natsConnection_ProcessWriteEvent(handle) }

    /// The server has not answered: the connection is made anew.
    func giveUp() { socket.giveUp() }

    // MARK: sending and subscribing

    /// More bytes wait for the server than may: nothing is taken on until it has read some.
    var isCongested: Bool { socket.mayBeBlocked && buffered > Self.maximumBuffered }

    /// Bytes that wait for the server.
    var buffered: Int32 { unsafe natsConnection_Buffered(handle) }

    /// Bytes that may wait while the server takes none; several of the largest messages.
    private static let maximumBuffered: Int32 = 32 << 20

    /// Whether the connection is lost. Asked after `open`, because a callback that came before the session was registered
    /// found nothing.
    var isClosed: Bool { unsafe natsConnection_IsClosed(handle) }
    var isConnected: Bool { unsafe natsConnection_Status(handle) == NATS_CONN_STATUS_CONNECTED }

    /// - Parameter frame: see `cnats_publish`.
    func publish(_ frame: [UInt8], headerCount: Int, _ payload: [UInt8]) -> natsStatus {
        var made: OpaquePointer?
        let status = unsafe frame.withUnsafeBytes { frame in
            unsafe payload.withUnsafeBytes { payload in
                unsafe cnats_publish(
                    handle,
                    frame.baseAddress?.assumingMemoryBound(to: CChar.self),
                    Int32(headerCount),
                    payload.baseAddress,
                    Int32(payload.count),
                    &made
                )
            }
        }
        if let made = unsafe made { unsafe MessageReturn.giveBack(made) }
        return status
    }

    /// Subscribes. Throws `closed` when the connection has been lost.
    func subscribe(
        _ subject: String,
        queue: String?,
        handler: @escaping LibrarySubscription.Handler
    ) throws(NATSError) -> LibrarySubscription {
        var subscription: OpaquePointer?
        let status =
            if let queue {
                unsafe natsConnection_QueueSubscribeSync(&subscription, handle, subject, queue)
            } else {
                unsafe natsConnection_SubscribeSync(&subscription, handle, subject)
            }
        guard status == NATS_OK, let subscription = unsafe subscription else {
            throw NATSError(status: status, "subscribe", subject: subject, detail: Self.threadError())
        }
        // No limit is needed: what one read brings is handed over before the next. Fails only if the subscription has
        // ended already.
        _ = unsafe natsSubscription_SetPendingLimits(subscription, -1, -1)
        let made = unsafe LibrarySubscription(subscription, cleanup: cleanup, handler: handler)
        subscriptions.withLock { all in
            all.removeAll { $0.subscription == nil }
            all.append(WeakLibrarySubscription(subscription: made))
        }
        // The loop may have read its first message before it could see it.
        loop.post { [weak made] in made?.deliver() }
        return made
    }

    /// Waits until the server has taken everything sent so far. Blocks.
    func flush(milliseconds: Int64) -> natsStatus { unsafe natsConnection_FlushTimeout(handle, milliseconds) }

    /// The largest payload that the server takes, in bytes; 0 while unknown.
    var maximumPayload: Int64 { unsafe natsConnection_GetMaxPayload(handle) }

    var serverID: String {
        unsafe text { buffer, size in unsafe natsConnection_GetConnectedServerId(handle, buffer, size) }
    }

    /// The address of the server that this session is connected to; empty while it is not.
    var serverURL: String {
        unsafe text { buffer, size in unsafe natsConnection_GetConnectedUrl(handle, buffer, size) }
    }

    private func text(_ read: (UnsafeMutablePointer<CChar>?, Int) -> natsStatus) -> String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            guard unsafe read(buffer.baseAddress, buffer.count) == NATS_OK, let start = buffer.baseAddress else {
                return ""
            }
            return unsafe String(cString: start)
        }
    }

    /// The servers that the cluster is said to have besides those that were tried.
    func discoveredServers() -> [String] {
        var list: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
        var count: Int32 = 0
        guard unsafe natsConnection_GetDiscoveredServers(handle, &list, &count) == NATS_OK, let list = unsafe list
        else {
            return []
        }
        defer { unsafe free(list) }
        var servers: [String] = []
        for index in 0..<Int(count) {
            guard let one = unsafe list[index] else { continue }
            servers.append(unsafe String(cString: one))
            unsafe free(one)
        }
        return servers
    }

    /// Why the connection was lost, if the library says.
    static func lastError(of connection: OpaquePointer?) -> NATSError? {
        var text: UnsafePointer<CChar>?
        let status = unsafe natsConnection_GetLastError(connection, &text)
        if status == NATS_OK { return nil }
        return unsafe NATSError(status: status, "connection", detail: text.map { unsafe String(cString: $0) })
    }

    /// The library's words about the last failed call on this thread.
    static func threadError() -> String? {
        unsafe nats_GetLastError(nil).map { unsafe String(cString: $0) }
    }
}

/// One subscription object of the C library; ends with its last reference.
///
/// Unchecked: the library guards the object behind the pointer, and the pointer never changes.
@safe
final class LibrarySubscription: @unchecked Sendable {
    /// Takes what has come on the loop; must not block.
    typealias Handler = @Sendable (Arrival) -> Void

    enum Arrival {
        case message(RawMessage)
        /// The server's word that nobody listens where something was sent to with this subscription for the answer. The
        /// library does not tell on which subject it came.
        case noResponders
    }

    private let handle: OpaquePointer
    private let cleanup: DispatchQueue
    private let handler: Handler
    private let isEnded = Atomic(false)

    init(_ handle: OpaquePointer, cleanup: DispatchQueue, handler: @escaping Handler) {
        unsafe self.handle = handle
        self.cleanup = cleanup
        self.handler = handler
    }

    deinit {
        // It takes the connection's lock, which a write may hold for long.
        // Unchecked for the same reason as the class.
        nonisolated(unsafe) let handle = unsafe handle
        cleanup.async { unsafe _ = natsSubscription_Unsubscribe(handle) }
        cleanup.asyncAfter(deadline: .now() + LibraryGrace.period) { unsafe natsSubscription_Destroy(handle) }
    }

    /// Hands nothing over any more.
    func end() { isEnded.store(true, ordering: .relaxed) }

    /// Hands over what waits.
    func deliver() {
        var waiting: Int32 = 0
        // Fails for one that has ended.
        guard unsafe natsSubscription_GetPending(handle, &waiting, nil) == NATS_OK else { return }
        for _ in 0..<waiting {
            var message: OpaquePointer?
            let status = unsafe natsSubscription_NextMsg(&message, handle, 0)
            let isWanted = !isEnded.load(ordering: .relaxed)
            if let message = unsafe message {
                if isWanted { unsafe handler(.message(RawMessage(message))) }
                unsafe MessageReturn.giveBack(message)
            } else if status == NATS_NO_RESPONDERS {
                if isWanted { handler(.noResponders) }
            } else {
                return
            }
        }
    }
}

/// How long an ended object of the C library is kept before it is freed.
///
/// libnats 3.4.1 can still be inside an object on a thread of its own when the call that ends it returns: freeing it at
/// once corrupts the heap in about one of a hundred stress runs.
private enum LibraryGrace {
    static let period = DispatchTimeInterval.seconds(2)
}
