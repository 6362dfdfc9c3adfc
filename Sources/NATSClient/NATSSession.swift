import CNATS
import Dispatch
import Synchronization

/// One connection object of the C library, which reconnects by itself until the library gives it up (it does so when
/// the server refuses the credentials twice, or sends an error that it does not know).
///
/// Unchecked: the library guards the object behind the pointer, and the pointer never changes.
@safe
final class NATSSession: @unchecked Sendable {
    enum Event: Sendable {
        case connected
        case reconnected
        case disconnected(NATSError?)
        case closed(NATSError?)
        case error(NATSError)
    }

    /// Under which the C callbacks find this session.
    let number: UInt
    private let handle: OpaquePointer
    private let onEvent: @Sendable (NATSSession, Event) -> Void
    /// Closing waits for threads of the library, so it happens here.
    private let cleanup: DispatchQueue

    /// Makes the object and tries each server once. Blocks for as long as that takes.
    ///
    /// - Returns: the session, and whether it is connected already; else it goes on trying in the background.
    static func open(
        _ options: NATSConnectionOptions,
        cleanup: DispatchQueue,
        onEvent: @escaping @Sendable (NATSSession, Event) -> Void
    ) throws(NATSError) -> (NATSSession, isConnected: Bool) {
        let number = CallbackRegistry.makeNumber()
        let builder = try OptionsBuilder(options, session: number)
        var handle: OpaquePointer?
        let status = unsafe natsConnection_Connect(&handle, builder.handle)
        guard let handle = unsafe handle, status == NATS_OK || status == NATS_NOT_YET_CONNECTED else {
            throw NATSError(
                status: status,
                "connect",
                subject: options.urls.joined(separator: ","),
                detail: threadError()
            )
        }
        let session = unsafe NATSSession(number: number, handle: handle, cleanup: cleanup, onEvent: onEvent)
        CallbackRegistry.add(session)
        return (session, status == NATS_OK)
    }

    private init(
        number: UInt,
        handle: OpaquePointer,
        cleanup: DispatchQueue,
        onEvent: @escaping @Sendable (NATSSession, Event) -> Void
    ) {
        self.number = number
        unsafe self.handle = handle
        self.cleanup = cleanup
        self.onEvent = onEvent
    }

    deinit {
        CallbackRegistry.removeSession(number)
        // Unchecked for the same reason as the class.
        nonisolated(unsafe) let handle = unsafe handle
        cleanup.asyncAfter(deadline: .now() + LibraryGrace.period) { unsafe natsConnection_Destroy(handle) }
    }

    func happened(_ event: Event) { onEvent(self, event) }

    /// Closes the connection for good and waits for the library's threads. Not to be called from a callback.
    func close() {
        CallbackRegistry.removeSession(number)
        unsafe natsConnection_Close(handle)
    }

    /// Whether the library has given the connection up. Asked after `open`, because a callback that came before the
    /// session was registered found nothing.
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

    /// Subscribes; while there is no connection the library does it at the next one.
    func subscribe(_ subject: String, queue: String?, handler: UInt, limit: PendingLimit) throws(NATSError)
        -> LibrarySubscription
    {
        var subscription: OpaquePointer?
        let context = unsafe cnats_context(handler)
        let status =
            if let queue {
                unsafe natsConnection_QueueSubscribe(
                    &subscription,
                    handle,
                    subject,
                    queue,
                    LibraryCallback.message,
                    context
                )
            } else {
                unsafe natsConnection_Subscribe(&subscription, handle, subject, LibraryCallback.message, context)
            }
        guard status == NATS_OK, let subscription = unsafe subscription else {
            throw NATSError(status: status, "subscribe", subject: subject, detail: Self.threadError())
        }
        let made = unsafe LibrarySubscription(subscription, cleanup: cleanup)
        // Fails only if the subscription has ended already, and then there is nothing to limit.
        _ = unsafe natsSubscription_SetPendingLimits(subscription, limit.messages, limit.bytes)
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

/// How many messages may wait for a subscription's handler; what comes beyond is dropped, with a `slowConsumer` error.
package struct PendingLimit: Sendable {
    /// -1 for no limit.
    package var messages: Int32
    /// -1 for no limit.
    package var bytes: Int32

    package init(messages: Int32, bytes: Int32) {
        self.messages = messages
        self.bytes = bytes
    }

    /// 65,536 messages or 64 MiB.
    package static let standard = PendingLimit(messages: 65_536, bytes: 64 << 20)
    /// For subscriptions that something else bounds: the number of requests in flight, or a server's flow control.
    static let unlimited = PendingLimit(messages: -1, bytes: -1)
}

/// One subscription object of the C library; ends with its last reference.
///
/// Unchecked: the library guards the object behind the pointer, and the pointer never changes.
@safe
final class LibrarySubscription: @unchecked Sendable {
    private let handle: OpaquePointer
    private let cleanup: DispatchQueue

    init(_ handle: OpaquePointer, cleanup: DispatchQueue) {
        unsafe self.handle = handle
        self.cleanup = cleanup
    }

    deinit {
        // It takes the connection's lock, which a blocked write may hold.
        // Unchecked for the same reason as the class.
        nonisolated(unsafe) let handle = unsafe handle
        cleanup.async { unsafe _ = natsSubscription_Unsubscribe(handle) }
        cleanup.asyncAfter(deadline: .now() + LibraryGrace.period) { unsafe natsSubscription_Destroy(handle) }
    }
}

/// How long an ended object of the C library is kept before it is freed.
///
/// libnats 3.4.1 can still be inside an object on a thread of its own when the call that ends it returns: freeing it at
/// once corrupts the heap in about one of a hundred stress runs.
private enum LibraryGrace {
    static let period = DispatchTimeInterval.seconds(2)
}
