import JobModel

/// A whole pool in virtual time: a server, maestros, workers, people, and whatever goes wrong between them.
///
/// Everything follows from the scenario.
final class Cluster {
    let agenda = Agenda()
    let names = PoolNames()
    let scenario: Scenario
    let mutant: Mutant?
    let chance: Chance
    private(set) lazy var server = SimulatedServer(cluster: self, version: scenario.version)
    private(set) lazy var ledger = Ledger(self)
    private(set) lazy var people = People(name: "people", cluster: self)
    private(set) lazy var weather = Weather(self)
    private(set) var maestros: [SimulatedMaestro] = []
    private(set) var workers: [SimulatedWorker] = []
    private(set) var isCalm = false
    private(set) var coverage = Coverage()
    private(set) var history: [Line] = []
    private let isTelling: Bool
    private var waiting: [PlannedFault] = []
    private var states: [JobID: [JobState]] = [:]
    /// Some fault may be felt until then.
    private(set) var disturbedUntil = Agenda.beginning

    /// A line of the history, and the job it is about.
    struct Line {
        let time: Timestamp
        let job: JobID?
        let text: String
    }

    init(_ scenario: Scenario, mutant: Mutant?, isTelling: Bool) {
        self.scenario = scenario
        self.mutant = mutant
        self.isTelling = isTelling
        chance = Chance(seed: scenario.seed)
        maestros = (1...scenario.maestros).map { SimulatedMaestro(number: $0, cluster: self) }
        for (number, slots) in scenario.workers.enumerated() {
            workers.append(
                SimulatedWorker(name: "worker-\(number)", gpu: GPUID(number: number), slots: slots, cluster: self)
            )
        }
    }

    var now: Timestamp { agenda.now }
    func travel() -> Duration { weather.travel() }

    func tell(_ text: @autoclosure () -> String, _ job: JobID? = nil) {
        if isTelling { history.append(Line(time: now, job: job, text: text())) }
    }

    func cover(_ what: String) { coverage.count(what) }
    func cover(_ fault: Fault) { coverage.count(fault) }

    func noteState(_ state: JobState, of job: JobID) { states[job, default: []].append(state) }
    func history(of job: JobID) -> [JobState] { states[job] ?? [] }

    // MARK: a run

    func run() {
        people.start()
        for maestro in maestros { maestro.start() }
        for worker in workers { worker.start() }
        keepSyncing()
        keepChecking()
        for job in scenario.jobs { agenda.after(job.time) { [self] in submit(job) } }
        for fault in scenario.faults {
            agenda.after(fault.time) { [self] in
                guard !isCalm else { return }
                if fault.moment == nil { carryOut(fault, nil, nil) } else { waiting.append(fault) }
            }
        }
        advance(to: now + scenario.trouble)
        calmDown()
        // Backoffs, claim timeouts, TTLs and graces are a minute at most each; several may follow each other.
        let end = now + Self.bound
        while now < end, ledger.violations.isEmpty, !isQuiet { advance(to: now + .seconds(5)) }
        if ledger.violations.isEmpty { checkEnd() }
        dismantle()
    }

    /// Breaks the circles of those who hold each other, since many runs follow each other in one process.
    private func dismantle() {
        for maestro in maestros {
            maestro.dismiss()
            maestro.end()
        }
        for worker in workers { worker.leave() }
        people.end()
        server.dismantle()
        agenda.clear()
    }

    /// How long after the last fault everything may take.
    static let bound = Duration.seconds(900)

    private func advance(to end: Timestamp) {
        while ledger.violations.isEmpty, agenda.step(until: end) {}
    }

    private func submit(_ job: PlannedJob) {
        people.submit(job.bytes, id: job.kind == .malformed ? nil : job.id, isCore: job.isCore)
        guard let copy = job.copy, job.id != nil else { return }
        agenda.after(copy) { [self] in people.submit(job.bytes, id: job.id) }
    }

    /// The server syncs every two minutes, or often where it was told to.
    private func keepSyncing() {
        agenda.after(chance.seconds(1...30)) { [self] in
            if server.isUp { server.sync() }
            if mutant == .removesByAge { server.removeRecords(olderThan: scenario.policy.keepDoneFor) }
            keepSyncing()
        }
    }

    private func keepChecking() {
        agenda.after(.seconds(5)) { [self] in
            ledger.checkSuperseded()
            keepChecking()
        }
    }

    private func calmDown() {
        tell("the faults end")
        isCalm = true
        waiting = []
        weather.clear()
        for name in server.model.streamNames { server.setOutOfSpace(false, name) }
        people.heal()
        for part in maestros { part.heal() }
        for worker in workers {
            worker.heal()
            worker.cure()
            worker.diskFullUntil = now
        }
        keepUp()
        freeCards()
    }

    /// What has ended is started again.
    private func keepUp() {
        for maestro in maestros { maestro.start() }
        for worker in workers.prefix(scenario.workers.count) { worker.start() }
        agenda.after(.seconds(5)) { [self] in keepUp() }
    }

    /// A person takes back everything that keeps jobs from the cards.
    private func freeCards() {
        for worker in workers.prefix(scenario.workers.count) {
            people.ask(.card(verb: "uncordon", worker.gpu, delay: nil))
            people.ask(.card(verb: "clear", worker.gpu, delay: nil))
        }
        agenda.after(.seconds(60)) { [self] in freeCards() }
    }

    private var leaders: [SimulatedMaestro] { maestros.filter { $0.office != nil } }

    private var isQuiet: Bool {
        guard server.isUp, ledger.unfinished.isEmpty, leaders.count == 1, leaders[0].office?.isQuiet == true else {
            return false
        }
        return [names.workQueueStream, names.runStream].allSatisfy { openMessages(in: $0) == 0 }
            && workers.allSatisfy { $0.liveProcesses.isEmpty }
    }

    /// Messages that somebody still waits for. Others may be left for as long as the server's clock was put back, if
    /// their acknowledgement got lost.
    private func openMessages(in stream: String) -> Int {
        server.model[stream]?.messages.count { ledger.isOpen($0) } ?? 0
    }

    private func checkEnd() {
        ledger.checkEnd()
        guard ledger.violations.isEmpty, !isQuiet else { return }
        for name in [names.workQueueStream, names.runStream] {
            let left = openMessages(in: name)
            if left > 0 {
                ledger.violate("\(left) messages are left in \(name) long after the faults have ended")
            }
        }
        if leaders.count != 1 { ledger.violate("\(leaders.count) maestros lead long after the faults have ended") }
        for worker in workers where !worker.liveProcesses.isEmpty {
            ledger.violate("\(worker.name) still runs processes long after the faults have ended")
        }
        if ledger.violations.isEmpty { ledger.violate("the leader still counts jobs long after all have ended") }
    }
}

// MARK: - faults

extension Cluster {
    /// A moment in the life of a job: what lies in wait for it comes.
    func pass(_ moment: Moment, _ part: Part, _ job: JobID?) {
        guard !waiting.isEmpty, let index = waiting.firstIndex(where: { $0.moment == moment }) else { return }
        let fault = waiting.remove(at: index)
        cover("moment \(moment.name)")
        tell("it is the moment of \(part.name): \(moment.name)", job)
        carryOut(fault, part, job)
    }

    private func carryOut(_ planned: PlannedFault, _ part: Part?, _ job: JobID?) {
        let chance = Chance(seed: planned.seed)
        let duration = planned.duration
        cover(planned.fault)
        if planned.fault.isFeltByAll { disturbedUntil = max(disturbedUntil, now + duration) }
        let worker = part as? SimulatedWorker ?? workers[chance.number(below: scenario.workers.count)]
        let maestro =
            part as? SimulatedMaestro ?? leaders.last.flatMap { chance.hit(0.7) ? $0 : nil }
            ?? maestros[chance.number(below: maestros.count)]
        switch planned.fault {
        case .loseMessages, .delayMessages, .duplicateMessages, .reorderMessages, .loseAnswers, .slowDisk, .syncAlways:
            tell("\(planned.fault.rawValue) for \(duration.text)")
            let victim = chance.element(of: [worker.name, maestro.name, people.name])
            weather.begin(planned.fault, until: now + duration, victim: victim)
        case .partitionMaestro: cut(maestro, duration, chance)
        case .partitionWorker: cut(worker, duration, chance)
        case .partitionPeople: cut(people, duration, chance)
        case .killMaestro:
            maestro.crash()
            agenda.after(duration) { maestro.start() }
        case .stopMaestro:
            maestro.stop()
            agenda.after(duration) { maestro.start() }
        case .freezeMaestro: maestro.freeze(duration)
        case .killWorker, .killHost:
            worker.crash(withHost: planned.fault == .killHost)
            agenda.after(duration) { worker.start() }
        case .stopWorker:
            worker.stop()
            agenda.after(duration + .seconds(10)) { worker.start() }
        case .freezeWorker: worker.freeze(duration)
        case .freezeHost: worker.freezeHost(duration)
        case .rivalWorker: addRival(of: worker)
        case .fillWorkerDisk: worker.diskFullUntil = now + duration
        case .killServer: server.kill(downFor: duration)
        case .cutPower: server.cutPower(downFor: duration)
        case .thermalStorm, .sickCard, .loseConsumer, .fillStream, .jumpClock, .jumpServerClock:
            disturbMachines(planned, worker, maestro, chance)
        case .cancel, .cancelUnknown, .retry, .resubmit, .conflictingSubmission, .cordon, .drain, .quarantine,
            .staleRead, .nightfall:
            disturbPeople(planned, worker, job, chance)
        }
    }

    private func cut(_ part: Part, _ duration: Duration, _ chance: Chance) {
        let way = chance.unit()
        part.cutOff(duration, outward: way < 0.8, inward: way < 0.6 || way >= 0.8)
    }

    private func disturbMachines(
        _ planned: PlannedFault,
        _ worker: SimulatedWorker,
        _ maestro: SimulatedMaestro,
        _ chance: Chance
    ) {
        switch planned.fault {
        case .thermalStorm: for one in workers where chance.hit(0.7) { one.heatUp(planned.duration) }
        case .sickCard: worker.fallSick()
        case .loseConsumer:
            let isRun = chance.hit(0.6)
            let name = isRun ? names.runConsumer(worker.gpu) : names.enqueueConsumer
            tell("the server loses its consumer \(name)")
            server.loseConsumer(name, of: isRun ? names.runStream : names.workQueueStream)
        case .fillStream:
            let name = chance.element(of: server.model.streamNames) ?? names.jobsStream
            tell("\(name) is full for \(planned.duration.text)")
            server.setOutOfSpace(true, name)
            agenda.after(planned.duration) { [self] in
                server.setOutOfSpace(false, name)
                tell("\(name) has room again")
            }
        case .jumpClock:
            let part = chance.element(of: [worker, maestro, people] as [Part]) ?? worker
            part.wallOffset = part.wallOffset + chance.seconds(-7200...7200)
            tell("the clock of \(part.name) jumps")
        case .jumpServerClock:
            server.wallOffset = server.wallOffset + chance.seconds(-7200...7200)
            tell("the clock of the server jumps: it is off by \(server.wallOffset.text)")
        default: break
        }
    }

    private func disturbPeople(_ planned: PlannedFault, _ worker: SimulatedWorker, _ job: JobID?, _ chance: Chance) {
        let some = chance.element(of: scenario.jobs)
        guard let target = job ?? some?.id ?? JobID("j0") else { return }
        switch planned.fault {
        case .cancel: people.cancel(target)
        case .cancelUnknown:
            // Of a job that is still to come, or of none at all.
            let later = scenario.jobs.filter { Agenda.beginning + $0.time > now && $0.id != nil }
            people.cancel(chance.element(of: later)?.id ?? target)
        case .retry:
            guard let id = JobID("again-\(planned.seed % 100_000)") else { return }
            people.submit(Array("{\"task_id\":\"\(id)\",\"cmd\":[\"true\"],\"retry_of\":\"\(target)\"}".utf8), id: id)
        case .resubmit: if let some { people.submit(some.bytes, id: some.kind == .malformed ? nil : some.id) }
        case .conflictingSubmission:
            if let some, let id = some.id { people.submit(some.conflicting, id: id, isCore: true) }
        case .cordon, .drain, .quarantine:
            let delay = chance.hit(0.5) ? chance.seconds(0...15) : nil
            people.ask(.card(verb: planned.fault.rawValue, worker.gpu, delay: delay))
            agenda.after(chance.seconds(1...30)) { [self] in
                people.ask(.card(verb: planned.fault == .quarantine ? "clear" : "uncordon", worker.gpu, delay: nil))
            }
        case .staleRead:
            // Who believes a lagging replica asks for what makes no sense any more.
            people.ask(.why(target))
            if people.readStale(target)?.isTerminal == false { people.cancel(target) }
        case .nightfall: for maestro in leaders { maestro.office?.receive(.phase(chance.hit(0.5) ? .night : .day)) }
        default: break
        }
    }

    /// Another host comes up with a card's id.
    private func addRival(of worker: SimulatedWorker) {
        let name = "rival-\(workers.count)"
        let rival = SimulatedWorker(name: name, gpu: worker.gpu, slots: worker.slots, cluster: self)
        workers.append(rival)
        rival.start()
    }
}

extension GPUID {
    fileprivate init(number: Int) {
        guard let id = GPUID(node: nil, number: number) else { preconditionFailure("\(number) is below 0") }
        self = id
    }
}
