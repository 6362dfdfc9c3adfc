import JobModel
import SchedulerCore
import Testing

@Suite struct LeaseRaceTests {
    @Test(arguments: 0..<60)
    func noTwoEverTrustTheLeaseAndThereIsALeaderWhenTheFaultsEnd(seed: Int) {
        let race = LeaseRace(seed: UInt64(seed), processes: 3)
        race.run(faultsFor: .seconds(180), calmFor: .seconds(60))
        #expect(race.violations == [], "seed \(seed)")
        #expect(race.leads > 1, "seed \(seed): the lead is taken more than once")
        #expect(race.leaders == 1, "seed \(seed)")
    }
}

/// Several processes that want one lease, over a store whose answers are late or lost.
private final class LeaseRace {
    private final class Process {
        var core: LeaseCore
        var isAlive = true
        var trustedUntil: Timestamp?
        var armed: Timestamp?

        init(core: LeaseCore) { self.core = core }
    }

    private let agenda = Agenda()
    private let chance: Chance
    private var record: LeaseCore.Revision?
    private var sequence: UInt64 = 0
    private var processes: [Process] = []
    private var isFaulty = true
    private(set) var violations: [String] = []
    private(set) var leads = 0

    var leaders: Int { processes.count { isTrusted($0) } }

    init(seed: UInt64, processes count: Int) {
        chance = Chance(seed: seed)
        for _ in 0..<count { begin() }
    }

    func run(faultsFor faulty: Duration, calmFor calm: Duration) {
        let middle = agenda.now + faulty
        disturb(until: middle)
        advance(to: middle)
        isFaulty = false
        advance(to: middle + calm)
    }

    private func advance(to end: Timestamp) {
        while agenda.step(until: end) {
            if leaders > 1 { violations.append("two leaders at \(agenda.now.seconds)") }
        }
    }

    private func disturb(until end: Timestamp) {
        agenda.after(chance.seconds(3...25)) { [self] in
            guard agenda.now < end, let process = chance.element(of: processes) else { return }
            if chance.hit(0.5) {
                process.isAlive = false
                process.trustedUntil = nil
            } else {
                handle(.stop, process)
                agenda.after(.seconds(20)) { process.isAlive = false }
            }
            processes.removeAll { $0 === process }
            begin()
            disturb(until: end)
        }
    }

    private func begin() {
        var ids = chance.ids()
        let process = Process(
            core: LeaseCore(
                holder: Incarnation(from: &ids),
                host: "host",
                processID: processes.count,
                duration: .seconds(10),
                ids: ids
            )
        )
        processes.append(process)
        agenda.after(chance.seconds(0...2)) { [self] in handle(.timerFired, process) }
    }

    private func isTrusted(_ process: Process) -> Bool {
        process.isAlive && process.trustedUntil.map { agenda.now < $0 } ?? false
    }

    private func travel() -> Duration {
        isFaulty && chance.hit(0.2) ? chance.seconds(1...12) : chance.seconds(0.001...0.02)
    }

    private func handle(_ event: LeaseCore.Event, _ process: Process) {
        guard process.isAlive else { return }
        for action in process.core.handle(event, at: agenda.now) { carryOut(action, process) }
    }

    private func carryOut(_ action: LeaseCore.Action, _ process: Process) {
        switch action {
        case .write(let lease, let expected):
            agenda.after(travel()) { [self] in write(lease, expected, process) }
        case .read:
            agenda.after(travel()) { [self] in
                let found = record
                agenda.after(travel()) { [self] in handle(.observed(found), process) }
            }
        case .lead(let until):
            leads += 1
            process.trustedUntil = until
        case .extend(let until): process.trustedUntil = until
        case .standDown: process.trustedUntil = nil
        case .armTimer(let time):
            process.armed = time
            agenda.at(time) { [self] in
                guard process.armed == time else { return }
                process.armed = nil
                handle(.timerFired, process)
            }
        }
    }

    private func write(_ lease: LeaderLease, _ expected: UInt64, _ process: Process) {
        let event: LeaseCore.Event
        if isFaulty, chance.hit(0.1) {
            event = .failed(lease.op)
            // Given up by its sender, and stored later all the same.
            if chance.hit(0.5) { agenda.after(travel()) { [self] in _ = store(lease, expected) } }
        } else if store(lease, expected) {
            event = isFaulty && chance.hit(0.1) ? .failed(lease.op) : .stored(lease.op, sequence: sequence)
        } else {
            event = .conflict(lease.op, record)
        }
        agenda.after(travel()) { [self] in handle(event, process) }
    }

    private func store(_ lease: LeaderLease, _ expected: UInt64) -> Bool {
        guard record?.sequence ?? 0 == expected else { return false }
        sequence += 1
        let revision = LeaseCore.Revision(lease: lease, sequence: sequence)
        record = revision
        for other in processes { agenda.after(travel()) { [self] in handle(.observed(revision), other) } }
        return true
    }
}
