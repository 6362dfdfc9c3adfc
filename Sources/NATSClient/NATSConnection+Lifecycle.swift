import CNATS
import Dispatch
import Synchronization

/// What a connection knows about itself.
struct ConnectionLink {
    enum Phase { case idle, running, closed }

    var phase = Phase.idle
    var session: NATSSession?
    var isConnected = false
    var epoch: UInt64 = 0
    var server = ServerInfo(serverID: "", url: "", maxPayload: 0)
    /// Rounds of `open` in a row that ended without a connection.
    var failedOpens = 0
    var lastError: NATSError?
    var subscriptions: [UInt: WeakSubscription] = [:]
    var observers: [(number: UInt, call: @Sendable (ConnectionEvent) -> Void)] = []
    var waiters: [UInt: ConnectionWaiter] = [:]
}

/// One call of `waitUntilConnected`.
struct ConnectionWaiter {
    let continuation: CheckedContinuation<Result<Void, NATSError>, Never>
    /// Ends the wait at its deadline; gone with the waiter.
    let alarm: Alarm
}

struct WeakSubscription: Sendable {
    weak let subscription: NATSSubscription?

    init(_ subscription: NATSSubscription) { self.subscription = subscription }
}

/// Opening, reopening and closing. Everything here runs on the lifecycle queue, one step after the other.
extension NATSConnection {
    /// Makes the library's connection object. The library reconnects it by itself; it comes back here only when it
    /// gives the object up (credentials refused twice, an error it does not know): then a new one is made, because
    /// a server's configuration can be repaired while a worker waits.
    func open() {
        guard link.withLock({ $0.phase == .running && $0.session == nil }) else { return }
        do {
            let (session, isConnected) = try NATSSession.open(options, loop: loop, cleanup: cleanup) {
                [weak self] session, event in
                self?.lifecycle.async { [weak self] in self?.happened(event, on: session) }
            }
            watchServer(of: session)
            let subscriptions = link.withLock { link in
                link.session = session
                return link.subscriptions.values.compactMap(\.subscription)
            }
            for subscription in subscriptions { install(subscription, on: session) }
            // A callback from before the session could be found was missed.
            if isConnected || session.isConnected { becameConnected(session) }
            if session.isClosed { sessionEnded(session, nil) }
        } catch {
            report(.asyncError(error))
            link.withLock { $0.lastError = error }
            openLater()
        }
    }

    private func install(_ subscription: NATSSubscription, on session: NATSSession) {
        do {
            try subscription.install(on: session)
        } catch {
            report(.asyncError(error))
        }
    }

    private func openLater() {
        let failures = link.withLock { link in
            link.failedOpens += 1
            return link.failedOpens
        }
        let wait = min(250 << min(failures, 5), 5000) + Int.random(in: 0...250)
        lifecycle.asyncAfter(deadline: .now() + .milliseconds(wait)) { [weak self] in self?.open() }
    }

    private func happened(_ event: NATSSession.Event, on session: NATSSession) {
        guard link.withLock({ $0.session === session }) else { return }
        switch event {
        case .connected, .reconnected: becameConnected(session)
        case .disconnected(let error): lostConnection(error)
        case .closed(let error): sessionEnded(session, error)
        case .error(let error):
            link.withLock { $0.lastError = error }
            report(.asyncError(error))
        }
    }

    private func becameConnected(_ session: NATSSession) {
        let server = ServerInfo(
            serverID: session.serverID,
            url: session.serverURL,
            maxPayload: Int(session.maximumPayload)
        )
        let (event, waiters) = link.withLock {
            link -> (ConnectionEvent?, [ConnectionWaiter]) in
            if link.phase != .running || link.isConnected { return (nil, []) }
            link.isConnected = true
            link.epoch += 1
            link.failedOpens = 0
            link.lastError = nil
            link.server = server
            let waiters = Array(link.waiters.values)
            link.waiters = [:]
            return (link.epoch == 1 ? .connected(server) : .reconnected(server), waiters)
        }
        for waiter in waiters { waiter.continuation.resume(returning: .success(())) }
        if let event { report(event) }
    }

    private func lostConnection(_ error: NATSError?) {
        let wasConnected = link.withLock { link in
            let was = link.isConnected
            link.isConnected = false
            if let error { link.lastError = error }
            return was
        }
        if !wasConnected { return }
        requests.failAll(.disconnected, cause: error?.cause ?? "the connection was lost while the answer was awaited")
        report(.disconnected(error))
    }

    /// The library has given the session up.
    private func sessionEnded(_ session: NATSSession, _ error: NATSError?) {
        lostConnection(error)
        if let error { report(.asyncError(error)) }
        link.withLock { link in
            if link.session === session { link.session = nil }
            if let error { link.lastError = error }
        }
        cleanup.async { session.close() }
        openLater()
    }

    /// Asks the server now and then whether it lives, for as long as the session is there; gives the connection up when no
    /// answer comes.
    private func watchServer(of session: NATSSession) {
        let interval = options.pingInterval
        loop.schedule(after: interval) { [weak self, weak session] in
            guard let self, let session else { return }
            // Waits for the answer.
            self.pings.async { [weak self] in
                if session.isConnected, session.flush(milliseconds: (interval * 2).wholeMilliseconds) == NATS_TIMEOUT {
                    session.giveUp()
                }
                self?.watchServer(of: session)
            }
        }
    }

    // MARK: Waiting and watching

    /// Waits for a connection; returns at once if there is one. Ends early when the task is cancelled.
    ///
    /// - Throws: `timeout` with the reason for the last failure, if known; `closed`; `cancelled`.
    package func waitUntilConnected(deadline: Duration) async throws(NATSError) {
        if isConnected { return }
        let number = CallbackRegistry.makeNumber()
        // Not on the lifecycle queue, which an attempt to connect may hold.
        let alarm = Alarm(label: "nats.wait")
        alarm.onRing { [weak self] in self?.endWait(number, .timeout) }
        let result: Result<Void, NATSError> = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let early = link.withLock { link -> Result<Void, NATSError>? in
                    if link.isConnected { return .success(()) }
                    if link.phase == .closed { return .failure(NATSError(.closed, "wait for a connection")) }
                    link.waiters[number] = ConnectionWaiter(continuation: continuation, alarm: alarm)
                    return nil
                }
                if let early { return continuation.resume(returning: early) }
                alarm.set(at: MonotonicClock.now + deadline.wholeNanoseconds)
                if Task.isCancelled { endWait(number, .cancelled) }
            }
        } onCancel: {
            endWait(number, .cancelled)
        }
        try result.get()
    }

    private func endWait(_ number: UInt, _ code: NATSError.Code) {
        let (waiter, lastError) = link.withLock { ($0.waiters.removeValue(forKey: number), $0.lastError) }
        // The library tries on without a word, so there may be nothing to tell.
        let cause = lastError?.description ?? "no server there took a connection; is nats-server running?"
        let subject = options.urls.joined(separator: ",")
        waiter?.continuation.resume(
            returning: .failure(NATSError(code, "wait for a connection", subject: subject, cause: cause))
        )
    }

    /// Calls `observer` for every event from now on, on the lifecycle thread; it must not block.
    package func addObserver(_ observer: @escaping @Sendable (ConnectionEvent) -> Void) -> ObserverToken {
        let number = CallbackRegistry.makeNumber()
        link.withLock { $0.observers.append((number, observer)) }
        return ObserverToken(number: number, connection: self)
    }

    func removeObserver(_ number: UInt) { link.withLock { $0.observers.removeAll { $0.number == number } } }

    private func report(_ event: ConnectionEvent) {
        let observers = link.withLock { $0.observers }
        for observer in observers { observer.call(event) }
    }

    // MARK: Closing

    /// Closes for good: requests in flight end as `closed`, subscriptions go silent, observers get `closed` as their
    /// last event. Idempotent; every caller returns when all is done.
    package func close() async {
        let waiters = link.withLock { link in
            link.phase = .closed
            let waiters = Array(link.waiters.values)
            link.waiters = [:]
            return waiters
        }
        for waiter in waiters {
            waiter.continuation.resume(returning: .failure(NATSError(.closed, "wait for a connection")))
        }
        await withCheckedContinuation { continuation in
            lifecycle.async {
                self.finishClose()
                continuation.resume()
            }
        }
    }

    private func finishClose() {
        let (session, observers) = link.withLock { link in
            let taken = (link.session, link.observers)
            link.session = nil
            link.isConnected = false
            link.observers = []
            link.subscriptions = [:]
            return taken
        }
        session?.close()
        requests.failAll(.closed, cause: "the connection was closed")
        for observer in observers { observer.call(.closed) }
    }
}
