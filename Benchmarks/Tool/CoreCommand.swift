import ArgumentParser
import Foundation
import JobModel
import SchedulerCore
import WireJSON

/// The pure core alone: no server, no clock but the one that measures.
struct CoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "core",
        abstract: "What decisions of the scheduler's core cost, by the number of cards.",
        discussion: """
            decision_us: to choose the next job and its card and to take both out of the indexes.
            placement_us: the same with the record's next revision and the write that is asked for.
            job_us: what the core does for a job after that, and to place the next one.
            replay_us: to take in one record at a restart.
            """
    )

    @Option(name: .customLong("cards"), help: "Numbers of cards, separated by commas.")
    var cardCounts = "12,100,1000,10000"
    @Option(help: "Jobs that wait.")
    var jobs = 1_000_000
    @Option(help: "Classes: half of the jobs take any card, the others are in classes of one card each.")
    var classes = 100
    @Option(help: "Decisions that are measured one by one, at most.")
    var decisions = 20_000

    func run() async throws {
        var rows: [JSON] = []
        for count in cardCounts.split(separator: ",").compactMap({ Int($0) }) {
            rows.append(Self.measure(cards: count, jobs: jobs, classes: classes, decisions: decisions))
        }
        show(["core": .array(rows)])
    }

    private static func measure(cards: Int, jobs: Int, classes: Int, decisions: Int) -> JSON {
        var row: JSONObject = ["cards": .int(cards), "jobs": .int(jobs), "classes": .int(min(classes, cards + 1))]
        do {
            var pool = CorePool(cards: cards, slots: min(1024, max(2, decisions / cards)), jobs: jobs, classes: classes)
            row["resident_mb"] = .double(WatchedProcess.this.residentMegabytes ?? 0)
            row["replay_us"] = .double(pool.replaySeconds * 1e6 / Double(jobs))
            row["decision_us"] = pool.measureDecisions(decisions).json
        }
        var pool = CorePool(cards: cards, slots: 2, jobs: jobs, classes: classes)
        let (placed, seconds) = pool.fill()
        row["placed"] = .int(placed)
        row["placement_us"] = .double(seconds * 1e6 / Double(max(1, placed)))
        row["job_us"] = .double(pool.measureJobs(decisions) * 1e6)
        row["heartbeat_us"] = .double(pool.measureHeartbeats() * 1e6)
        return .object(row)
    }
}

/// A core with cards, and with jobs that wait for them.
private struct CorePool {
    private let cards: [GPUID]
    private let slots: Int
    private let clock = ContinuousClock()
    private var core: SchedulerCore
    private var ids = IdentifierSource(seed: 1)
    private var lives: [GPUID: Incarnation] = [:]
    private var sequence: UInt64 = 0
    private var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    private var writes: [(record: JobRecord, expected: UInt64)] = []
    let replaySeconds: Double

    init(cards count: Int, slots: Int, jobs: Int, classes: Int) {
        self.slots = slots
        let classes = min(classes, count + 1)
        let cards = (0..<count).compactMap { GPUID(String($0)) }
        var core = SchedulerCore(policy: SchedulerPolicy(), ids: IdentifierSource(seed: 2))
        _ = core.handle(.began(resultsPlace: 0, serverClockOffset: .zero), at: now)
        let start = clock.now
        for number in 0..<jobs {
            let group = number % 2 == 0 ? 0 : number / 2 % classes
            let revision = Self.waitingJob(number, pin: group == 0 ? nil : cards[group - 1], now, &ids)
            _ = core.handle(.replayed(revision), at: now)
        }
        replaySeconds = seconds(clock.now - start)
        sequence = UInt64(jobs)
        _ = core.handle(.replayFinished(lastSequence: sequence), at: now)
        self.core = core
        self.cards = cards
        for (number, gpu) in cards.enumerated() { introduce(gpu, busy: Double(number % 90)) }
    }

    private static func waitingJob(_ number: Int, pin: GPUID?, _ now: Timestamp, _ ids: inout IdentifierSource)
        -> RecordRevision
    {
        let id = JobID.generated(at: now, from: &ids)
        var task = JSONObject([("task_id", .string(id.text)), ("cmd", ["/bin/true"]), ("max_retries", 0)])
        task["gpu"] = pin?.json
        let record = JobRecord(
            admitting: id,
            submission: JSON.object(task).encoded(),
            digest: "sha256:" + String(repeating: "0123456789abcdef", count: 4),
            order: UInt64(number + 1),
            limits: JobLimits(timeout: .seconds(3600), maxRetries: 0, retryBackoff: .seconds(1), maxWait: nil),
            op: OperationID(from: &ids),
            at: now,
            // One after the other, as a stream stores them.
            submitted: now.seconds + Double(number) * 1e-5
        )
        return RecordRevision(record: record, sequence: UInt64(number + 1), storedAt: now)
    }

    private mutating func introduce(_ gpu: GPUID, busy: Double) {
        let life = Incarnation(from: &ids)
        lives[gpu] = life
        let registration = WorkerRegistration(
            gpu: gpu,
            incarnation: life,
            host: "host",
            bootID: "boot",
            processID: 1,
            isReleased: false,
            op: OperationID(from: &ids)
        )
        _ = send(.registered(registration))
        beat(gpu, counter: 1)
        _ = send(.reading(CardReading(gpu: gpu, incarnation: life, busyPercent: busy, temperature: 50)))
    }

    /// - Returns: what the core took for it.
    @discardableResult
    private mutating func beat(_ gpu: GPUID, counter: UInt64) -> Duration {
        guard let life = lives[gpu] else { return .zero }
        let heartbeat = Heartbeat(
            gpu: gpu,
            incarnation: life,
            counter: counter,
            slots: slots,
            running: [],
            isDraining: false,
            time: now.seconds
        )
        return send(.heartbeat(heartbeat))
    }

    private mutating func send(_ event: SchedulerEvent) -> Duration {
        let start = clock.now
        let actions = core.handle(event, at: now)
        let spent = clock.now - start
        for case .write(let record, let expected) in actions { writes.append((record, expected)) }
        return spent
    }

    // MARK: measuring

    /// Fills all slots in one event.
    mutating func fill() -> (placed: Int, seconds: Double) {
        let spent = send(.controlReplayed)
        return (writes.count, seconds(spent))
    }

    /// Decisions alone, until all slots are taken.
    mutating func measureDecisions(_ count: Int) -> Samples {
        var samples = Samples()
        core.refreshCards(at: now)
        for _ in 0..<count {
            let start = clock.now
            guard let choice = core.nextChoice() else { break }
            core.take(choice, at: now)
            samples.add(seconds(clock.now - start) * 1e6)
        }
        return samples
    }

    /// Takes dispatched jobs through the rest of their lives; each end has the next job placed.
    /// - Returns: seconds for each.
    mutating func measureJobs(_ count: Int) -> Double {
        var spent = Duration.zero
        var next = 0
        for _ in 0..<count where next < writes.count {
            let write = writes[next]
            next += 1
            var record = write.record
            guard let gpu = record.gpu, let attempt = record.attempt else { continue }
            spent += store(record)
            spent += send(.runPublished(record.id, gpu, attempt, sequence: sequence))
            for step in [JobTransition.claim, .finish(AttemptOutcome(returnCode: 0, duration: .seconds(10)))] {
                try? record.apply(step, op: OperationID(from: &ids), at: now)
                sequence += 1
                spent += send(.recordChanged(RecordRevision(record: record, sequence: sequence, storedAt: now)))
            }
            spent += send(.resultSeen(record.id))
        }
        return seconds(spent) / Double(max(1, count))
    }

    private mutating func store(_ record: JobRecord) -> Duration {
        sequence += 1
        return send(.writeEnded(record.id, record.op, .stored(sequence: sequence)))
            + send(.recordChanged(RecordRevision(record: record, sequence: sequence, storedAt: now)))
    }

    mutating func measureHeartbeats() -> Double {
        var spent = Duration.zero
        for gpu in cards { spent += beat(gpu, counter: 2) }
        return seconds(spent) / Double(cards.count)
    }
}
