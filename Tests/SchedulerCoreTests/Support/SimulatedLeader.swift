import JobModel
import WireJSON

@testable import SchedulerCore

/// The shell of one scheduler core in a world: carries its actions out, and checks them.
final class SimulatedLeader {
    let name: String
    private(set) var core: SchedulerCore
    /// Its lease holds: what is not a compare-and-set may leave it.
    var isTrusted = true
    private unowned let world: World
    private var isAlive = true
    private var place: UInt64 = 0
    private var isReading = false
    private var isReplaying = true
    private var armed: Timestamp?
    private var stalledUntil: Timestamp?
    private var inbox: [SchedulerEvent] = []
    /// Submissions asked for and not delivered, and those delivered and not settled.
    private(set) var wanted = 0
    private var held = 0
    private var submissions: [UInt64: [UInt8]] = [:]
    /// Writes that the core has to wait for, with the sequence they were made for.
    private var underWay: [JobID: (op: OperationID, expected: UInt64)] = [:]
    private var requests: UInt64 = 0
    /// Where the control records stand that it has heard of.
    private var heardControl: [GPUID: UInt64] = [:]

    init(name: String, world: World) {
        self.name = name
        self.world = world
        core = SchedulerCore(policy: world.policy, ids: world.chance.ids())
    }

    func start() {
        world.tell("\(name) leads")
        receive(.began(resultsPlace: world.bus.resultsPlace, serverClockOffset: .zero))
        for registration in world.bus.registrations { world.tellRegistration(of: registration.gpu, to: self) }
        for revision in world.controls.revisions { world.tellControl(of: revision.record.gpu, to: self) }
        readControls()
        readOn()
    }

    func die() {
        guard isAlive else { return }
        isAlive = false
        world.tell("\(name) ends")
    }

    /// Takes nothing in for a while.
    func stall(_ duration: Duration) {
        world.tell("\(name) is stalled for \(duration.inSeconds) s")
        let end = world.now + duration
        stalledUntil = end
        world.agenda.at(end) { [self] in
            stalledUntil = nil
            let events = inbox
            inbox = []
            for event in events { receive(event) }
        }
    }

    func receive(_ event: SchedulerEvent) {
        guard isAlive else { return }
        guard stalledUntil == nil else { return inbox.append(event) }
        noteArrival(of: event)
        let actions = core.handle(event, at: world.now)
        for action in actions { check(action) }
        for action in actions { carryOut(action) }
        checkCore()
    }

    func cancel(_ id: JobID) {
        requests += 1
        world.tell("client asks \(name) to cancel \(id)")
        receive(.cancelAsked(id, reason: "not needed", RequestToken(requests)))
    }

    func ask(_ request: CardRequest) {
        requests += 1
        world.tell("client asks \(name) to \(request.verb.rawValue) card \(request.gpu)")
        receive(.cardRequest(request, RequestToken(requests)))
    }

    /// The control records are all heard of, since they are told in the order of their stream.
    private func readControls() {
        let missing = world.controls.revisions.contains { heardControl[$0.record.gpu, default: 0] < $0.sequence }
        guard missing else { return receive(.controlReplayed) }
        world.agenda.after(.milliseconds(10)) { [self] in readControls() }
    }

    func deliver(_ message: SimulatedBus.Message) {
        wanted -= 1
        held += 1
        submissions[message.sequence] = message.bytes
        world.agenda.after(world.travel()) { [self] in
            receive(
                .submitted(
                    Submission(
                        bytes: message.bytes,
                        digest: digest(message.bytes),
                        sequence: message.sequence,
                        timestamp: message.timestamp,
                        age: .nanoseconds(world.now.nanoseconds - message.timestamp),
                        token: message.sequence
                    )
                )
            )
        }
    }

    /// Goes on reading the stream of records: one message at a time, in order, skipping what was replaced.
    func readOn() {
        guard isAlive, !isReading else { return }
        guard world.store.next(after: place) != nil else { return finishReplay() }
        isReading = true
        world.agenda.after(world.travel()) { [self] in
            isReading = false
            if let revision = world.store.next(after: place) {
                place = revision.sequence
                receive(isReplaying ? .replayed(revision) : .recordChanged(revision))
            }
            readOn()
        }
    }

    private func finishReplay() {
        guard isReplaying else { return }
        isReplaying = false
        receive(.replayFinished(lastSequence: world.store.lastSequence))
    }

    // MARK: actions

    private func carryOut(_ action: SchedulerAction) {
        switch action {
        case .write(let record, let expected):
            world.write(record, expected: expected, by: name) { [self] result in
                receive(.writeEnded(record.id, record.op, result))
            }
        case .publishRun(let gpu, let message): publishRun(gpu, message)
        case .deleteRun(let gpu, _, let sequence):
            guard isTrusted, let sequence else { return }
            later { $0.world.bus.deleteRun(gpu, sequence) }
        case .settle(let tokens): settle(tokens)
        case .publishError(let event, _, let tokens):
            world.tell("\(name) tells an error about \(event.job?.text ?? "?"): \(event.code.rawValue)")
            settle(tokens)
        case .tellLoss(let job, let attempt, _, _):
            later { leader in
                leader.world.tell("\(leader.name) tells the loss of \(attempt)")
                leader.receive(.lossTold(job, attempt))
            }
        case .publishResult(let event, _): publishResult(event)
        case .storeResultsPlace(let place): later { $0.storePlace(place) }
        case .removeRecord(let sequence):
            later { leader in
                leader.world.store.remove(at: sequence)
                leader.receive(.recordRemoved(sequence: sequence, failure: nil))
            }
        case .requestCancel(let gpu, let job, let attempt):
            guard isTrusted else { return }
            later { leader in leader.world.workers.first { $0.gpu == gpu }?.kill(job, attempt) }
        case .requestEvict(let gpu, let job, let attempt, _, let reason):
            guard isTrusted else { return }
            later { leader in leader.world.workers.first { $0.gpu == gpu }?.evict(job, attempt, reason) }
        case .requestProbe(let gpu): probe(gpu)
        case .writeControl(let record, let expected):
            world.write(record, expected: expected, by: name) { [self] result in
                if case .stored(let sequence) = result { heardControl[record.gpu] = sequence }
                receive(.controlWritten(record.gpu, record.op, result))
            }
        case .readRecord(let id): readRecord(id)
        case .pull(let count):
            wanted += count
            later { $0.world.offerSubmissions() }
        case .armTimer(let time): arm(time)
        case .notice(let text): world.tell("\(name): \(text)")
        case .reply, .announce, .decided: break
        }
    }

    /// What leaves the process arrives even if the process dies meanwhile.
    private func later(_ step: @escaping (SimulatedLeader) -> Void) {
        world.agenda.after(world.travel()) { [self] in step(self) }
    }

    private func publishRun(_ gpu: GPUID, _ message: RunMessage) {
        guard isTrusted, let attempt = message.attempt else { return }
        let job = message.record.id
        later { leader in
            let world = leader.world
            if world.chance.hit(world.faults.refusedRun) {
                return leader.later { $0.receive(.runRefused(job, attempt, reason: "the stream is full")) }
            }
            let sequence = world.bus.publishRun(gpu, message)
            leader.later { $0.receive(.runPublished(job, gpu, attempt, sequence: sequence)) }
            world.workers.first { $0.gpu == gpu }?.pull()
        }
    }

    private func probe(_ gpu: GPUID) {
        later { leader in
            let worker = leader.world.workers.first { $0.gpu == gpu }
            let result = worker?.probe() ?? .notDone(reason: "no such worker")
            leader.later { $0.receive(.probeEnded(gpu, result)) }
        }
    }

    private func settle(_ tokens: [UInt64]) {
        held -= tokens.count
        later { $0.world.bus.acknowledge(tokens) }
    }

    private func publishResult(_ event: ResultEvent) {
        later { leader in
            leader.world.publishResult(event, by: leader.name)
            leader.later { $0.receive(.resultSettled(event.job)) }
        }
    }

    private func storePlace(_ place: UInt64) {
        let missing = world.store.revisions.first {
            $0.sequence <= place && $0.record.state.isTerminal && world.bus.results[$0.record.id] == nil
        }
        if let missing { world.violate("\(name) stores the place \(place), but \(missing.record.id) has no result") }
        world.bus.resultsPlace = max(world.bus.resultsPlace, place)
    }

    private func readRecord(_ id: JobID) {
        later { leader in
            let found = leader.world.store[id]
            leader.later { $0.receive(.recordRead(id, found)) }
        }
    }

    private func arm(_ time: Timestamp?) {
        armed = time
        guard let time else { return }
        world.agenda.at(time) { [self] in
            guard armed == time else { return }
            receive(.timerFired)
        }
    }

    // MARK: rules

    private func noteArrival(of event: SchedulerEvent) {
        switch event {
        case .timerFired: armed = nil
        case .cardControl(let revision):
            heardControl[revision.record.gpu] = max(heardControl[revision.record.gpu] ?? 0, revision.sequence)
        case .writeEnded(let job, let op, _):
            if underWay[job]?.op == op { underWay[job] = nil }
        case .replayed(let revision), .recordChanged(let revision):
            if let write = underWay[revision.record.id], revision.sequence > write.expected {
                underWay[revision.record.id] = nil
            }
        case .recordRead(let job, let revision?):
            if let write = underWay[job], revision.sequence > write.expected { underWay[job] = nil }
        default: break
        }
    }

    private func check(_ action: SchedulerAction) {
        switch action {
        case .write(let record, let expected):
            if underWay[record.id] != nil { violate("writes \(record.id) while a write of it is under way") }
            underWay[record.id] = (record.op, expected)
            if record.state == .scheduled {
                checkRoom(for: record)
                checkControl(for: record)
            }
        case .publishRun(_, let message):
            if underWay[message.record.id] != nil { violate("dispatches \(message.record.id) during a write") }
        case .requestCancel(_, let job, _), .requestEvict(_, let job, _, _, _):
            if underWay[job] != nil { violate("has \(job) killed during a write") }
        case .settle(let tokens): checkSettled(tokens)
        case .publishError(let event, _, let tokens):
            if event.state != nil { checkSettled(tokens) }
        case .notice(let text):
            if text.hasPrefix("a defect") { violate(text) }
        case .reply(_, let answer): checkReply(answer)
        default: break
        }
    }

    private func checkRoom(for record: JobRecord) {
        guard let gpu = record.gpu, let card = core.cards[gpu] else { return violate("schedules to no card") }
        if card.assigned.count > card.capacity(policy: world.policy) {
            violate("over-books card \(gpu): \(card.assigned.sorted())")
        }
    }

    /// Nothing goes to a card whose control record, as far as it was heard of, keeps jobs away.
    private func checkControl(for record: JobRecord) {
        guard let gpu = record.gpu, let standing = world.controls.revision(gpu),
            heardControl[gpu] == standing.sequence, standing.record.cordon != nil || standing.record.quarantine != nil
        else { return }
        violate("schedules \(record.id) to card \(gpu), which gets no job")
    }

    private func checkSettled(_ tokens: [UInt64]) {
        for token in tokens {
            guard let bytes = submissions[token] else { return violate("settles \(token), which it does not hold") }
            let isKnown = world.store.revisions.contains { $0.record.order == token }
            let id = (try? JSON(parsing: bytes))?["task_id"]?.stringValue.flatMap { JobID($0) }
            guard !isKnown, id.flatMap({ world.store[$0] }) == nil else { continue }
            violate("settles \(token) before its record is stored")
        }
    }

    private func checkReply(_ answer: JSON) {
        guard let id = answer["task_id"]?.stringValue.flatMap({ JobID($0) }),
            let state = answer["state"]?.stringValue.flatMap({ JobState(rawValue: $0) }), state.isTerminal
        else { return }
        if world.store[id]?.record.state != state { violate("says that \(id) is \(state.rawValue)") }
    }

    private func checkCore() {
        if armed != core.deadlines.earliest { violate("is not armed for its earliest deadline") }
        if wanted + held > world.policy.admissionWindow { violate("asked for \(wanted) and holds \(held)") }
        let jobs = core.jobs.values
        if core.queueSize != jobs.count(where: { $0.record.state.isWaitingState }) { violate("miscounts its queue") }
        if core.inflight != jobs.count(where: { $0.record.isBound }) { violate("miscounts what is in flight") }
        if jobs.contains(where: { $0.record.state.isTerminal }) { violate("keeps a job that has ended") }
        var bound = 0
        for gpu in core.cardOrder {
            guard let assigned = core.cards[gpu]?.assigned else { continue }
            bound += assigned.count
            if assigned.contains(where: { core.jobs[$0]?.card != gpu }) { violate("holds a slot of \(gpu) for nobody") }
        }
        if bound != jobs.count(where: { $0.card != nil }) { violate("miscounts its slots") }
    }

    /// It leads, and expects nothing more to happen.
    var isQuiet: Bool { core.phase == .leading && core.jobs.isEmpty && core.results.awaited.isEmpty }

    /// Nothing is left over when everything has ended.
    func checkEnd() {
        if !core.jobs.isEmpty { violate("still has \(core.jobs.keys.sorted())") }
        if !core.admissions.isEmpty { violate("still admits \(core.admissions.keys.sorted())") }
        if held != 0 || core.unsettled != 0 { violate("still holds \(held) submissions, or \(core.unsettled)") }
        let awaited = core.results.awaited.keys.sorted()
        if !awaited.isEmpty { violate("still waits for the results of \(awaited)") }
        if !core.cancelReads.isEmpty { violate("still reads for a cancel") }
    }

    private func violate(_ what: String) { world.violate("\(name) \(what)") }
}

extension JobState {
    fileprivate var isWaitingState: Bool {
        switch self {
        case .enqueued, .waitingGPU, .retry: true
        case .scheduled, .running, .done, .failed, .cancelled, .rejected: false
        }
    }
}
