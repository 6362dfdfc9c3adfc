import JobModel
import SchedulerCore

/// A worker in a world, by the rules of the protocol: claims, runs, commits, reports; crashes, drains, falls silent.
final class SimulatedWorker {
    private final class Attempt {
        /// The running revision as the worker knows it.
        var record: JobRecord
        var sequence: UInt64
        let run: SimulatedBus.Run
        /// Its end is being written.
        var isEnding = false

        init(record: JobRecord, sequence: UInt64, run: SimulatedBus.Run) {
            self.record = record
            self.sequence = sequence
            self.run = run
        }
    }

    let gpu: GPUID
    private let slots: Int
    private unowned let world: World
    private var ids: IdentifierSource
    private var life: Incarnation?
    /// Steps of an earlier life are not taken any more.
    private var lives = 0
    private var counter: UInt64 = 0
    private var isReady = false
    private var isDraining = false
    private var isSilent = false
    /// Nearly every job fails on it.
    private let isBad: Bool
    /// It has seen a sign of sickness, and no probe has succeeded since.
    private var isSick = false
    private var running: [Attempt] = []
    /// Run messages that are being claimed.
    private var claiming: [SimulatedBus.Run] = []
    /// Attempts on the worker's disk: claimed, and not known to be closed.
    private var journal: [(job: JobID, attempt: AttemptID)] = []

    init(gpu: GPUID, slots: Int, world: World) {
        self.gpu = gpu
        self.slots = slots
        self.world = world
        ids = world.chance.ids()
        isBad = world.chance.hit(0.15)
    }

    private var name: String { "W\(gpu)" }
    var isUp: Bool { life != nil }
    var isIdle: Bool { isReady && !isDraining && running.isEmpty && claiming.isEmpty && journal.isEmpty }

    /// A step of this life; nothing happens if it is over by then.
    private func after(_ delay: Duration, _ step: @escaping () -> Void) {
        let mine = lives
        world.agenda.after(delay) { [self] in
            if mine == lives { step() }
        }
    }

    /// A write of this life; its answer goes nowhere if it is over by then.
    private func write(_ record: JobRecord, expected: UInt64, done: @escaping (WriteResult) -> Void) {
        let mine = lives
        world.write(record, expected: expected, by: name) { [self] result in
            if mine == lives { done(result) }
        }
    }

    // MARK: life

    func start() {
        guard life == nil else { return }
        lives += 1
        let incarnation = Incarnation(from: &ids)
        life = incarnation
        (counter, isReady, isDraining, isSilent, isSick) = (0, false, false, false, false)
        world.tell("\(name) starts as \(incarnation)")
        register(isReleased: false)
        after(world.travel()) { [self] in closeEarlierAttempts() }
    }

    func crash() {
        guard life != nil else { return }
        world.tell("\(name) crashes")
        lives += 1
        life = nil
        isReady = false
        running = []
        claiming = []
    }

    /// Its heartbeats do not get through for a while; everything else does.
    func fallSilent(_ duration: Duration) {
        world.tell("\(name) is not heard for \(duration.inSeconds) s")
        isSilent = true
        after(duration) { [self] in isSilent = false }
    }

    func drain() {
        guard isReady, !isDraining else { return }
        world.tell("\(name) drains")
        isDraining = true
        beat()
        after(world.chance.seconds(1...10)) { [self] in
            for attempt in running where !attempt.isEnding { end(attempt, .lose(reason: "its worker was drained")) }
            finishDraining()
        }
    }

    private func finishDraining() {
        guard isDraining, let life else { return }
        guard running.isEmpty, claiming.isEmpty else { return after(.seconds(1)) { [self] in finishDraining() } }
        world.tell("\(name) is down")
        world.broadcast(.workerDown(WorkerNotice(gpu: gpu, incarnation: life)))
        register(isReleased: true)
        lives += 1
        self.life = nil
        isReady = false
    }

    private func register(isReleased: Bool) {
        guard let life else { return }
        let registration = WorkerRegistration(
            gpu: gpu,
            incarnation: life,
            host: "host",
            bootID: "boot",
            processID: lives,
            isReleased: isReleased,
            op: OperationID(from: &ids)
        )
        world.register(registration)
    }

    /// What an earlier life left is closed before the first heartbeat.
    private func closeEarlierAttempts() {
        guard let left = journal.first else {
            isReady = true
            keepBeating()
            return pull()
        }
        close(left.job, left.attempt) { [self] in
            journal.removeAll { $0.attempt == left.attempt }
            closeEarlierAttempts()
        }
    }

    /// Closes an attempt whose process is gone, if it is still open.
    private func close(_ job: JobID, _ attempt: AttemptID, then next: @escaping () -> Void) {
        guard let standing = world.store[job], standing.record.attempt == attempt, standing.record.state == .running
        else { return next() }
        var record = standing.record
        let reason = "its worker was restarted"
        let step: JobTransition = record.cancelRequested ? .cancel(reason: reason, nil) : .lose(reason: reason)
        guard apply(step, to: &record) else { return next() }
        write(record, expected: standing.sequence) { [self] result in
            if case .stored = result {
                tellResult(of: record)
                return next()
            }
            after(.seconds(1)) { [self] in close(job, attempt, then: next) }
        }
    }

    private func apply(_ step: JobTransition, to record: inout JobRecord) -> Bool {
        do {
            try record.apply(step, op: OperationID(from: &ids), at: world.now)
            return true
        } catch {
            world.violate("\(name): \(error)")
            return false
        }
    }

    // MARK: heartbeats

    private func keepBeating() {
        beat()
        after(.seconds(5)) { [self] in keepBeating() }
    }

    private func beat() {
        guard let life, isReady, !isSilent else { return }
        counter += 1
        let heartbeat = Heartbeat(
            gpu: gpu,
            incarnation: life,
            counter: counter,
            slots: slots,
            running: running.compactMap { attempt in
                attempt.record.attempt.map { Heartbeat.RunningAttempt(job: attempt.record.id, attempt: $0) }
            },
            isDraining: isDraining,
            time: world.now.seconds
        )
        world.broadcast(.heartbeat(heartbeat), mayBeLost: true)
        let isHot = world.chance.hit(world.faults.slow)
        if world.chance.hit(world.faults.sick) { isSick = true }
        let sign = CardReading.Sign(reason: "lost", evidence: "NVML 15", severity: .quarantine)
        let reading = CardReading(
            gpu: gpu,
            incarnation: life,
            busyPercent: running.isEmpty ? 0 : 99,
            temperature: isHot ? 80 : 50 + 10 * world.chance.unit(),
            hold: isSick ? CardHold(.unhealthy, reason: "NVML 15") : nil,
            health: isSick ? [sign] : []
        )
        world.broadcast(.reading(reading), mayBeLost: true)
    }

    // MARK: attempts

    /// Takes up run messages as long as there are free slots.
    func pull() {
        while isReady, !isDraining, running.count + claiming.count < slots, let run = nextRun() {
            claiming.append(run)
            after(world.travel()) { [self] in claim(run) }
        }
    }

    private func nextRun() -> SimulatedBus.Run? {
        let inHand = Set(claiming.map(\.sequence) + running.map(\.run.sequence))
        return world.bus.runs[gpu, default: []].first { !inHand.contains($0.sequence) }
    }

    private func claim(_ run: SimulatedBus.Run) {
        guard let attempt = run.message.attempt, let life else { return }
        guard run.message.record.owner == life else {
            return close(run.message.record.id, attempt) { [self] in drop(run) }
        }
        var record = run.message.record
        let isForbidden = String(decoding: record.submission, as: UTF8.self).contains("forbidden")
        let refusal = AttemptOutcome(code: .forbidden, reason: "this worker does not run that")
        guard apply(isForbidden ? .reject(refusal) : .claim, to: &record) else { return drop(run) }
        if !isForbidden { journal.append((record.id, attempt)) }
        write(record, expected: run.message.sequence) { [self] result in
            switch result {
            case .stored(let sequence):
                if isForbidden {
                    tellResult(of: record)
                    return drop(run)
                }
                begin(record, sequence, run)
            case .conflict(let standing?)
            where standing.record.attempt == attempt && standing.record.owner == life
                && standing.record.state == .running:
                begin(standing.record, standing.sequence, run)
            case .conflict:
                journal.removeAll { $0.attempt == attempt }
                drop(run)
            case .refused:
                journal.removeAll { $0.attempt == attempt }
                after(.seconds(1)) { [self] in claim(run) }
            }
        }
    }

    /// Acknowledges a run message that is done with.
    private func drop(_ run: SimulatedBus.Run) {
        claiming.removeAll { $0.sequence == run.sequence }
        world.bus.deleteRun(gpu, run.sequence)
        pull()
    }

    private func begin(_ record: JobRecord, _ sequence: UInt64, _ run: SimulatedBus.Run) {
        claiming.removeAll { $0.sequence == run.sequence }
        let attempt = Attempt(record: record, sequence: sequence, run: run)
        running.append(attempt)
        let seconds = world.chance.hit(0.3) ? 0.05 : 0.2 + 12 * world.chance.unit()
        let status = world.chance.hit(isBad ? 0.95 : 0.25) ? 1 : 0
        after(.inSeconds(seconds)) { [self] in
            let chance = world.chance.unit()
            let ended = outcome(exit: status, seconds: seconds)
            end(attempt, RetryPolicy.transition(for: ended, of: attempt.record, chance: chance))
        }
    }

    /// A leader asks for an attempt to be killed.
    func kill(_ job: JobID, _ attempt: AttemptID) {
        let named = running.first { $0.record.id == job && $0.record.attempt == attempt }
        guard let attempt = named else { return }
        after(world.chance.seconds(0.05...1)) { [self] in
            let killed = AttemptOutcome(code: .cancelled, reason: "cancelled", returnCode: -15)
            end(attempt, .cancel(reason: "cancelled", killed))
        }
    }

    /// A leader asks for an attempt to be given back.
    func evict(_ job: JobID, _ attempt: AttemptID, _ reason: String) {
        let named = running.first { $0.record.id == job && $0.record.attempt == attempt }
        guard let attempt = named else { return }
        after(world.chance.seconds(0.05...1)) { [self] in end(attempt, .lose(reason: reason)) }
    }

    /// A leader asks whether the card works.
    func probe() -> ProbeResult {
        guard isReady, !isSilent else { return .notDone(reason: "no answer") }
        if world.chance.hit(world.faults.sick * 5) { return .sick(evidence: "NVML 15") }
        isSick = false
        return .works(evidence: "fine")
    }

    private func end(_ attempt: Attempt, _ step: JobTransition) {
        guard !attempt.isEnding, running.contains(where: { $0 === attempt }) else { return }
        attempt.isEnding = true
        commit(attempt, step)
    }

    private func commit(_ attempt: Attempt, _ step: JobTransition) {
        var record = attempt.record
        guard apply(step, to: &record) else { return forget(attempt) }
        write(record, expected: attempt.sequence) { [self] result in
            switch result {
            case .stored:
                if world.chance.hit(world.faults.lostResult) { return crash() }
                tellResult(of: record)
                forget(attempt)
            case .conflict(let standing?)
            where standing.record.attempt == record.attempt && standing.record.state == .running:
                attempt.record = standing.record
                attempt.sequence = standing.sequence
                commit(attempt, step)
            case .conflict:
                world.tell("\(name) gives up its attempt of \(record.id): it is no longer the job's")
                forget(attempt)
            case .refused:
                after(.seconds(1)) { [self] in commit(attempt, step) }
            }
        }
    }

    private func tellResult(of record: JobRecord) {
        guard record.state.isTerminal else { return }
        let event = ResultEvent(
            job: record.id,
            state: record.state,
            tries: record.tries,
            outcome: record.outcome,
            time: world.now.seconds
        )
        after(world.travel()) { [self] in world.publishResult(event, by: name) }
    }

    private func forget(_ attempt: Attempt) {
        running.removeAll { $0 === attempt }
        journal.removeAll { $0.attempt == attempt.record.attempt }
        drop(attempt.run)
    }
}
