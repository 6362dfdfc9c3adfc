import CNATS
import Synchronization

/// Finds the Swift side of a C callback by number.
///
/// The library gets a number, not an address, as the context of each callback. However late a callback comes (after a
/// connection has ended, on any thread), it looks its number up and finds either the live target or nothing. So there is
/// no context to free, and none to free twice or too early: the library offers no moment after which every callback is
/// certain to be over.
enum CallbackRegistry {
    private static let nextNumber = Atomic<UInt>(1)
    private static let sessions = Mutex<[UInt: WeakSession]>([:])
    private static let sockets = Mutex<[UInt: SessionSocket]>([:])

    private struct WeakSession: Sendable { weak let session: NATSSession? }

    static func makeNumber() -> UInt { nextNumber.add(1, ordering: .relaxed).newValue }

    static func add(_ session: NATSSession) { sessions.withLock { $0[session.number] = WeakSession(session: session) } }

    static func removeSession(_ number: UInt) { sessions.withLock { _ = $0.removeValue(forKey: number) } }

    static func session(_ number: UInt) -> NATSSession? { sessions.withLock { $0[number]?.session } }

    /// Keeps the socket until the library has let go of it.
    static func add(_ socket: SessionSocket) { sockets.withLock { $0[socket.number] = socket } }

    static func removeSocket(_ number: UInt) { sockets.withLock { _ = $0.removeValue(forKey: number) } }

    static func socket(_ number: UInt) -> SessionSocket? { sockets.withLock { $0[number] } }

    /// The number of live entries, for tests that look for leaks.
    static var count: Int { sessions.withLock { $0.count } + sockets.withLock { $0.count } }
}

/// The functions that the C library calls. Global, so that they capture nothing.
enum LibraryCallback {
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

    // MARK: the socket

    /// Called once it is connected, with the connection's lock held like the next two.
    static let attach: natsEvLoop_Attach = { userData, loop, _, descriptor in
        unsafe userData?.pointee = unsafe loop
        guard let socket = CallbackRegistry.socket(unsafe cnats_number(loop)) else { return NATS_ILLEGAL_STATE }
        socket.attach(descriptor)
        return NATS_OK
    }

    static let read: natsEvLoop_ReadAddRemove = { userData, isWanted in
        // It is read from the time when it is attached.
        if !isWanted { CallbackRegistry.socket(unsafe cnats_number(userData))?.release() }
        return NATS_OK
    }

    static let write: natsEvLoop_WriteAddRemove = { userData, isWanted in
        CallbackRegistry.socket(unsafe cnats_number(userData))?.setWrite(isWanted)
        return NATS_OK
    }

    static let detach: natsEvLoop_Detach = { userData in
        let number = unsafe cnats_number(userData)
        CallbackRegistry.socket(number)?.release()
        CallbackRegistry.removeSocket(number)
        return NATS_OK
    }
}
