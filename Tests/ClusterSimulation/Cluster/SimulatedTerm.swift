import JobModel
import SchedulerCore
import WireJSON

/// A term of office: the shell of ``SchedulerCore``, as `LeaderTerm` is.
final class SimulatedTerm {
    let maestro: SimulatedMaestro
    let cluster: Cluster
    var core: SchedulerCore
    private(set) var isOver = false
    var inbox: [SchedulerEvent] = []
    var isHandling = false
    var armed: Timestamp?
    var serverClockOffset = Duration.zero
    var isLive = false
    var readers: [OrderedReader] = []
    var puller: DurablePuller?
    /// Submissions that were delivered and not settled, by their tokens.
    var unsettled: [UInt64: Stored] = [:]
    var lastToken: UInt64 = 0
    var lastRequest: UInt64 = 0
    var askers: [RequestToken: Asker] = [:]
    var isOpen = false
    /// The server that the term began with.
    var server = 0
    /// What the term's own checks know.
    var watchdog: TermWatchdog

    /// Who waits for an answer.
    enum Asker {
        case person(ReturnAddress<JSON>)
        case worker(inbox: String)
    }

    init(_ maestro: SimulatedMaestro) {
        self.maestro = maestro
        cluster = maestro.cluster
        var policy = cluster.scenario.policy(ofMaestro: maestro.number, cluster.mutant)
        if cluster.mutant == .callsLostEarly { policy.heartbeatTTL = .seconds(3) }
        core = SchedulerCore(policy: policy, ids: cluster.chance.ids())
        watchdog = TermWatchdog(maestro: maestro)
    }

    var connection: Connection { maestro.connection }
    var names: PoolNames { cluster.names }
    var never: Timestamp { cluster.now + .seconds(86_400) }

    func end() {
        isOver = true
        armed = nil
        for reader in readers { reader.close() }
        readers = []
        puller?.close()
        puller = nil
        askers = [:]
    }

    /// It leads, and nothing is left to do.
    var isQuiet: Bool { isOpen && core.queueSize == 0 && core.inflight == 0 && unsettled.isEmpty }

    // MARK: beginning

    func begin() {
        connection.last(of: names.resultsPlace, in: names.controlStream) { [self] reply in
            guard !isOver else { return }
            guard case .answer(let place) = reply else { return maestro.afterFailure { [self] in again() } }
            let asked = maestro.clock
            connection.last(of: names.leader, in: names.controlStream) { [self] reply in
                guard !isOver else { return }
                guard case .answer(let lease) = reply else { return maestro.afterFailure { [self] in again() } }
                let offset = lease.map { asked - Timestamp(nanoseconds: $0.timestamp) } ?? .zero
                open(place: place, offset: offset)
            }
        }
    }

    func again() { if !isOver { begin() } }

    func open(place: Stored?, offset: Duration) {
        server = connection.server
        serverClockOffset = offset
        var through: UInt64 = 0
        if case .place(let sequence)? = place?.body { through = sequence }
        receive(.began(resultsPlace: through, serverClockOffset: offset))
        listen()
        let puller = DurablePuller(
            connection,
            name: names.enqueueConsumer,
            stream: names.workQueueStream,
            subject: names.enqueueSubject,
            maxAckPending: cluster.scenario.policy.admissionWindow * 4
        ) { [self] in takeSubmission($0) }
        self.puller = puller
        puller.serve()
        watchStore()
    }

    func listen() {
        connection.subscribe(names.heartbeat) { [self] in
            guard case .heartbeat(let heartbeat, let inbox) = $0, !isOver else { return }
            watchdog.hear(heartbeat)
            let changed = heartbeat.changed(by: cluster.mutant)
            guard let inbox else { return receive(.heartbeat(changed)) }
            receive(.heartbeatAsked(changed, register(.worker(inbox: inbox))))
        }
        connection.subscribe(names.metrics) { [self] in
            if case .reading(let reading) = $0 { receive(.reading(reading)) }
        }
        connection.subscribe(names.workerDown) { [self] in
            guard case .down(let notice) = $0 else { return }
            watchdog.note(notice)
            receive(.workerDown(notice))
        }
        connection.subscribe(names.request("*")) { [self] in
            if case .request(let request, let address) = $0 { takeRequest(request, address) }
        }
        connection.observe { [self] isConnected in
            guard isConnected, !isOver else { return }
            guard connection.server == server || cluster.mutant == .trustsARestartedServer else {
                cluster.tell("\(maestro.name) begins anew: it is another server")
                return maestro.beginAnew()
            }
            watchdog.grantAll()
            receive(.reconnected)
        }
        readers = [
            OrderedReader(connection, stream: names.controlStream, filter: ">") { [self] in noteControl($0) },
            OrderedReader(connection, stream: names.eventsStream, filter: names.resultPrefix + ".*", start: .new) {
                [self] in
                guard case .message(let message) = $0, let job = names.job(from: message.subject) else { return }
                receive(.resultSeen(job))
            },
            OrderedReader(connection, stream: names.jobsStream, filter: ">") { [self] in noteRecord($0) },
        ]
    }

    func noteControl(_ event: OrderedReader.Event) {
        switch event {
        case .message(let message):
            switch message.body {
            case .registration(let registration):
                watchdog.note(registration)
                receive(.registered(registration))
            case .control(let record):
                let storedAt = Timestamp(nanoseconds: message.timestamp) + serverClockOffset
                receive(
                    .cardControl(ControlRevision(record: record, sequence: message.sequence, storedAt: storedAt))
                )
            case .submission, .run, .record, .lease, .place, .event: break
            }
        case .caughtUp: receive(.controlReplayed)
        case .recreated: break
        case .rolledBack: cluster.cover("a reader sees its stream put back")
        }
    }

    func noteRecord(_ event: OrderedReader.Event) {
        switch event {
        case .message(let message):
            guard let record = message.body.record else { return }
            let storedAt = isLive ? maestro.clock : Timestamp(nanoseconds: message.timestamp) + serverClockOffset
            let revision = RecordRevision(record: seen(record), sequence: message.sequence, storedAt: storedAt)
            receive(isLive ? .recordChanged(revision) : .replayed(revision))
        case .caughtUp(let last):
            isLive = true
            watchdog.grantAll()
            receive(.replayFinished(lastSequence: last))
            isOpen = true
        case .recreated: break
        case .rolledBack: cluster.cover("a reader sees its stream put back")
        }
    }

    // MARK: events

    func receive(_ event: SchedulerEvent) {
        guard !isOver else { return }
        inbox.append(event)
        guard !isHandling else { return }
        isHandling = true
        while !inbox.isEmpty, !isOver {
            let event = inbox.removeFirst()
            if case .timerFired = event { armed = nil }
            let actions = core.handle(event, at: maestro.clock)
            for action in actions where !isOver {
                watchdog.check(action)
                perform(action)
            }
        }
        isHandling = false
    }

    func takeSubmission(_ message: Stored) {
        guard !isOver, case .submission(let bytes) = message.body else { return }
        lastToken += 1
        unsettled[lastToken] = message
        let storedAt = Timestamp(nanoseconds: message.timestamp) + serverClockOffset
        let submission = Submission(
            bytes: bytes,
            digest: Ledger.digest(bytes),
            sequence: message.sequence,
            timestamp: message.timestamp,
            age: maestro.clock - storedAt,
            token: lastToken
        )
        if cluster.mutant == .acksBeforeStored { puller?.acknowledge(message.sequence, .done) }
        receive(.submitted(submission))
    }

    func takeRequest(_ request: PersonalRequest, _ address: ReturnAddress<JSON>) {
        guard isOpen, !isOver else { return }
        let token = register(.person(address))
        switch request {
        case .cancel(let job):
            if cluster.mutant == .answersCancelAtOnce {
                askers[token] = nil
                connection.answer(address, ["ok": true, "task_id": .string(job.text), "state": "cancelled"])
            }
            receive(.cancelAsked(job, reason: "not needed", token))
        case .why(let job): receive(.whyAsked(job, token))
        case .status: receive(.statusAsked(token))
        case .card(let verb, let gpu, let delay):
            guard let verb = CardRequest.Verb(rawValue: verb) else { return }
            receive(.cardRequest(CardRequest(verb, gpu, reason: "a person", delay: delay), token))
        }
    }

    private func register(_ asker: Asker) -> RequestToken {
        lastRequest += 1
        let token = RequestToken(lastRequest)
        askers[token] = asker
        return token
    }

    /// A record as the core gets to see it.
    func seen(_ record: JobRecord) -> JobRecord {
        cluster.mutant == .givesFencedJobsAway && record.state == .running ? record.with(fence: nil) : record
    }

    /// Tells the core every few seconds how full the records' stream is.
    func watchStore() {
        guard !isOver else { return }
        let jobs = names.jobsStream
        connection.request { server in
            server.model[jobs].map { $0.isOutOfSpace ? 1.0 : 0.1 }
        } _: { [self] reply in
            if case .answer(let fill) = reply { receive(.storeFilled(fill)) }
        }
        maestro.after(.seconds(5)) { [self] in watchStore() }
    }

    func arm(_ due: Timestamp?) {
        armed = due
        guard let due else { return }
        cluster.agenda.at(maestro.moment(of: due)) { [self] in
            guard armed == due, !isOver else { return }
            maestro.take { [self] in if armed == due { receive(.timerFired) } }
        }
    }
}
