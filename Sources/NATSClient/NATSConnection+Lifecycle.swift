import CNATS
import Dispatch
import Synchronization

/// What a connection knows about itself.
struct ConnectionLink {
    enum Phase { case idle, running, closed }

    init(servers: ServerList) { self.servers = servers }

    var phase = Phase.idle
    var session: NATSSession?
    var isConnected = false
    var epoch: UInt64 = 0
    var server = ServerInfo(serverID: "", url: "", maxPayload: 0)
    var servers: ServerList
    var connectedAt = ContinuousClock.now
    /// Connections in a row that a server has refused.
    var refusals = 0
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
    /// Makes a connection, or tries again later, for ever: a server's configuration, too, can be repaired while a worker
    /// waits.
    func open() {
        guard let urls = link.withLock({ $0.phase == .running && $0.session == nil ? $0.servers.inOrder() : nil })
        else {
            return
        }
        do {
            let session = try NATSSession.open(options, urls: urls, loop: loop, cleanup: cleanup) {
                [weak self] session, event in
                self?.lifecycle.async { [weak self] in self?.happened(event, on: session) }
            }
            watchServer(of: session)
            let subscriptions = link.withLock { link in
                link.session = session
                return link.subscriptions.values.compactMap(\.subscription)
            }
            for subscription in subscriptions { install(subscription, on: session) }
            becameConnected(session)
            // A callback from before the session could be found was missed.
            if session.isClosed { sessionEnded(session, nil) }
        } catch {
            let isRefusal = error.code != .notConnected
            link.withLock { link in
                if isRefusal {
                    link.refusals += 1
                    link.lastError = error
                }
            }
            // That there is no server is no event: it is so until there is one.
            if isRefusal { report(.asyncError(error)) }
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

    /// After a lost connection at once if there is another server, else after the wait of the options; slower when servers
    /// refuse.
    private func openLater(isLost: Bool = false) {
        let (refusals, isAlone) = link.withLock { ($0.refusals, $0.servers.count == 1) }
        var wait = options.reconnectWait
        if refusals > 0 {
            wait = min(wait * (1 << min(refusals, 5)), .seconds(5))
        } else if isLost && !isAlone {
            wait = .zero
        }
        let nanoseconds = Int(wait.wholeNanoseconds)
        let jitter = Int.random(in: 0...max(nanoseconds / 4, 10_000_000))
        lifecycle.asyncAfter(deadline: .now() + .nanoseconds(nanoseconds + jitter)) { [weak self] in self?.open() }
    }

    private func happened(_ event: NATSSession.Event, on session: NATSSession) {
        guard link.withLock({ $0.session === session }) else { return }
        switch event {
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
        let (event, waiters) = link.withLock { link -> (ConnectionEvent?, [ConnectionWaiter]) in
            if link.phase != .running { return (nil, []) }
            link.isConnected = true
            link.epoch += 1
            link.connectedAt = .now
            link.servers.noteConnected(to: server.url)
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

    /// A server that ends a connection with an error of its own sooner than this has refused it.
    private static let shortLife = Duration.seconds(2)

    private func sessionEnded(_ session: NATSSession, _ error: NATSError?) {
        let discovered = session.discoveredServers()
        let isError = error.map { $0.code != .closed && $0.code != .disconnected } ?? false
        lostConnection(error)
        link.withLock { link in
            if link.session === session { link.session = nil }
            link.servers.discover(discovered)
            let isRefusal = isError && link.connectedAt.duration(to: .now) < Self.shortLife
            link.refusals = isRefusal ? link.refusals + 1 : 0
        }
        cleanup.async { session.close() }
        openLater(isLost: true)
    }

    /// Asks the server now and then whether it lives, for as long as the connection stands; gives it up when no answer comes.
    /// Not on the loop, which may be the one that waits.
    private func watchServer(of session: NATSSession) {
        let interval = options.pingInterval
        pings.asyncAfter(deadline: .now() + .nanoseconds(Int(interval.wholeNanoseconds))) { [weak self, weak session] in
            guard let session, session.isConnected else { return }
            if session.flush(milliseconds: (interval * 2).wholeMilliseconds) == NATS_TIMEOUT { session.giveUp() }
            self?.watchServer(of: session)
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
