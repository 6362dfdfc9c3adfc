import CEventLoop
import Glibc
import Synchronization

/// One thread that waits for descriptors and deadlines and calls their handlers, and on which tasks can run.
///
/// Everything on it happens one after the other, and must not block. Tasks run there with
/// `withTaskExecutorPreference`, which child tasks inherit: what they do for one message is mostly to send another
/// one, so on the pool of threads each step would wake one, which costs more than the step.
package final class EventLoop: TaskExecutor {
    /// Names one watched descriptor or one deadline.
    package struct Token: Hashable, Sendable {
        fileprivate let number: UInt64
    }

    private struct Deadline {
        let token: Token
        let at: ContinuousClock.Instant
        let handler: @Sendable () -> Void
    }

    /// What the thread does before it looks at the descriptors again.
    private struct Work: Sendable {
        var handlers: [@Sendable () -> Void]
        let jobs: [UnownedJob]

        var isEmpty: Bool { handlers.isEmpty && jobs.isEmpty }
    }

    private struct State {
        var lastToken: UInt64 = 0
        var watches: [Token: @Sendable () -> Void] = [:]
        var deadlines: [Deadline] = []
        var jobs: [UnownedJob] = []
        var posted: [@Sendable () -> Void] = []
        /// The thread waits, or is about to: whoever adds something wakes it.
        var isWaiting = false
        var isStopped = false

        var isIdle: Bool { jobs.isEmpty && posted.isEmpty }

        mutating func nextToken() -> Token {
            lastToken += 1
            return Token(number: lastToken)
        }

        /// What can go on now; what was posted only when nothing else can, so that what is sent in the meantime leaves
        /// together.
        mutating func take(at now: ContinuousClock.Instant) -> Work {
            let due = deadlines.filter { $0.at <= now }.sorted { $0.at < $1.at }
            if !due.isEmpty { deadlines.removeAll { $0.at <= now } }
            var work = Work(handlers: due.map(\.handler), jobs: jobs)
            jobs.removeAll()
            if work.isEmpty { swap(&work.handlers, &posted) }
            return work
        }

        /// - Returns: whether the thread has to be woken.
        mutating func wakes() -> Bool {
            defer { isWaiting = false }
            return isWaiting
        }
    }

    private let poll: Int32
    private let wakeUp: Int32
    private let state = Mutex(State())
    private let thread = Atomic<UInt>(0)

    /// Starts the thread.
    /// - Throws: the system's error when it has no descriptor or no thread left.
    package init() throws(Errno) {
        poll = ceventloop_open()
        guard poll >= 0 else { throw Errno.current }
        // Its token is 0, which is never given out.
        wakeUp = ceventloop_wake_open(poll)
        guard wakeUp >= 0 else {
            let error = Errno.current
            close(poll)
            throw error
        }
        try Self.startThread(running: self)
    }

    deinit {
        close(wakeUp)
        close(poll)
    }

    /// Ends the thread after what it does now and what is enqueued. Nothing that is watched is closed.
    package func stop() { change { $0.isStopped = true } }

    /// Whether the caller runs on this loop's thread.
    package var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(pthread_self()) }

    // MARK: descriptors

    /// A new name for a watch; taken before the watch begins, so that its first event can end it already.
    package func makeToken() -> Token { state.withLock { $0.nextToken() } }

    /// Calls the handler whenever the descriptor can be read or has been hung up, until ``unwatch(_:descriptor:)``.
    package func watch(
        _ descriptor: Int32,
        as token: Token,
        _ handler: @escaping @Sendable () -> Void
    ) throws(Errno) {
        state.withLock { $0.watches[token] = handler }
        guard ceventloop_add(poll, descriptor, token.number) == 0 else {
            let error = Errno.current
            state.withLock { _ = $0.watches.removeValue(forKey: token) }
            throw error
        }
    }

    /// Calls the handler of a watch also when the descriptor can be written, or no longer does.
    package func setOutput(_ token: Token, descriptor: Int32, wanted: Bool) throws(Errno) {
        guard ceventloop_set_output(poll, descriptor, token.number, wanted) == 0 else { throw Errno.current }
    }

    /// Ends a watch; to be called before the descriptor is closed. The handler is not called again when this is
    /// called on the loop's thread.
    package func unwatch(_ token: Token, descriptor: Int32) {
        let known = state.withLock { $0.watches.removeValue(forKey: token) != nil }
        guard known else { return }
        // Fails only for a descriptor that is not watched, and then there is nothing to end.
        _ = ceventloop_remove(poll, descriptor)
    }

    // MARK: deadlines and calls

    /// Calls the handler once after the delay.
    @discardableResult
    package func schedule(after delay: Duration, _ handler: @escaping @Sendable () -> Void) -> Token {
        let at = ContinuousClock.now.advanced(by: delay)
        return change { state in
            let token = state.nextToken()
            state.deadlines.append(Deadline(token: token, at: at, handler: handler))
            return token
        }
    }

    /// Forgets a deadline that has not come yet.
    package func cancel(_ token: Token) {
        state.withLock { state in state.deadlines.removeAll { $0.token == token } }
    }

    /// Calls the handler on the loop's thread, after the tasks that can go on now.
    package func post(_ handler: @escaping @Sendable () -> Void) { change { $0.posted.append(handler) } }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        change { $0.jobs.append(job) }
    }

    private func change<Result: Sendable>(_ body: (inout sending State) -> sending Result) -> Result {
        let (result, wakes) = state.withLock { state in
            let result = body(&state)
            return (result, state.wakes())
        }
        if wakes { ceventloop_wake(wakeUp) }
        return result
    }

    // MARK: the thread

    private static func startThread(running loop: EventLoop) throws(Errno) {
        var thread = pthread_t()
        let context = unsafe Unmanaged.passRetained(loop).toOpaque()
        let error = unsafe pthread_create(
            &thread,
            nil,
            { context in
                if let context = unsafe context {
                    unsafe Unmanaged<EventLoop>.fromOpaque(context).takeRetainedValue().run()
                }
                return nil
            },
            context
        )
        guard error == 0 else {
            unsafe Unmanaged<EventLoop>.fromOpaque(context).release()
            throw Errno(error)
        }
        pthread_detach(thread)
    }

    /// What is ready is heard, then everything goes on that can, and only then more is heard: so what waits to be done
    /// is never more than what one look at each descriptor has brought.
    private func run() {
        thread.store(UInt(pthread_self()), ordering: .relaxed)
        var ready = [UInt64](repeating: 0, count: 64)
        while goOn() {
            let timeout = nextTimeout()
            let count = unsafe ready.withUnsafeMutableBufferPointer { buffer in
                unsafe ceventloop_wait(poll, buffer.baseAddress, Int32(buffer.count), timeout)
            }
            state.withLock { $0.isWaiting = false }
            for number in ready.prefix(Int(max(0, count))) {
                if let handler = state.withLock({ $0.watches[Token(number: number)] }) { handler() }
            }
        }
    }

    /// How many times new work is taken up before the descriptors are looked at again, should it never end.
    private static let roundLimit = 256

    /// Runs what is due and what is enqueued, and what follows from it.
    /// - Returns: false when the loop has been stopped and nothing is left.
    private func goOn() -> Bool {
        let executor = unsafe asUnownedTaskExecutor()
        for _ in 0..<Self.roundLimit {
            let now = ContinuousClock.now
            let (work, isStopped) = state.withLock { ($0.take(at: now), $0.isStopped) }
            if work.isEmpty { return !isStopped }
            for handler in work.handlers { handler() }
            for job in work.jobs { unsafe job.runSynchronously(on: executor) }
        }
        return true
    }

    /// Milliseconds to the next deadline, rounded up; -1 when there is none, 0 when something is left to do.
    private func nextTimeout() -> Int32 {
        let next: ContinuousClock.Instant? = state.withLock { state in
            guard state.isIdle, !state.isStopped else { return .now }
            state.isWaiting = true
            return state.deadlines.map(\.at).min()
        }
        guard let next else { return -1 }
        let (seconds, attoseconds) = ContinuousClock.now.duration(to: next).components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        let milliseconds = min(seconds, 1_000_000) * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
        return Int32(milliseconds)
    }
}
