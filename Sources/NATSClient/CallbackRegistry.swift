import CNATS
import Synchronization

/// Finds the Swift side of a C callback by number.
///
/// The library gets a number, not an address, as the context of each callback. However late a callback comes (after a
/// subscription or a connection has ended, in any order, on any thread), it looks its number up and finds either the
/// live target or nothing. So there is no context to free, and none to free twice or too early: the library offers no
/// moment after which every connection callback is certain to be over, and its completion callback of a subscription
/// cannot be set if the connection closes in between.
enum CallbackRegistry {
    /// Takes a message on a delivery thread of the library; must not block.
    typealias MessageHandler = @Sendable (RawMessage) -> Void

    private static let nextNumber = Atomic<UInt>(1)
    private static let messageHandlers = Mutex<[UInt: MessageHandler]>([:])
    private static let sessions = Mutex<[UInt: WeakSession]>([:])

    private struct WeakSession: Sendable { weak let session: NATSSession? }

    static func makeNumber() -> UInt { nextNumber.add(1, ordering: .relaxed).newValue }

    static func addMessageHandler(_ handler: @escaping MessageHandler) -> UInt {
        let number = makeNumber()
        messageHandlers.withLock { $0[number] = handler }
        return number
    }

    static func removeMessageHandler(_ number: UInt) {
        // The handler is released outside the lock: its captures may end other subscriptions.
        let handler = messageHandlers.withLock { $0.removeValue(forKey: number) }
        withExtendedLifetime(handler) {}
    }

    static func add(_ session: NATSSession) { sessions.withLock { $0[session.number] = WeakSession(session: session) } }

    static func removeSession(_ number: UInt) { sessions.withLock { _ = $0.removeValue(forKey: number) } }

    static func messageHandler(_ number: UInt) -> MessageHandler? { messageHandlers.withLock { $0[number] } }

    static func session(_ number: UInt) -> NATSSession? { sessions.withLock { $0[number]?.session } }

    /// The number of live entries, for tests that look for leaks.
    static var count: Int { messageHandlers.withLock { $0.count } + sessions.withLock { $0.count } }
}

/// The functions that the C library calls. Global, so that they capture nothing.
enum LibraryCallback {
    static let message: natsMsgHandler = { _, _, message, context in
        guard let message = unsafe message else { return }
        defer { unsafe MessageReturn.giveBack(message) }
        guard let handler = CallbackRegistry.messageHandler(unsafe cnats_number(context)) else { return }
        unsafe handler(RawMessage(message))
    }

    static let connected: natsConnectionHandler = { _, context in
        CallbackRegistry.session(unsafe cnats_number(context))?.happened(.connected)
    }

    static let reconnected: natsConnectionHandler = { _, context in
        CallbackRegistry.session(unsafe cnats_number(context))?.happened(.reconnected)
    }

    static let disconnected: natsConnectionHandler = { connection, context in
        let detail = unsafe NATSSession.lastError(of: connection)
        CallbackRegistry.session(unsafe cnats_number(context))?.happened(.disconnected(detail))
    }

    static let closed: natsConnectionHandler = { connection, context in
        let detail = unsafe NATSSession.lastError(of: connection)
        CallbackRegistry.session(unsafe cnats_number(context))?.happened(.closed(detail))
    }

    static let error: natsErrHandler = { connection, subscription, status, context in
        let subject = unsafe subscription.flatMap { unsafe natsSubscription_GetSubject($0) }
        let error = unsafe NATSError(
            status: status,
            "connection",
            subject: subject.map { unsafe String(cString: $0) },
            detail: NATSSession.lastError(of: connection)?.cause
        )
        CallbackRegistry.session(unsafe cnats_number(context))?.happened(.error(error))
    }
}
