import JobModel
import SchedulerCore
import WorkerCore

/// Everything that happens in one run, as it follows from a seed: who is there, what is submitted, what goes wrong.
///
/// Jobs and faults are lists, so that some can be left out to find those that matter.
package struct Scenario: Sendable {
    package let seed: UInt64
    package var jobs: [PlannedJob] = []
    package var faults: [PlannedFault] = []
    package let maestros: Int
    /// The slots of each worker.
    package let workers: [Int]
    package let version: ServerModel<Content>.Version
    let policy: SchedulerPolicy
    private let hasMixedLimits: Bool
    /// The first card's workers are of a version that can fence nothing.
    let hasOldWorker: Bool
    /// How long things go wrong.
    package let trouble: Duration

    /// How one attempt's process behaves.
    struct ProcessPlan {
        let duration: Duration
        let exitCode: Int
        let failsToStart: Bool
        let ignoresTerm: Bool
    }

    package init(seed: UInt64) {
        self.seed = seed
        let chance = Chance(seed: seed &+ 0x5EED_0000)
        maestros = 2 + chance.number(below: 2)
        workers = (0..<(3 + chance.number(below: 3))).map { _ in 1 + chance.number(below: 3) }
        version = chance.hit(0.5) ? .old : .recent
        trouble = .seconds(60 + chance.number(below: 60))
        policy = Self.policy(chance)
        hasMixedLimits = chance.hit(0.5)
        hasOldWorker = chance.hit(0.15)
        planJobs(chance)
        planFaults(chance)
    }

    private static func policy(_ chance: Chance) -> SchedulerPolicy {
        var policy = SchedulerPolicy()
        policy.limits.timeout = .seconds(chance.hit(0.5) ? 20 : 120)
        policy.admissionWindow = 4 + chance.number(below: 60)
        policy.maxQueue = chance.hit(0.2) ? 10 + chance.number(below: 30) : 1000
        policy.maxLost = chance.hit(0.3) ? 1 : 10
        policy.claimTimeout = chance.seconds(5...30)
        policy.avoidance = chance.seconds(5...30)
        if chance.hit(0.3) {
            policy.idHorizon = chance.seconds(60...120)
            policy.keepDoneFor = policy.idHorizon
        }
        if chance.hit(0.15) { policy.dayMaxCards = 2 }
        if chance.hit(0.3) { policy.nightMaxCards = 1 }
        return policy
    }

    /// Maestros need not be configured alike.
    func policy(ofMaestro number: Int, _ mutant: Mutant?) -> SchedulerPolicy {
        var policy = policy
        if mutant == .givesFencedJobsAway { policy.heartbeatTTL = .seconds(8) }
        if hasMixedLimits, number % 2 == 1 {
            policy.maxLost = 0
            policy.heartbeatTTL = .seconds(8)
        }
        return policy
    }

    func workerPolicy(slots: Int, _ mutant: Mutant?) -> WorkerPolicy {
        WorkerPolicy(
            slots: slots,
            grace: .seconds(2),
            drain: .seconds(10),
            claimPatience: mutant == .startsOnALateClaim ? .seconds(86_400) : .seconds(5),
            defaultTimeout: .seconds(20)
        )
    }

    private mutating func planJobs(_ chance: Chance) {
        let length = trouble.inSeconds
        for number in 0..<(50 + chance.number(below: 30)) {
            jobs.append(PlannedJob(number: number, seed: seed, length: length, cards: workers.count, chance))
        }
    }

    private mutating func planFaults(_ chance: Chance) {
        let length = trouble.inSeconds
        // Most seeds meet a few kinds often rather than all of them once.
        let kinds = Fault.allCases.filter { _ in chance.hit(0.6) }
        for _ in 0..<(20 + chance.number(below: 20)) {
            let fault = chance.element(of: kinds) ?? .killWorker
            let canWait: Bool =
                switch fault {
                case .killMaestro, .freezeMaestro, .stopMaestro, .partitionMaestro, .killWorker, .killHost,
                    .freezeWorker, .freezeHost, .stopWorker, .partitionWorker, .killServer, .cutPower, .cancel,
                    .thermalStorm,
                    .sickCard, .loseConsumer:
                    true
                default: false
                }
            faults.append(
                PlannedFault(
                    fault: fault,
                    time: chance.seconds(1...(length - 1)),
                    duration: Self.duration(of: fault, chance),
                    seed: UInt64(chance.number(below: 1 << 40)),
                    moment: canWait && chance.hit(0.5) ? Self.moment(of: fault, chance) : nil
                )
            )
        }
        faults.sort { $0.time < $1.time }
    }

    /// Workers that are stopped are mostly stopped between a claim and its process: that is where it would do most harm.
    private static func moment(of fault: Fault, _ chance: Chance) -> Moment? {
        let isBeforeTheStart = fault == .freezeWorker && chance.hit(0.6)
        return chance.element(of: isBeforeTheStart ? [.writing(.running), .guarded, .started] : Moment.allCases)
    }

    private static func duration(of fault: Fault, _ chance: Chance) -> Duration {
        switch fault {
        case .killServer, .cutPower: chance.seconds(0.2...15)
        case .partitionMaestro, .partitionWorker, .partitionPeople, .freezeMaestro, .freezeWorker, .freezeHost:
            chance.hit(0.5) ? chance.seconds(0.2...8) : chance.seconds(8...40)
        case .thermalStorm: chance.seconds(5...60)
        default: chance.seconds(1...15)
        }
    }

    // MARK: what jobs do

    func isForbidden(_ job: JobID) -> Bool { chance(of: job, 0).hit(0.03) }

    func process(of job: JobID, tries: Int, isFenced: Bool = false) -> ProcessPlan {
        let chance = chance(of: job, tries)
        _ = chance.hit(0.03)
        let kind = chance.unit()
        // Short fenced ones would have ended anyway before another may have them.
        let isShort = kind < (isFenced ? 0.6 : 0.9)
        let duration: Duration =
            kind < 0.3
            ? chance.seconds(0.02...0.5) : isShort ? chance.seconds(0.5...12) : chance.seconds(20...90)
        return ProcessPlan(
            duration: duration,
            exitCode: chance.hit(0.2) ? 1 : 0,
            failsToStart: chance.hit(0.02),
            ignoresTerm: chance.hit(0.2)
        )
    }

    private func chance(of job: JobID, _ tries: Int) -> Chance {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325 ^ seed
        for byte in job.text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Chance(seed: hash &+ UInt64(tries))
    }
}

/// One job that somebody will submit.
package struct PlannedJob: Sendable {
    package enum Kind: Sendable { case named, anonymous, malformed, invalid }

    package let number: Int
    package let time: Duration
    package let kind: Kind
    /// Without an ack: at most once.
    let isCore: Bool
    let bytes: [UInt8]
    let id: JobID?
    /// A second copy, submitted by somebody else at that time after.
    let copy: Duration?

    init(number: Int, seed: UInt64, length: Double, cards: Int, _ chance: Chance) {
        self.number = number
        time = chance.seconds(0...(length * 0.8))
        let what = chance.unit()
        kind = what < 0.86 ? .named : what < 0.94 ? .anonymous : what < 0.97 ? .invalid : .malformed
        isCore = kind != .named && chance.hit(0.3)
        copy = chance.hit(0.1) ? chance.seconds(0...10) : nil
        id = kind == .named || kind == .invalid ? JobID("j\(number)") : nil
        var fields: [String] = []
        if let id { fields.append("\"task_id\":\"\(id)\"") }
        fields.append(kind == .invalid ? "\"cmd\":[]" : "\"cmd\":[\"true\",\"\(number)\"]")
        let isPinned = chance.hit(0.2)
        let isAbsent = isPinned && chance.hit(0.15)
        if isPinned { fields.append("\"gpu\":\(isAbsent ? 77 : chance.number(below: cards))") }
        if chance.hit(0.3) { fields.append("\"priority\":\(chance.number(below: 10))") }
        if chance.hit(0.5) { fields.append("\"max_retries\":\(chance.number(below: 4))") }
        let isFenced = chance.hit(0.25)
        if isFenced { fields.append("\"partition\":\"fence\"") }
        // Where its card's worker can fence nothing it waits in vain.
        if isAbsent || isFenced && isPinned || chance.hit(0.1) {
            fields.append("\"max_wait\":\(5 + chance.number(below: 60))")
        }
        let text = kind == .malformed ? "not a task \(number)" : "{" + fields.joined(separator: ",") + "}"
        bytes = Array(text.utf8)
    }

    /// The same id with another content.
    var conflicting: [UInt8] { Array("{\"task_id\":\"\(id?.text ?? "x")\",\"cmd\":[\"false\"]}".utf8) }
}
