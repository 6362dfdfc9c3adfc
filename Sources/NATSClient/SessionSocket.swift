import CEventLoop
import Dispatch
import EventLoop
import Synchronization

/// A session's socket on the event loop: what comes is read and handed over there, and what is to be sent is written
/// there, everything that one round of the loop has published in one system call.
///
/// Only the loop's thread reads and writes; the library's other threads open the socket, and close it when told to.
final class SessionSocket: Sendable {
    /// Under which the C callbacks find this socket.
    let number: UInt
    private let loop: EventLoop
    /// How long the server may take no byte while some wait.
    private let writeDeadline: Duration

    private struct State {
        weak var session: NATSSession?
        /// Of the present connection; nil between two of them.
        var watch: Watch?
        /// The library has something to write.
        var wantsWrite = false
        var isFlushPosted = false
        /// When the socket last took bytes although it could not take all; nil while nothing waits for it.
        var blockedSince: ContinuousClock.Instant?
    }

    private struct Watch {
        let descriptor: Int32
        let token: EventLoop.Token
        /// Nil until the first bytes have shown it.
        var isEncrypted: Bool?
        var isWatched = false
    }

    private let state = Mutex(State())

    init(loop: EventLoop, writeDeadline: Duration) {
        number = CallbackRegistry.makeNumber()
        self.loop = loop
        self.writeDeadline = writeDeadline
    }

    /// More waits to be written than the socket takes.
    var isBlocked: Bool { state.withLock { $0.blockedSince != nil } }

    // MARK: called by the library, on any thread, with its lock held

    /// - Returns: whether the socket can be watched.
    func attach(_ descriptor: Int32) -> Bool {
        let hasSession = state.withLock { state in
            state.watch = Watch(descriptor: descriptor, token: loop.makeToken())
            state.wantsWrite = false
            state.blockedSince = nil
            return state.session != nil
        }
        return hasSession ? watch() : true
    }

    func release() {
        let watch = state.withLock { state in
            state.wantsWrite = false
            state.blockedSince = nil
            return state.watch.take()
        }
        if let watch { loop.unwatch(watch.token, descriptor: watch.descriptor) }
    }

    func setWrite(_ isWanted: Bool) {
        let (posts, unblocked) = state.withLock { state -> (Bool, Watch?) in
            state.wantsWrite = isWanted
            if !isWanted {
                let wasBlocked = state.blockedSince != nil
                state.blockedSince = nil
                return (false, wasBlocked ? state.watch : nil)
            }
            guard !state.isFlushPosted, state.blockedSince == nil else { return (false, nil) }
            state.isFlushPosted = true
            return (true, nil)
        }
        if posts { loop.post { [self] in flush() } }
        if let unblocked { setOutput(unblocked, wanted: false) }
    }

    // MARK: of the session

    /// Begins to read: from now on there is somebody to hand messages to.
    /// - Returns: whether the socket can be watched.
    func activate(_ session: NATSSession) -> Bool {
        state.withLock { $0.session = session }
        return watch()
    }

    /// Writes what can be written, and ends all reading and writing. Waits for the loop, so not to be called on it.
    func finish() {
        let done = DispatchSemaphore(value: 0)
        loop.post { [self] in
            flush()
            release()
            done.signal()
        }
        done.wait()
    }

    /// Ends the connection, so that the library makes a new one: the server does not answer.
    func giveUp() {
        state.withLock { state in
            // The library closes nothing before it has released it here. Fails when the server has ended it already.
            if let watch = state.watch { _ = ceventloop_shutdown(watch.descriptor) }
        }
    }

    // MARK: on the loop

    private func watch() -> Bool {
        let watch = state.withLock { state -> Watch? in
            guard state.watch?.isWatched == false else { return nil }
            state.watch?.isWatched = true
            return state.watch
        }
        guard let watch else { return true }
        do throws(Errno) {
            try loop.watch(watch.descriptor, as: watch.token) { [weak self] in self?.ready() }
            return true
        } catch {
            return false
        }
    }

    private func ready() {
        let (session, watch, isBlocked) = state.withLock { ($0.session, $0.watch, $0.blockedSince != nil) }
        guard let session, let watch else { return }
        if isBlocked { flush() }
        if hasWholeRecord(watch) { session.read() }
    }

    /// Whether reading cannot wait for the network: with encryption the library would, for the rest of a record.
    private func hasWholeRecord(_ watch: Watch) -> Bool {
        let isEncrypted: Bool
        if let known = watch.isEncrypted {
            isEncrypted = known
        } else {
            // A server may ask for encryption that nobody has set. After the handshakes comes either a record or a line of
            // the protocol, and none of these begins like a record.
            let found = ceventloop_begins_tls(watch.descriptor)
            guard found >= 0 else { return true }
            isEncrypted = found == 1
            state.withLock { state in
                if state.watch?.token == watch.token { state.watch?.isEncrypted = isEncrypted }
            }
        }
        return !isEncrypted || ceventloop_has_tls_record(watch.descriptor)
    }

    private func flush() {
        let (session, wantsWrite) = state.withLock { state in
            state.isFlushPosted = false
            return (state.watch == nil ? nil : state.session, state.wantsWrite)
        }
        guard let session, wantsWrite else { return }
        session.write()
        let blocked = state.withLock { state -> (watch: Watch, isNew: Bool)? in
            guard state.wantsWrite, let watch = state.watch else { return nil }
            defer { state.blockedSince = .now }
            return (watch, state.blockedSince == nil)
        }
        guard let blocked, blocked.isNew else { return }
        setOutput(blocked.watch, wanted: true)
        giveUpWhenBlocked(blocked.watch.token, after: writeDeadline)
    }

    private func setOutput(_ watch: Watch, wanted: Bool) {
        do throws(Errno) {
            try loop.setOutput(watch.token, descriptor: watch.descriptor, wanted: wanted)
        } catch {
            // Closed in the meantime, by the library: then there is nothing to write.
        }
    }

    private func giveUpWhenBlocked(_ token: EventLoop.Token, after delay: Duration) {
        loop.schedule(after: delay) { [weak self] in
            guard let self else { return }
            let since = self.state.withLock { $0.watch?.token == token ? $0.blockedSince : nil }
            guard let since else { return }
            let left = self.writeDeadline - since.duration(to: .now)
            if left > .zero { self.giveUpWhenBlocked(token, after: left) } else { self.giveUp() }
        }
    }
}
