import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import ServiceSupport

/// The shell of ``LeaseCore``: holds the lease, or waits for it, and runs a term of office while it holds it.
struct Leadership: Sendable {
    private enum Event: Sendable {
        case core(LeaseCore.Event)
        /// systemd's watchdog wants to see that the loop goes on.
        case looked
        /// The term ended by itself; the error, if there is one, ends the process.
        case termEnded(FatalError?)
    }

    /// A term of office: the leader's work, and how far it may trust the lease.
    private struct Office {
        let task: Task<Void, Never>
        let trust: LeaseTrust
    }

    private struct Run {
        var core: LeaseCore
        var office: Office?
        var failure: FatalError?
        var isStopping = false
        /// Writes of the lease that were not answered yet.
        var writes = 0
        /// What had come on the connection of the office when the lease was last written.
        var arrivals: ConnectionArrivals?

        /// Something has come on it since: whoever leads has to hear, not only to hold the lease.
        mutating func hears(_ arrivals: ConnectionArrivals?) -> Bool {
            defer { self.arrivals = arrivals }
            return arrivals != nil && arrivals != self.arrivals
        }
        /// Whom this process was last said to stand by for.
        var leader: Incarnation?
    }

    /// On a connection of its own: behind the records of a large pool, or behind a request that keeps the server busy, a
    /// renewal would come too late again and again.
    let jetStream: JetStream
    /// That of the office, and its loop: a leader that cannot work lets the lease go.
    let work: NATSConnection
    let names: PoolNames
    let clock: MonotonicClock
    let incarnation: Incarnation
    let duration: Duration
    let logger: Logger
    let watchdog: LoopWatchdog
    /// Leads as long as the trust lasts; returns when its task is cancelled.
    let term: @Sendable (LeaseTrust) async throws(FatalError) -> Void
    /// Told once for each other leader that is seen while this process does not lead.
    let standby: @Sendable (LeaderLease) -> Void

    private let mailbox = Mailbox<Event>()

    init(
        jetStream: JetStream,
        work: NATSConnection,
        names: PoolNames,
        clock: MonotonicClock,
        incarnation: Incarnation,
        duration: Duration,
        logger: Logger,
        watchdog: LoopWatchdog,
        term: @escaping @Sendable (LeaseTrust) async throws(FatalError) -> Void,
        standby: @escaping @Sendable (LeaderLease) -> Void
    ) {
        self.jetStream = jetStream
        self.work = work
        self.names = names
        self.clock = clock
        self.incarnation = incarnation
        self.duration = duration
        self.logger = logger
        self.watchdog = watchdog
        self.term = term
        self.standby = standby
    }

    /// Gives the lead up in order; ``run()`` returns soon after.
    func stop() { mailbox.sendOutcome(.core(.stop)) }

    /// Returns when told to stop.
    /// - Throws: what ended a term of office and will end the next one too.
    func run() async throws(FatalError) {
        let timer = DeadlineTimer(on: work.loop) { [mailbox] in mailbox.sendOutcome(.core(.timerFired)) }
        var options = OrderedConsumer.Options()
        options.filterSubject = names.leader
        let watch: OrderedConsumer
        do throws(NATSError) {
            watch = try OrderedConsumer(jetStream, stream: names.controlStream, options: options) {
                [mailbox, logger] event in
                if let observed = Self.observation(event, logger) { mailbox.sendOutcome(.core(observed)) }
            }
        } catch {
            throw FatalError(.internalDefect, "the leader's lease cannot be followed: \(error)")
        }
        let failure = await withDiscardingTaskGroup { group -> FatalError? in
            await serve(timer: timer, in: &group)
        }
        timer.cancel()
        watch.close()
        if let failure { throw failure }
    }

    private func serve(timer: DeadlineTimer, in group: inout DiscardingTaskGroup) async -> FatalError? {
        let core = LeaseCore(
            holder: incarnation,
            host: HostInfo.name,
            processID: HostInfo.processID,
            duration: duration,
            ids: IdentifierSource()
        )
        var run = Run(core: core)
        mailbox.sendOutcome(.core(.timerFired))
        let watching = Task { [mailbox, watchdog] in await watchdog.run { mailbox.sendOutcome(.looked) } }
        defer { watching.cancel() }
        while !(run.isStopping && run.writes == 0) {
            for event in await mailbox.receive() {
                switch event {
                case .looked:
                    // While it leads, the office's own loop has to show that it goes on.
                    if run.office == nil { watchdog.noteProgress() }
                case .termEnded(let failure):
                    guard let failure else { continue }
                    run.failure = run.failure ?? failure
                    if !run.isStopping { stop() }
                case .core(let event):
                    note(event, &run)
                    let now = clock.now()
                    for action in run.core.handle(event, at: now) {
                        await perform(action, at: now, &run, timer, &group)
                    }
                }
            }
        }
        mailbox.close()
        return run.failure
    }

    private func note(_ event: LeaseCore.Event, _ run: inout Run) {
        switch event {
        case .stop: run.isStopping = true
        case .stored, .conflict, .failed: run.writes -= 1
        case .observed(let revision): noteLeader(revision?.lease, &run)
        case .timerFired: break
        }
    }

    private func noteLeader(_ lease: LeaderLease?, _ run: inout Run) {
        guard run.office == nil, let lease, !lease.isReleased, lease.holder != incarnation, lease.holder != run.leader
        else { return }
        run.leader = lease.holder
        logger.notice("standing by", metadata: ["leader": "\(lease.host) pid \(lease.processID)"])
        standby(lease)
    }

    private func perform(
        _ action: LeaseCore.Action,
        at now: Timestamp,
        _ run: inout Run,
        _ timer: DeadlineTimer,
        _ group: inout DiscardingTaskGroup
    ) async {
        switch action {
        case .armTimer(let due):
            timer.arm(after: due - now)
        case .extend(let until):
            run.office?.trust.extend(until: until)
        case .lead(let until):
            run.office = begin(until: until)
            run.leader = nil
        case .standDown(let reason):
            logger.notice("no longer leading", metadata: ["reason": "\(reason)"])
            run.office?.trust.revoke()
            run.office?.task.cancel()
            await run.office?.task.value
            run.office = nil
        case .read:
            group.addTask { await read() }
        case .write(let lease, let expected):
            run.writes += 1
            // Who takes the lead is asked first whether he hears.
            let hears = run.hears(work.arrivals) && run.office != nil
            group.addTask { await write(lease, expected: expected, mustAsk: !lease.isReleased && !hears) }
            // Has something come before the next renewal, if nothing else does.
            if hears { group.addTask { _ = await isAnswered() } }
        }
    }

    private func begin(until: Timestamp) -> Office {
        logger.notice("leading", metadata: ["incarnation": "\(incarnation)"])
        let trust = LeaseTrust(until: until)
        let task = Task { [term, mailbox] in
            do throws(FatalError) {
                try await term(trust)
                mailbox.sendOutcome(.termEnded(nil))
            } catch {
                mailbox.sendOutcome(.termEnded(error))
            }
        }
        return Office(task: task, trust: trust)
    }

    // MARK: the record

    /// Whether the server answers where the work is done, within a third of the lease.
    private func isAnswered() async -> Bool {
        do throws(NATSError) {
            try await work.flush(deadline: duration / 3)
            return true
        } catch {
            logger.debug("no answer where the work is done", metadata: ["error": "\(error)"])
            return false
        }
    }

    /// Reads the lease until the server answers.
    private func read() async {
        let control = ControlStore(jetStream, names: names)
        while !Task.isCancelled {
            do {
                let stored = try await control.read(names.leader, as: LeaderLease.self)
                let revision = stored.map { LeaseCore.Revision(lease: $0.record, sequence: $0.sequence) }
                return mailbox.sendOutcome(.core(.observed(revision)))
            } catch {
                logger.warning("the leader's lease cannot be read; trying again", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
    }

    /// - Parameter mustAsk: nothing is written unless the server answers where the work is done.
    private func write(_ lease: LeaderLease, expected: UInt64, mustAsk: Bool) async {
        if mustAsk {
            guard await isAnswered() else {
                logger.warning("no answer where the work is done: the leader's lease is not written")
                return mailbox.sendOutcome(.core(.failed(lease.op)))
            }
        }
        // A third of the lease: an answer that is lost leaves time to read the record and to try once more.
        let until = ContinuousClock.now + (lease.isReleased ? .seconds(2) : duration / 3)
        let control = ControlStore(jetStream, names: names)
        switch await control.write(lease, to: names.leader, expected: expected, until: until) {
        case .stored(let sequence):
            mailbox.sendOutcome(.core(.stored(lease.op, sequence: sequence)))
        case .conflict(let stored):
            let revision = stored.map { LeaseCore.Revision(lease: $0.record, sequence: $0.sequence) }
            mailbox.sendOutcome(.core(.conflict(lease.op, revision)))
        case .failed(let reason):
            logger.warning("the leader's lease could not be written", metadata: ["reason": "\(reason)"])
            if !lease.isReleased { await Pause.afterFailure() }
            mailbox.sendOutcome(.core(.failed(lease.op)))
        }
    }

    private static func observation(_ event: OrderedConsumerEvent, _ logger: Logger) -> LeaseCore.Event? {
        guard case .message(let message, _) = event else { return nil }
        do {
            let lease = try LeaderLease(parsing: message.payload)
            return .observed(LeaseCore.Revision(lease: lease, sequence: message.sequence))
        } catch {
            logger.warning("the leader's lease is \(error)", metadata: ["sequence": "\(message.sequence)"])
            return nil
        }
    }
}
