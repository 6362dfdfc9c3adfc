import CEventLoop
import Dispatch
import EventLoop
import Synchronization

/// A session's socket on the event loop: what comes is read and handed over there, and what is to be sent is written
/// there, everything that one round of the loop has published in one system call.
///
/// Only the loop's thread reads and writes. The library opens the socket, and closes it on the loop when it is lost, or where
/// the session is closed.
final class SessionSocket: Sendable {
    /// Under which the C callbacks find this socket.
    let number: UInt
    private let loop: EventLoop
    /// How long the server may take no byte while some wait.
    private let writeDeadline: Duration

    private struct State {
        weak var session: NATSSession?
        /// Nil before it is attached and after it is released.
        var watch: Watch?
        /// The library has something to write.
        var wantsWrite = false
        var isFlushPosted = false
        /// When the socket last took bytes although it could not take all; nil while nothing waits for it.
        var blockedSince: ContinuousClock.Instant?
        /// Somebody looks at `blockedSince` in a while.
        var isTimed = false
    }

    private struct Watch {
        let descriptor: Int32
        let token: EventLoop.Token
        /// Nil until the first bytes have shown it.
        var isEncrypted: Bool?
    }

    private let state = Mutex(State())

    init(loop: EventLoop, writeDeadline: Duration) {
        number = CallbackRegistry.makeNumber()
        self.loop = loop
        self.writeDeadline = writeDeadline
    }

    /// More may wait to be written than the socket takes. Of an encrypted one it is not known: the library writes all of it,
    /// however long that takes.
    var mayBeBlocked: Bool { state.withLock { $0.blockedSince != nil || $0.watch?.isEncrypted != false } }

    // MARK: called by the library, on any thread, with its lock held

    func attach(_ descriptor: Int32) {
        state.withLock { $0.watch = Watch(descriptor: descriptor, token: loop.makeToken()) }
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

    /// Begins to read: from now on there is somebody to hand messages to. To be called once, before anything is sent.
    /// - Returns: whether the socket can be watched.
    func activate(_ session: NATSSession) -> Bool {
        let watch = state.withLock { state in
            state.session = session
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

    /// Ends the connection: the server does not answer.
    func giveUp() {
        state.withLock { state in
            // The library closes nothing before it has released it here. Fails when the server has ended it already.
            if let watch = state.watch { _ = ceventloop_shutdown(watch.descriptor) }
        }
    }

    // MARK: on the loop

    private var isBlocked: Bool { state.withLock { $0.blockedSince != nil } }

    private func ready() {
        if isBlocked { flush() }
        // Writing may have shown that the connection is lost.
        let (session, watch) = state.withLock { ($0.session, $0.watch) }
        guard let session, let watch, hasWholeRecord(watch) else { return }
        session.read()
    }

    /// Whether reading cannot wait for the network: with encryption the library would, for the rest of a record.
    private func hasWholeRecord(_ watch: Watch) -> Bool {
        if let isEncrypted = watch.isEncrypted {
            return !isEncrypted || ceventloop_has_tls_record(watch.descriptor)
        }
        // A server may ask for encryption that nobody has set. After the handshakes comes either a record or a line of the
        // protocol, and none of these begins like a record.
        let found = ceventloop_begins_tls(watch.descriptor)
        guard found >= 0 else { return true }
        state.withLock { $0.watch?.isEncrypted = found == 1 }
        return found == 0 || ceventloop_has_tls_record(watch.descriptor)
    }

    private func flush() {
        let (session, wantsWrite) = state.withLock { state in
            state.isFlushPosted = false
            return (state.watch == nil ? nil : state.session, state.wantsWrite)
        }
        guard let session, wantsWrite else { return }
        let before = session.buffered
        session.write()
        let hasProgressed = session.buffered < before
        let (watch, isNew, isTimed) = state.withLock { state -> (Watch?, Bool, Bool) in
            guard state.wantsWrite, let watch = state.watch else { return (nil, false, false) }
            let isNew = state.blockedSince == nil
            if isNew || hasProgressed { state.blockedSince = .now }
            defer { state.isTimed = true }
            return (watch, isNew, state.isTimed)
        }
        guard let watch else { return }
        if isNew { setOutput(watch, wanted: true) }
        if !isTimed { giveUpWhenBlocked(after: writeDeadline) }
    }

    private func setOutput(_ watch: Watch, wanted: Bool) {
        do throws(Errno) {
            try loop.setOutput(watch.token, descriptor: watch.descriptor, wanted: wanted)
        } catch {
            // Released in the meantime: then there is nothing to write.
        }
    }

    private func giveUpWhenBlocked(after delay: Duration) {
        loop.schedule(after: delay) { [weak self] in self?.judge() }
    }

    private func judge() {
        let since = state.withLock { state in
            state.isTimed = state.blockedSince != nil
            return state.blockedSince
        }
        guard let since else { return }
        let left = writeDeadline - since.duration(to: .now)
        if left > .zero {
            giveUpWhenBlocked(after: left)
        } else {
            state.withLock { $0.isTimed = false }
            giveUp()
        }
    }
}
