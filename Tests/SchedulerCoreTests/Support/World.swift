import JobModel

@testable import SchedulerCore

/// How likely what goes wrong is.
struct Faults {
    /// A request or an answer takes seconds instead of milliseconds.
    var slow = 0.0
    /// A write is stored and its answer never comes: its sender asks again later.
    var lostAnswer = 0.0
    /// The store refuses a write, stores nothing and says so.
    var refused = 0.0
    /// A heartbeat or a reading does not arrive.
    var lostBeat = 0.0
    /// A worker dies between the end of a job and telling its result.
    var lostResult = 0.0
    /// The run stream refuses a message.
    var refusedRun = 0.0
    /// A card shows a sign of sickness, and a probe of a sick one finds it sick still.
    var sick = 0.0

    static let none = Faults()
}

/// A whole pool in virtual time: a store, a bus, workers, leaders, and whatever goes wrong between them.
///
/// Everything follows from the seed. What breaks a rule is collected in ``violations``.
final class World {
    let agenda = Agenda()
    let chance: Chance
    let store = SimulatedStore()
    let bus = SimulatedBus()
    let controls = SimulatedControls()
    let policy: SchedulerPolicy
    var faults = Faults.none
    private(set) var leaders: [SimulatedLeader] = []
    private(set) var workers: [SimulatedWorker] = []
    /// How often an attempt of a job was claimed.
    private var claims: [JobID: Int] = [:]
    private(set) var found: [String] = []
    /// What happened, line by line; kept only when somebody is going to read it.
    private(set) var history: [String] = []
    private let isTelling: Bool
    private var leadersStarted = 0

    init(seed: UInt64, policy: SchedulerPolicy, isTelling: Bool) {
        chance = Chance(seed: seed)
        self.policy = policy
        self.isTelling = isTelling
    }

    var now: Timestamp { agenda.now }
    var violations: [String] { store.violations + found }

    func violate(_ what: String) {
        found.append(what)
        tell("VIOLATION: \(what)")
    }

    func tell(_ line: @autoclosure () -> String) {
        guard isTelling else { return }
        let milliseconds = (now.nanoseconds - 1_700_000_000_000_000_000) / 1_000_000
        let digits = String(milliseconds % 1000)
        let fraction = String(repeating: "0", count: 3 - digits.count) + digits
        history.append("\(milliseconds / 1000).\(fraction) \(line())")
    }

    // MARK: parts

    func addWorker(_ gpu: GPUID, slots: Int) {
        let worker = SimulatedWorker(gpu: gpu, slots: slots, world: self)
        workers.append(worker)
        worker.start()
    }

    /// A new leader; the one before stops, or goes on for a while without being trusted.
    func changeLeader(overlap: Duration = .zero) {
        for old in leaders {
            old.isTrusted = false
            agenda.after(overlap) { [self] in
                old.die()
                leaders.removeAll { $0 === old }
            }
        }
        leadersStarted += 1
        bus.resetConsumer()
        let leader = SimulatedLeader(name: "L\(leadersStarted)", world: self)
        leaders.append(leader)
        leader.start()
    }

    /// Nobody leads.
    func stopLeaders() {
        for leader in leaders { leader.die() }
        leaders = []
    }

    var leader: SimulatedLeader? { leaders.last.flatMap { $0.isTrusted ? $0 : nil } }

    // MARK: the way there and back

    func travel() -> Duration {
        chance.hit(faults.slow) ? chance.seconds(0.5...9) : chance.seconds(0.0005...0.01)
    }

    /// Writes a record as a shell does: what comes back is definite, however long it takes.
    func write(
        _ record: JobRecord,
        expected: UInt64,
        by writer: String,
        done: @escaping (WriteResult) -> Void
    ) {
        agenda.after(travel()) { [self] in
            if chance.hit(faults.refused) {
                tell("store refuses \(writer)'s \(record.id) \(record.state.rawValue)")
                return agenda.after(travel()) { done(.refused("maximum bytes exceeded")) }
            }
            let before = store[record.id]?.record.state
            let result = store.write(record, expected: expected, at: now)
            note(record, expected, writer, result)
            guard case .stored = result else { return agenda.after(travel()) { done(result) } }
            if before == .scheduled, record.state == .running { noteClaim(of: record) }
            for leader in leaders { leader.readOn() }
            guard chance.hit(faults.lostAnswer) else { return agenda.after(travel()) { done(result) } }
            agenda.after(chance.seconds(2...12)) { [self] in done(resolve(record, stored: result)) }
        }
    }

    /// Another copy of a write was refused: the record is read, and tells by its op whether the first was stored.
    private func resolve(_ record: JobRecord, stored: WriteResult) -> WriteResult {
        let standing = store[record.id]
        return standing?.record.op == record.op ? stored : .conflict(standing)
    }

    /// Writes a card's control record as a shell does.
    func write(
        _ record: CardControl,
        expected: UInt64,
        by writer: String,
        done: @escaping (ControlResult) -> Void
    ) {
        agenda.after(travel()) { [self] in
            if chance.hit(faults.refused) { return agenda.after(travel()) { done(.refused("maximum bytes exceeded")) } }
            let result = controls.write(record, expected: expected, at: now)
            tell(
                "\(writer) writes control of \(record.gpu) at \(expected): \(String(decoding: record.encoded(), as: UTF8.self))"
            )
            if case .stored = result {
                for leader in leaders { tellControl(of: record.gpu, to: leader) }
                if chance.hit(faults.lostAnswer) { return agenda.after(chance.seconds(2...12)) { done(result) } }
            }
            agenda.after(travel()) { done(result) }
        }
    }

    /// What arrives is the card's control record as it stands by then, never an older one.
    func tellControl(of gpu: GPUID, to leader: SimulatedLeader) {
        agenda.after(travel()) { [self] in
            if let standing = controls.revision(gpu) { leader.receive(.cardControl(standing)) }
        }
    }

    private func note(_ record: JobRecord, _ expected: UInt64, _ writer: String, _ result: WriteResult) {
        let card = record.gpu.map { " gpu \($0)" } ?? ""
        let what = "\(writer) writes \(record.id) \(record.state.rawValue)\(card) at \(expected)"
        switch result {
        case .stored(let sequence):
            tell("\(what): \(sequence) tries \(record.tries) lost \(record.lost) \(record.reason)")
        case .conflict(let standing): tell("\(what): conflict with \(standing?.sequence ?? 0)")
        case .refused(let reason): tell("\(what): \(reason)")
        }
    }

    /// A worker's claim was stored.
    private func noteClaim(of record: JobRecord) {
        claims[record.id, default: 0] += 1
        if record.cancelRequested { violate("\(record.id) was claimed after its cancel was asked for") }
    }

    func publishResult(_ event: ResultEvent, by publisher: String) {
        guard bus.publishResult(event) else { return tell("\(publisher): the result of \(event.job) is there already") }
        tell("\(publisher) tells the result of \(event.job): \(event.state.rawValue)")
        if store[event.job]?.record.state != event.state {
            violate("the result of \(event.job) is \(event.state.rawValue), its record is not")
        }
        for leader in leaders { agenda.after(travel()) { leader.receive(.resultSeen(event.job)) } }
    }

    func broadcast(_ event: SchedulerEvent, mayBeLost: Bool = false) {
        for leader in leaders where !(mayBeLost && chance.hit(faults.lostBeat)) {
            agenda.after(travel()) { leader.receive(event) }
        }
    }

    /// Stores who owns a card, and tells the leaders in the order of the stream.
    func register(_ registration: WorkerRegistration) {
        bus.register(registration)
        for leader in leaders { tellRegistration(of: registration.gpu, to: leader) }
    }

    /// What arrives is the card's registration as it stands by then, never an older one.
    func tellRegistration(of gpu: GPUID, to leader: SimulatedLeader) {
        agenda.after(travel()) { [self] in
            guard let standing = bus.registrations.first(where: { $0.gpu == gpu }) else { return }
            leader.receive(.registered(standing))
        }
    }

    func submit(_ bytes: [UInt8]) {
        bus.submit(bytes, at: now)
        tell("client submits \(String(decoding: bytes, as: UTF8.self))")
        offerSubmissions()
    }

    /// Delivers what the leader has asked for.
    func offerSubmissions() {
        guard let leader, leader.wanted > 0, let message = bus.nextSubmission(at: now) else { return }
        leader.deliver(message)
        agenda.after(SimulatedBus.ackWait) { [self] in offerSubmissions() }
        offerSubmissions()
    }

    // MARK: the end

    /// Everything submitted has ended, and everybody knows.
    var isQuiet: Bool {
        guard let leader, leader.isQuiet else { return false }
        return bus.submissions.isEmpty && store.revisions.allSatisfy { $0.record.state.isTerminal }
            && store.revisions.allSatisfy { bus.results[$0.record.id] != nil }
            && bus.resultsPlace == store.lastSequence && workers.allSatisfy { $0.isIdle }
            && workers.allSatisfy { bus.runs[$0.gpu, default: []].isEmpty }
    }

    /// What is not as it should be when nothing moves any more.
    func checkEnd() {
        for revision in store.revisions {
            let record = revision.record
            if !record.state.isTerminal {
                violate("\(record.id) never ended: \(record.state.rawValue) \(record.reason)")
            }
            if bus.results[record.id] == nil { violate("\(record.id) has no result") }
            if claims[record.id, default: 0] != record.tries {
                violate("\(record.id) was claimed \(claims[record.id, default: 0]) times and says \(record.tries)")
            }
        }
        if !bus.submissions.isEmpty { violate("\(bus.submissions.count) submissions were never settled") }
        if bus.resultsPlace != store.lastSequence {
            violate("results are told up to \(bus.resultsPlace), records go to \(store.lastSequence)")
        }
        for worker in workers {
            let left = bus.runs[worker.gpu, default: []]
            if !left.isEmpty { violate("\(left.count) run messages of card \(worker.gpu) are left") }
            if !worker.isIdle { violate("the worker of card \(worker.gpu) is not idle") }
        }
        leader?.checkEnd()
    }
}
