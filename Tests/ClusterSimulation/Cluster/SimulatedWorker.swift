import JobModel
import WorkerCore

/// A gpu-worker on a host of its own with one card: the shell of ``WorkerCore``, as `WorkerShell` and what belongs to
/// it are, with a disk that outlives it and processes that may.
final class SimulatedWorker: Part {
    /// What the journal on the disk says of an attempt.
    struct Entry {
        let job: JobID
        var report: AttemptReport?
        var isOpen = true
        let number: Int
    }

    /// A process of an attempt; it may outlive the worker that started it.
    final class Process {
        let attempt: AttemptID
        let job: JobID
        let life: Int
        let isFenced: Bool
        let startedAt: Timestamp
        /// When its worker decided to start it.
        let decidedAt: Timestamp
        var isAlive = true
        var isTold = false
        var exit: ProcessEnd.Exit?

        init(_ attempt: AttemptID, of record: JobRecord, life: Int, decidedAt: Timestamp, at now: Timestamp) {
            self.attempt = attempt
            job = record.id
            self.life = life
            isFenced = record.limits.fence != nil
            startedAt = now
            self.decidedAt = decidedAt
        }
    }

    let gpu: GPUID
    let slots: Int
    private(set) var incarnation = Incarnation.none
    var core: WorkerCore?
    var journal: [AttemptID: Entry] = [:]
    var entries = 0
    var processes: [Process] = []
    var watchdogs: [AttemptID: JobWatchdog] = [:]
    /// Until when attempts may run that are to be fenced, as last ordered.
    var fences: [AttemptID: JobWatchdog.Order] = [:]
    /// When heartbeats were sent whose answers may still come.
    var sent: [UInt64: Timestamp] = [:]
    /// The host stands still until then, with everything on it.
    private(set) var hostFrozenUntil = Agenda.beginning
    var inbox: [WorkerEvent] = []
    var isHandling = false
    var armed: Timestamp?
    var puller: DurablePuller?
    var watch: OrderedReader?
    var messages: [MessageToken: Stored] = [:]
    var askers: [RequestToken: ReturnAddress<WorkerAnswer>] = [:]
    var lastRequest: UInt64 = 0
    var counter: UInt64 = 0
    var isReady = false
    var registeredAt: UInt64 = 0
    var isReplaced = false
    /// The card is too hot, or sick, until then.
    var hotUntil = Agenda.beginning
    var isSick = false
    var hold: CardHold?
    /// Its disk takes no new files until then.
    var diskFullUntil = Agenda.beginning

    init(name: String, gpu: GPUID, slots: Int, cluster: Cluster) {
        self.gpu = gpu
        self.slots = slots
        super.init(name: name, cluster: cluster)
    }

    var names: PoolNames { cluster.names }
    var never: Timestamp { cluster.now + .seconds(86_400) }

    /// It has told the pool that it is ready, and was not told to stop.
    var isServing: Bool { isRunning && isReady && core?.isDraining == false }

    /// Processes of attempts that are alive on this host.
    var liveProcesses: [Process] { processes.filter(\.isAlive) }

    // MARK: start

    func start() {
        guard !isRunning else { return }
        guard !isHostFrozen else { return onHost(after: .zero) { [self] in start() } }
        begin()
        var ids = cluster.chance.ids()
        incarnation = Incarnation(from: &ids)
        core = WorkerCore(
            gpu: gpu,
            incarnation: incarnation,
            policy: cluster.scenario.workerPolicy(slots: slots, cluster.mutant),
            ids: cluster.chance.ids()
        )
        inbox = []
        armed = nil
        messages = [:]
        askers = [:]
        counter = 0
        sent = [:]
        fences = [:]
        isReady = false
        isReplaced = false
        hold = nil
        cluster.tell("\(name) starts")
        // What earlier lives left is ended before anything else.
        let leftovers = liveProcesses
        after(cluster.chance.seconds(0.05...(leftovers.isEmpty ? 0.1 : 3))) { [self] in
            if cluster.mutant != .leavesEarlierProcesses { for process in leftovers { process.isAlive = false } }
            let open = journal.filter(\.value.isOpen).sorted { $0.value.number < $1.value.number }
            register(open.map { RecoveredAttempt(job: $0.value.job, attempt: $0.key, report: $0.value.report) })
        }
    }

    /// Makes this process the owner of its card, as `Registrar` does.
    func register(_ recovered: [RecoveredAttempt]) {
        let again = { [self] in afterFailure { [self] in register(recovered) } }
        connection.last(of: names.registration(gpu), in: names.controlStream) { [self] reply in
            guard case .answer(let stored) = reply else { return again() }
            var current: WorkerRegistration?
            if case .registration(let registration)? = stored?.body { current = registration }
            guard let current, !current.isReleased, current.host != name, cluster.mutant != .takesCardsOver else {
                return writeRegistration(expected: stored?.sequence ?? 0, recovered, again)
            }
            listenFor(current.incarnation) { [self] isHeard in
                if isHeard {
                    cluster.tell("\(name) finds card \(gpu) taken, and ends")
                    return end()
                }
                writeRegistration(expected: stored?.sequence ?? 0, recovered, again)
            }
        }
    }

    /// Listens for heartbeats of a life until its TTL has passed.
    func listenFor(_ life: Incarnation, _ done: @escaping (Bool) -> Void) {
        var isSettled = false
        connection.subscribe(names.heartbeat) { [gpu] in
            guard case .heartbeat(let beat, _) = $0, beat.gpu == gpu, beat.incarnation == life, !isSettled else {
                return
            }
            isSettled = true
            done(true)
        }
        after(cluster.scenario.policy.heartbeatTTL) {
            guard !isSettled else { return }
            isSettled = true
            done(false)
        }
    }

    func registration(isReleased: Bool) -> WorkerRegistration {
        var ids = cluster.chance.ids()
        return WorkerRegistration(
            gpu: gpu,
            incarnation: incarnation,
            host: name,
            bootID: "boot",
            processID: life,
            isReleased: isReleased,
            op: OperationID(from: &ids)
        )
    }

    func writeRegistration(
        expected: UInt64,
        _ recovered: [RecoveredAttempt],
        _ again: @escaping () -> Void
    ) {
        connection.compareAndSet(
            .registration(registration(isReleased: false)),
            to: names.registration(gpu),
            stream: names.controlStream,
            expected: expected,
            until: cluster.now + .seconds(30)
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence): serve(recovered, registeredAt: sequence)
            case .conflict: register(recovered)
            case .refused, .unknown: again()
            }
        }
    }

    func serve(_ recovered: [RecoveredAttempt], registeredAt sequence: UInt64) {
        registeredAt = sequence
        for verb in WorkerRequest.Verb.allCases {
            connection.subscribe(names.workerRequest(gpu, verb)) { [self] in
                if case .workerRequest(let request, let address) = $0 { takeRequest(request, address) }
            }
        }
        connection.subscribe("\(answerInbox).*") { [self] in if case .heartbeatAnswer(let answer) = $0 { hear(answer) }
        }
        // A new leader knows this worker from its registration alone.
        connection.subscribe(names.maestroEvent("state")) { [self] in if case .leading = $0 { beat() } }
        watch = OrderedReader(connection, stream: names.controlStream, filter: names.registration(gpu)) { [self] in
            noteRegistration($0)
        }
        puller = DurablePuller(
            connection,
            name: names.runConsumer(gpu),
            stream: names.runStream,
            subject: names.run(gpu),
            maxAckPending: 1024
        ) { [self] in takeRun($0) }
        connection.observe { [self] isConnected in
            guard isConnected else { return }
            cluster.ledger.noteReconnected(self)
            receive(.reconnected)
        }
        look(tells: false)
        receive(.began(recovered))
    }

    func noteRegistration(_ event: OrderedReader.Event) {
        if case .recreated = event { return affirmRegistration() }
        guard case .message(let message) = event, case .registration(let current) = message.body else { return }
        noteOwner(current)
    }

    /// The stream may have been put back: a registration that is gone is written again.
    func affirmRegistration() {
        guard cluster.mutant != .trustsARestartedServer else { return }
        connection.last(of: names.registration(gpu), in: names.controlStream) { [self] reply in
            guard case .answer(let stored) = reply else { return afterFailure { [self] in affirmRegistration() } }
            if case .registration(let current)? = stored?.body { return noteOwner(current) }
            connection.compareAndSet(
                .registration(registration(isReleased: false)),
                to: names.registration(gpu),
                stream: names.controlStream,
                expected: 0,
                until: cluster.now + .seconds(30)
            ) { [self] outcome in
                if case .stored(let sequence) = outcome {
                    registeredAt = sequence
                    cluster.cover("a worker registers again")
                } else {
                    afterFailure { [self] in affirmRegistration() }
                }
            }
        }
    }

    func noteOwner(_ current: WorkerRegistration) {
        guard current.incarnation != incarnation, !isReplaced, core != nil else { return }
        isReplaced = true
        cluster.tell("\(name) has lost card \(gpu) to \(current.host)")
        for _ in 0..<2 { receive(.stopAsked) }
    }

    // MARK: the host

    var isHostFrozen: Bool { hostFrozenUntil > cluster.now }

    /// What happens on the host whatever becomes of the worker's process, when the host does not stand still.
    func onHost(after delay: Duration, _ step: @escaping () -> Void) {
        cluster.agenda.after(delay) { [self] in
            if isHostFrozen { onHost(after: hostFrozenUntil - cluster.now, step) } else { step() }
        }
    }

    func freezeHost(_ duration: Duration) {
        cluster.tell("the host of \(name) stands still for \(duration.text)")
        hostFrozenUntil = max(hostFrozenUntil, cluster.now + duration)
        freeze(duration)
    }

    override func heal() {
        hostFrozenUntil = min(hostFrozenUntil, cluster.now)
        super.heal()
    }

    /// Whether the host has stood still since then.
    func wasHostFrozen(since time: Timestamp) -> Bool { hostFrozenUntil > time }

    // MARK: end

    /// SIGKILL of the worker alone, or of its host with everything on it.
    func crash(withHost: Bool) {
        if withHost {
            for process in processes { process.isAlive = false }
            watchdogs = [:]
            hostFrozenUntil = cluster.now
        }
        guard isRunning, !isHostFrozen else { return }
        cluster.tell("\(name) is killed\(withHost ? " with its host" : "")")
        leave()
    }

    /// SIGTERM.
    func stop() {
        guard isRunning else { return }
        cluster.tell("\(name) is told to stop")
        guard core != nil, registeredAt > 0 else { return leave() }
        take { [self] in receive(.stopAsked) }
        let life = life
        // A server that does not come back keeps no worker from ending.
        cluster.agenda.after(.seconds(60)) { [self] in if life == self.life, isRunning { leave() } }
    }

    func leave() {
        puller?.close()
        watch?.close()
        puller = nil
        watch = nil
        core = nil
        isReady = false
        registeredAt = 0
        end()
        for watchdog in watchdogs.values { watchdog.parentDied() }
    }

    func finish() {
        cluster.tell("\(name) has stopped")
        puller?.close()
        watch?.close()
        core = nil
        isReady = false
        guard !isReplaced else { return leave() }
        connection.publish(.down(WorkerNotice(gpu: gpu, incarnation: incarnation)), on: names.workerDown)
        connection.compareAndSet(
            .registration(registration(isReleased: true)),
            to: names.registration(gpu),
            stream: names.controlStream,
            expected: registeredAt,
            until: cluster.now + .seconds(2)
        ) { [self] _ in leave() }
    }

    // MARK: events

    func receive(_ event: WorkerEvent) {
        guard core != nil else { return }
        inbox.append(event)
        guard !isHandling else { return }
        isHandling = true
        var isFinished = false
        while !inbox.isEmpty, core != nil {
            let event = inbox.removeFirst()
            let actions = core?.handle(event, at: clock) ?? []
            let life = life
            for action in actions where life == self.life {
                if action == .finish { isFinished = true } else { perform(action) }
            }
        }
        isHandling = false
        if isFinished, core != nil { finish() }
    }

    func takeRun(_ message: Stored) {
        guard case .run(let run) = message.body else { return }
        let token = MessageToken(message.sequence)
        messages[token] = message
        cluster.pass(.runDelivered, self, run.record.id)
        receive(.runReceived(run, token))
    }

    func takeRequest(_ request: WorkerRequest, _ address: ReturnAddress<WorkerAnswer>) {
        lastRequest += 1
        let token = RequestToken(lastRequest)
        askers[token] = address
        switch request {
        case .cancel(let job, let attempt): receive(.cancelAsked(job, attempt, token))
        case .evict(let job, let attempt, let code, let reason):
            receive(.evictAsked(job, attempt, code, reason: reason, token))
        case .probe: receive(.probeAsked(token))
        }
    }
}
