import Synchronization

/// A subscription, which stands again after every reconnect until it is cancelled or its last reference goes.
package final class NATSSubscription: Sendable {
    package let subject: String
    let number: UInt
    private let queue: String?
    private let limit: PendingLimit
    private weak let connection: NATSConnection?

    private struct State {
        var isCancelled = false
        /// The library's object and the session that it belongs to.
        var installed: (session: UInt, LibrarySubscription)?
    }
    private let state = Mutex(State())

    init(
        subject: String,
        queue: String?,
        limit: PendingLimit,
        connection: NATSConnection?,
        handler: @escaping CallbackRegistry.MessageHandler
    ) {
        self.subject = subject
        self.queue = queue
        self.limit = limit
        self.connection = connection
        number = CallbackRegistry.addMessageHandler(handler)
    }

    deinit { CallbackRegistry.removeMessageHandler(number) }

    /// Ends the subscription. The handler is not called afterwards, except for a call that is under way. Idempotent.
    package func cancel() {
        let ended = state.withLock { state in
            state.isCancelled = true
            let ended = state.installed
            state.installed = nil
            return ended
        }
        withExtendedLifetime(ended) {}
        CallbackRegistry.removeMessageHandler(number)
        connection?.removeSubscription(number)
    }

    /// Subscribes on a session, once; the object of an earlier session ends.
    func install(on session: NATSSession) throws(NATSError) {
        let failure = state.withLock { state -> NATSError? in
            if state.isCancelled || state.installed?.session == session.number { return nil }
            do throws(NATSError) {
                let made = try session.subscribe(subject, queue: queue, handler: number, limit: limit)
                state.installed = (session.number, made)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }
}
