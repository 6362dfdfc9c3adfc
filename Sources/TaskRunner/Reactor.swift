import CProcess
import Glibc
import Synchronization

/// One thread that waits for descriptors and deadlines and calls their handlers, for the life of the process.
///
/// Handlers run on that thread, one after the other, and must not block.
package final class Reactor: Sendable {
    /// Names one watched descriptor or one deadline.
    package struct Token: Hashable, Sendable {
        fileprivate let number: UInt64
    }

    private struct Deadline {
        let token: Token
        let at: ContinuousClock.Instant
        let handler: @Sendable () -> Void
    }

    private struct State {
        var lastToken: UInt64 = 0
        var watches: [Token: @Sendable () -> Void] = [:]
        var deadlines: [Deadline] = []
        var posted: [@Sendable () -> Void] = []
        var isStopped = false

        mutating func nextToken() -> Token {
            lastToken += 1
            return Token(number: lastToken)
        }

        mutating func takeDue(at now: ContinuousClock.Instant) -> [@Sendable () -> Void] {
            let due = deadlines.filter { $0.at <= now }.sorted { $0.at < $1.at }
            if !due.isEmpty { deadlines.removeAll { $0.at <= now } }
            return due.map(\.handler)
        }
    }

    private let poll: Descriptor
    private let wake: Descriptor
    private let state = Mutex(State())

    /// Starts the thread. Throws `resources` when the system has no descriptor or thread left for it.
    package init() throws(TaskRunnerError) {
        poll = Descriptor(owning: cprocess_poll_open())
        wake = Descriptor(owning: cprocess_wake_open())
        guard poll.number >= 0, wake.number >= 0 else {
            throw TaskRunnerError(.resources, "cannot make an event loop", cause: .current)
        }
        do throws(Errno) {
            // Token 0 is never given out: it is the wake-up.
            try add(wake.number, token: 0)
            try Self.startThread(running: self)
        } catch {
            throw TaskRunnerError(.resources, "cannot start an event loop", cause: error)
        }
    }

    /// Ends the thread after the handlers that run now. Nothing that is watched is closed.
    package func stop() {
        state.withLock { $0.isStopped = true }
        signal()
    }

    /// A new name for a watch; taken before the watch begins, so that its first event can end it already.
    package func makeToken() -> Token { state.withLock { $0.nextToken() } }

    /// Calls the handler whenever the descriptor can be read or has been hung up, until ``unwatch(_:descriptor:)``.
    package func watch(
        _ descriptor: Int32,
        as token: Token,
        _ handler: @escaping @Sendable () -> Void
    ) throws(Errno) {
        state.withLock { $0.watches[token] = handler }
        do throws(Errno) {
            try add(descriptor, token: token.number)
        } catch {
            state.withLock { _ = $0.watches.removeValue(forKey: token) }
            throw error
        }
    }

    /// Ends a watch; to be called before the descriptor is closed. The handler is not called again when this is
    /// called on the reactor's thread.
    package func unwatch(_ token: Token, descriptor: Int32) {
        let known = state.withLock { $0.watches.removeValue(forKey: token) != nil }
        guard known else { return }
        // Fails only for a descriptor that is not watched, and then there is nothing to end.
        _ = cprocess_poll_remove(poll.number, descriptor)
    }

    /// Calls the handler once after the delay.
    @discardableResult
    package func schedule(after delay: Duration, _ handler: @escaping @Sendable () -> Void) -> Token {
        let at = ContinuousClock.now.advanced(by: delay)
        let token = state.withLock { state in
            let token = state.nextToken()
            state.deadlines.append(Deadline(token: token, at: at, handler: handler))
            return token
        }
        signal()
        return token
    }

    /// Forgets a deadline that has not come yet.
    package func cancel(_ token: Token) {
        state.withLock { state in state.deadlines.removeAll { $0.token == token } }
    }

    /// Calls the handler on the reactor's thread.
    package func post(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.posted.append(handler) }
        signal()
    }

    // MARK: the thread

    private static func startThread(running reactor: Reactor) throws(Errno) {
        var thread = pthread_t()
        let context = unsafe Unmanaged.passRetained(reactor).toOpaque()
        let error = unsafe pthread_create(
            &thread,
            nil,
            { context in
                if let context = unsafe context {
                    unsafe Unmanaged<Reactor>.fromOpaque(context).takeRetainedValue().run()
                }
                return nil
            },
            context
        )
        guard error == 0 else {
            unsafe Unmanaged<Reactor>.fromOpaque(context).release()
            throw Errno(error)
        }
        pthread_detach(thread)
    }

    private func run() {
        var ready = [UInt64](repeating: 0, count: 64)
        while true {
            let count = unsafe ready.withUnsafeMutableBufferPointer { buffer in
                unsafe cprocess_poll_wait(poll.number, buffer.baseAddress, Int32(buffer.count), nextTimeout())
            }
            for number in ready.prefix(Int(max(0, count))) {
                if number == 0 {
                    cprocess_wake_clear(wake.number)
                } else if let handler = state.withLock({ $0.watches[Token(number: number)] }) {
                    handler()
                }
            }
            let now = ContinuousClock.now
            let (handlers, isStopped) = state.withLock { state in
                let handlers = state.takeDue(at: now) + state.posted
                state.posted.removeAll(keepingCapacity: true)
                return (handlers, state.isStopped)
            }
            for handler in handlers { handler() }
            if isStopped { return }
        }
    }

    /// Milliseconds to the next deadline, rounded up; -1 when there is none.
    private func nextTimeout() -> Int32 {
        let next = state.withLock { state in
            state.isStopped || !state.posted.isEmpty ? .now : state.deadlines.map(\.at).min()
        }
        guard let next else { return -1 }
        let (seconds, attoseconds) = ContinuousClock.now.duration(to: next).components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let milliseconds = min(seconds, 1_000_000) * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
        return Int32(milliseconds)
    }

    private func add(_ descriptor: Int32, token: UInt64) throws(Errno) {
        guard cprocess_poll_add(poll.number, descriptor, token) == 0 else { throw Errno.current }
    }

    private func signal() { cprocess_wake_signal(wake.number) }
}
