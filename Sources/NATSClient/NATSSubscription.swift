import Synchronization

/// A subscription, which stands again after every reconnect until it is cancelled or its last reference goes.
package final class NATSSubscription: Sendable {
    package let subject: String
    let number: UInt
    private let queue: String?
    private weak let connection: NATSConnection?

    private struct State {
        /// Nil once cancelled.
        var handler: LibrarySubscription.Handler?
        /// The library's object and the session that it belongs to.
        var installed: (session: UInt, subscription: LibrarySubscription)?
    }
    private let state: Mutex<State>

    init(
        subject: String,
        queue: String?,
        connection: NATSConnection?,
        handler: @escaping LibrarySubscription.Handler
    ) {
        self.subject = subject
        self.queue = queue
        self.connection = connection
        number = CallbackRegistry.makeNumber()
        state = Mutex(State(handler: handler))
    }

    deinit { state.withLock { $0.installed?.subscription.end() } }

    /// Ends the subscription. The handler is not called afterwards, except for a call that is under way. Idempotent.
    package func cancel() {
        // Both are released outside the lock: what the handler has captured may end other subscriptions.
        let (ended, handler) = state.withLock { state in (state.installed.take()?.subscription, state.handler.take()) }
        ended?.end()
        withExtendedLifetime(handler) {}
        connection?.removeSubscription(number)
    }

    /// Subscribes on a session, once; the object of an earlier session ends.
    func install(on session: NATSSession) throws(NATSError) {
        let failure = state.withLock { state -> NATSError? in
            guard let handler = state.handler, state.installed?.session != session.number else { return nil }
            do throws(NATSError) {
                let made = try session.subscribe(subject, queue: queue, handler: handler)
                state.installed = (session.number, made)
                return nil
            } catch {
                // Lost in the meantime: it is installed on the next one.
                return error.code == .closed ? nil : error
            }
        }
        if let failure { throw failure }
    }
}
