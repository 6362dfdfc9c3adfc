import JobModel
import SchedulerCore

/// A maestro process: the shell of ``LeaseCore``, as `Leadership` is, with a term of office while it leads.
final class SimulatedMaestro: Part {
    private(set) var incarnation = Incarnation.none
    private var core: LeaseCore?
    private var term: SimulatedTerm?
    private var watch: OrderedReader?
    private var armed: Timestamp?
    private var writes = 0
    private var isStopping = false
    /// Until when it may act as the leader without asking, by its own clock.
    private(set) var trust = Timestamp(nanoseconds: .min)

    let number: Int

    static let lease = Duration.seconds(10)

    init(number: Int, cluster: Cluster) {
        self.number = number
        super.init(name: "maestro-\(number)", cluster: cluster)
    }

    /// The leader's term, if this process leads as far as it knows.
    var office: SimulatedTerm? { isRunning ? term : nil }

    var isTrusted: Bool {
        guard isRunning, term != nil else { return false }
        return cluster.mutant == .ignoresTrust || clock < trust
    }

    func start() {
        guard !isRunning else { return }
        begin()
        var ids = cluster.chance.ids()
        incarnation = Incarnation(from: &ids)
        trust = Timestamp(nanoseconds: .min)
        writes = 0
        isStopping = false
        core = LeaseCore(
            holder: incarnation,
            host: name,
            processID: life,
            duration: Self.lease,
            ids: cluster.chance.ids()
        )
        let names = cluster.names
        watch = OrderedReader(connection, stream: names.controlStream, filter: names.leader) { [self] event in
            if case .message(let message) = event { observe(message) }
        }
        take { [self] in handle(.timerFired) }
    }

    /// SIGKILL.
    func crash() {
        guard isRunning else { return }
        cluster.tell("\(name) is killed")
        dismiss()
        end()
    }

    /// SIGTERM.
    func stop() {
        guard isRunning, !isStopping else { return }
        cluster.tell("\(name) is told to stop")
        isStopping = true
        take { [self] in handle(.stop) }
    }

    func dismiss() {
        term?.end()
        term = nil
        watch?.close()
        watch = nil
        armed = nil
    }

    private func observe(_ message: Stored) {
        guard case .lease(let lease) = message.body else { return }
        handle(.observed(LeaseCore.Revision(lease: lease, sequence: message.sequence)))
    }

    private func handle(_ event: LeaseCore.Event) {
        guard core != nil else { return }
        switch event {
        case .stored, .conflict, .failed: writes -= 1
        case .observed, .timerFired, .stop: break
        }
        for action in core?.handle(event, at: clock) ?? [] { perform(action) }
        guard isStopping, writes == 0 else { return }
        cluster.tell("\(name) has stopped")
        dismiss()
        end()
    }

    private func perform(_ action: LeaseCore.Action) {
        switch action {
        case .armTimer(let due): arm(due)
        case .extend(let until): trust = max(trust, until)
        case .lead(let until):
            cluster.tell("\(name) leads")
            cluster.ledger.noteLead(of: self)
            trust = until
            term = SimulatedTerm(self)
            term?.begin()
        case .standDown(let reason):
            cluster.tell("\(name) no longer leads: \(reason)")
            if cluster.mutant != .ignoresTrust { trust = Timestamp(nanoseconds: .min) }
            term?.end()
            term = nil
        case .read: readLease()
        case .write(let lease, let expected): write(lease, expected: expected)
        }
    }

    /// The streams may have been put back: what the term knows is worth nothing.
    func beginAnew() {
        term?.end()
        term = SimulatedTerm(self)
        term?.begin()
    }

    private func arm(_ due: Timestamp) {
        armed = due
        let life = life
        cluster.agenda.at(moment(of: due)) { [self] in
            guard life == self.life, armed == due else { return }
            take { [self] in
                armed = nil
                handle(.timerFired)
            }
        }
    }

    private func readLease() {
        connection.last(of: cluster.names.leader, in: cluster.names.controlStream) { [self] reply in
            guard case .answer(let stored) = reply else { return afterFailure { [self] in readLease() } }
            handle(.observed(stored.flatMap(Self.revision)))
        }
    }

    private static func revision(_ stored: Stored) -> LeaseCore.Revision? {
        guard case .lease(let lease) = stored.body else { return nil }
        return LeaseCore.Revision(lease: lease, sequence: stored.sequence)
    }

    private func write(_ lease: LeaderLease, expected: UInt64) {
        writes += 1
        let patience = lease.isReleased ? Duration.seconds(2) : Self.lease / 3
        connection.compareAndSet(
            .lease(lease),
            to: cluster.names.leader,
            stream: cluster.names.controlStream,
            expected: expected,
            until: cluster.now + patience
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence): handle(.stored(lease.op, sequence: sequence))
            case .conflict(let stored): handle(.conflict(lease.op, stored.flatMap(Self.revision)))
            case .refused, .unknown:
                guard !lease.isReleased else { return handle(.failed(lease.op)) }
                afterFailure { [self] in handle(.failed(lease.op)) }
            }
        }
    }
}
