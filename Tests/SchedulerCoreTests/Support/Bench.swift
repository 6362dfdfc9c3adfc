import JobModel
import WireJSON

@testable import SchedulerCore

/// One core on a test bench: every event by hand, every write answered when the test says so.
///
/// What the core asks for besides writes is collected, by kind, until ``forget()``.
struct Bench {
    struct Write {
        let record: JobRecord
        let expected: UInt64
    }

    struct ControlWrite {
        let record: CardControl
        let expected: UInt64
    }

    var core: SchedulerCore
    let store: SimulatedStore
    let controls: SimulatedControls
    var now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

    /// Asked for and not answered.
    var writes: [Write] = []
    var controlWrites: [ControlWrite] = []
    private(set) var losses: [(job: JobID, attempt: AttemptID)] = []
    private(set) var timer: Timestamp?
    private(set) var runs: [(gpu: GPUID, message: RunMessage)] = []
    private(set) var deletions: [(gpu: GPUID, attempt: AttemptID, sequence: UInt64?)] = []
    private(set) var settled: [UInt64] = []
    private(set) var errors: [(event: ErrorEvent, messageID: String)] = []
    private(set) var results: [(event: ResultEvent, checkFirst: Bool)] = []
    private(set) var places: [UInt64] = []
    private(set) var removals: [UInt64] = []
    private(set) var kills: [(gpu: GPUID, attempt: AttemptID)] = []
    private(set) var reads: [JobID] = []
    private(set) var pulls: [Int] = []
    private(set) var replies: [UInt64: [JSON]] = [:]
    private(set) var probes: [GPUID] = []
    private(set) var decisions: [Decision] = []
    private(set) var evictions: [(gpu: GPUID, job: JobID, attempt: AttemptID, code: FailureCode, reason: String)] = []
    private(set) var told: [(event: String, details: JSONObject)] = []
    private(set) var notices: [String] = []

    /// Whether the workers can end fenced jobs.
    var workersFence = true
    private var lives: [GPUID: (incarnation: Incarnation, counter: UInt64, slots: Int)] = [:]
    private var ids = IdentifierSource(seed: 77)
    private var submissions: UInt64 = 0
    private var runSequence: UInt64 = 0

    /// - Parameter isLeading: the core has finished an empty replay.
    init(
        policy: SchedulerPolicy = SchedulerPolicy(),
        seed: UInt64 = 1,
        store: SimulatedStore = SimulatedStore(),
        controls: SimulatedControls = SimulatedControls(),
        isLeading: Bool = true,
        resultsLag: Duration = .zero
    ) {
        var policy = policy
        policy.resultsLag = resultsLag
        core = SchedulerCore(policy: policy, ids: IdentifierSource(seed: seed))
        self.store = store
        self.controls = controls
        guard isLeading else { return }
        send(.began(resultsPlace: 0, serverClockOffset: .zero))
        send(.replayFinished(lastSequence: 0))
        send(.controlReplayed)
        forget()
    }

    mutating func send(_ event: SchedulerEvent) {
        for action in core.handle(event, at: now) { note(action) }
    }

    /// Forgets what the core asked for so far, but not its writes and its timer.
    mutating func forget() {
        (runs, deletions, settled, errors, results) = ([], [], [], [], [])
        (places, kills, reads, pulls, replies) = ([], [], [], [], [:])
        (notices, removals, probes, evictions, told) = ([], [], [], [], [])
    }

    /// The names of what was told on `maestro.state`.
    var announcements: [String] { told.map(\.event) }

    private mutating func note(_ action: SchedulerAction) {
        switch action {
        case .write(let record, let expected): writes.append(Write(record: record, expected: expected))
        case .publishRun(let gpu, let message): runs.append((gpu, message))
        case .deleteRun(let gpu, let attempt, let sequence): deletions.append((gpu, attempt, sequence))
        case .settle(let tokens): settled += tokens
        case .publishError(let event, let messageID, let tokens):
            errors.append((event, messageID))
            settled += tokens
        case .tellLoss(let job, let attempt, let event, let messageID):
            errors.append((event, messageID))
            losses.append((job, attempt))
        case .publishResult(let event, let checkFirst): results.append((event, checkFirst))
        case .storeResultsPlace(let place): places.append(place)
        case .removeRecord(let sequence): removals.append(sequence)
        case .requestCancel(let gpu, _, let attempt): kills.append((gpu, attempt))
        case .requestEvict(let gpu, let job, let attempt, let code, let reason):
            evictions.append((gpu, job, attempt, code, reason))
        case .requestProbe(let gpu): probes.append(gpu)
        case .decided(let decision): decisions.append(decision)
        case .writeControl(let record, let expected):
            controlWrites.append(ControlWrite(record: record, expected: expected))
        case .readRecord(let job): reads.append(job)
        case .pull(let count): pulls.append(count)
        case .reply(let token, let answer): replies[token.number, default: []].append(answer)
        case .armTimer(let time): timer = time
        case .announce(let event, let details): told.append((event, details))
        case .notice(let text): notices.append(text)
        }
    }

    // MARK: writes

    /// Carries out the first write that waits, and answers it; the stream's own delivery follows.
    mutating func answerWrite() {
        let write = writes.removeFirst()
        let result = store.write(write.record, expected: write.expected, at: now)
        send(.writeEnded(write.record.id, write.record.op, result))
        if case .stored(let sequence) = result { deliver(write.record, sequence) }
    }

    /// Carries out all writes, and those that follow from them.
    mutating func answer() {
        while true {
            if !controlWrites.isEmpty {
                answerControlWrite()
            } else if !writes.isEmpty {
                answerWrite()
            } else if !losses.isEmpty {
                answerLoss()
            } else {
                return
            }
        }
    }

    /// The first loss that is to be told is stored.
    mutating func answerLoss() {
        let loss = losses.removeFirst()
        send(.lossTold(loss.job, loss.attempt))
    }

    /// Answers the first write without storing anything.
    mutating func answerWrite(_ result: WriteResult) {
        let write = writes.removeFirst()
        send(.writeEnded(write.record.id, write.record.op, result))
    }

    private mutating func deliver(_ record: JobRecord, _ sequence: UInt64) {
        send(.recordChanged(RecordRevision(record: record, sequence: sequence, storedAt: now)))
    }

    // MARK: time

    /// Lets time pass: the timer fires when it is due, the cards named keep beating, writes are answered.
    mutating func pass(_ duration: Duration, beating gpus: [GPUID] = []) {
        let end = now + duration
        var nextBeat = now + .seconds(5)
        while true {
            let next = min(timer ?? end, gpus.isEmpty ? end : nextBeat, end)
            now = max(now, next)
            if now == nextBeat, !gpus.isEmpty {
                for gpu in gpus { beat(gpu) }
                nextBeat = nextBeat + .seconds(5)
            } else if let due = timer, due <= now {
                fireTimer()
            } else {
                return
            }
            answer()
        }
    }

    mutating func fireTimer() {
        timer = nil
        send(.timerFired)
    }

    // MARK: clients

    /// Delivers a submission; its token is its place in the order of submissions, from 1.
    mutating func submit(_ bytes: [UInt8], age: Duration = .zero) {
        submissions += 1
        redeliver(bytes, sequence: submissions, age: age)
    }

    mutating func redeliver(_ bytes: [UInt8], sequence: UInt64, age: Duration = .zero) {
        send(
            .submitted(
                Submission(
                    bytes: bytes,
                    digest: digest(bytes),
                    sequence: sequence,
                    timestamp: 1_700_000_000_000_000_000 + Int64(sequence),
                    age: age,
                    token: sequence
                )
            )
        )
    }

    mutating func cancel(_ id: JobID, token: UInt64 = 1, reason: String = "not needed") {
        send(.cancelAsked(id, reason: reason, RequestToken(token)))
    }

    /// Answers every read of the core by what the store holds.
    mutating func answerReads() {
        while !reads.isEmpty {
            let id = reads.removeFirst()
            send(.recordRead(id, store[id]))
        }
    }

    // MARK: workers

    func record(_ id: JobID) -> JobRecord? { store[id]?.record }
    func state(_ id: JobID) -> JobState? { store[id]?.record.state }
    func life(of gpu: GPUID) -> Incarnation? { lives[gpu]?.incarnation }

    /// The workers of another bench, which go on; the clock does too.
    mutating func takeWorkers(of old: Bench, after pause: Duration) {
        lives = old.lives
        now = old.now + pause
        ids = IdentifierSource(seed: 78)
        submissions = old.submissions
    }

    mutating func newOp() -> OperationID { OperationID(from: &ids) }

    mutating func setSlots(_ gpu: GPUID, _ slots: Int) { lives[gpu]?.slots = slots }

    /// A worker starts: registered, first heartbeat, writes answered.
    mutating func start(_ gpu: GPUID, slots: Int = 1) {
        register(gpu, slots: slots)
        beat(gpu)
        answer()
    }

    /// A new life is registered; it has not been heard of.
    mutating func register(_ gpu: GPUID, slots: Int = 1) {
        introduce(gpu, slots: slots)
        registration(gpu, isReleased: false)
    }

    /// A new life begins, and nobody has heard of it.
    mutating func introduce(_ gpu: GPUID, slots: Int = 1) {
        lives[gpu] = (Incarnation(from: &ids), 0, slots)
    }

    mutating func registration(_ gpu: GPUID, isReleased: Bool, facts: JSONObject = JSONObject()) {
        guard let life = lives[gpu] else { return }
        send(
            .registered(
                WorkerRegistration(
                    gpu: gpu,
                    incarnation: life.incarnation,
                    host: "host",
                    bootID: "boot",
                    processID: 1,
                    isReleased: isReleased,
                    facts: facts,
                    op: OperationID(from: &ids)
                )
            )
        )
    }

    /// A heartbeat of a worker that knows of everything its records say it runs, or of what the test says.
    mutating func beat(_ gpu: GPUID, running: [JobID]? = nil, isDraining: Bool = false, asking token: UInt64? = nil) {
        guard let life = lives[gpu] else { return }
        lives[gpu]?.counter += 1
        let records = store.revisions.map(\.record).filter {
            $0.state == .running && $0.gpu == gpu && $0.owner == life.incarnation
        }
        let attempts = records.filter { running?.contains($0.id) ?? true }.compactMap { record in
            record.attempt.map { Heartbeat.RunningAttempt(job: record.id, attempt: $0) }
        }
        let heartbeat = Heartbeat(
            gpu: gpu,
            incarnation: life.incarnation,
            counter: life.counter + 1,
            slots: life.slots,
            running: attempts,
            isDraining: isDraining,
            canFence: workersFence,
            time: now.seconds
        )
        send(token.map { .heartbeatAsked(heartbeat, RequestToken($0)) } ?? .heartbeat(heartbeat))
    }

    mutating func read(_ gpu: GPUID, busy: Double? = nil, temperature: Double? = nil) {
        guard let life = lives[gpu] else { return }
        send(
            .reading(
                CardReading(
                    gpu: gpu,
                    incarnation: life.incarnation,
                    busyPercent: busy,
                    temperature: temperature
                )
            )
        )
    }

    /// Says that every run message asked for so far was stored.
    mutating func storeRuns() {
        for run in runs {
            guard let attempt = run.message.attempt else { continue }
            runSequence += 1
            send(.runPublished(run.message.record.id, run.gpu, attempt, sequence: runSequence))
        }
    }

    /// Another process moves a record; the stream tells the core.
    mutating func commit(_ id: JobID, _ transition: JobTransition) throws {
        guard let revision = store[id] else { return }
        var record = revision.record
        try record.apply(transition, op: OperationID(from: &ids), at: now)
        if case .stored(let sequence) = store.write(record, expected: revision.sequence, at: now) {
            deliver(record, sequence)
        }
    }

    /// Submits a job and takes it through its dispatch.
    mutating func dispatch(_ id: JobID, gpu: GPUID? = nil, retries: Int? = nil) {
        submit(task(id, gpu: gpu, retries: retries))
        answer()
    }

    /// Submits a job and has it claimed.
    mutating func run(_ id: JobID, gpu: GPUID? = nil, retries: Int? = nil) throws {
        dispatch(id, gpu: gpu, retries: retries)
        try commit(id, .claim)
    }
}

extension Bench: CustomStringConvertible {
    var description: String { "a bench" }
}
