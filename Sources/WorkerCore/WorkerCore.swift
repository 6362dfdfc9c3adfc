import JobModel

/// Every decision of a worker: which attempts it claims, how long they run, how their end is told.
///
/// A value without I/O or clock. `docs/ARCHITECTURE.md` says which promises its order of steps keeps.
package struct WorkerCore: Sendable {
    let gpu: GPUID
    let incarnation: Incarnation
    let policy: WorkerPolicy
    var ids: IdentifierSource

    var attempts: [AttemptID: Attempt] = [:]
    var past = PastAttempts()
    var actions: [WorkerAction] = []
    private var lastNumber: UInt64 = 0
    /// Messages that were asked for and have not come.
    private var requested = 0
    /// Slots that a process occupies which cannot be killed.
    var blockedSlots = 0
    /// Why nothing new may run on the card.
    var hold: CardHold?
    /// Who asked for the probe that is under way.
    var prober: RequestToken?
    private var phase = Phase.beginning
    private var nextInProgress: Timestamp?
    /// When the last heartbeat was sent that a leader has answered.
    var answeredAt: Timestamp?
    /// When the next heartbeat is due for the sake of fenced attempts.
    var nextFenceBeat: Timestamp?
    /// When the records of what runs are read next.
    private var nextCheck: Timestamp?
    private var armed: Timestamp?
    private var hasBegun = false
    private var hasFinished = false

    enum Phase: Sendable, Equatable {
        /// Attempts of earlier lives are being closed.
        case beginning
        case serving
        /// Told to stop; running attempts may go on until then.
        case draining(until: Timestamp)
    }

    package init(gpu: GPUID, incarnation: Incarnation, policy: WorkerPolicy, ids: IdentifierSource) {
        self.gpu = gpu
        self.incarnation = incarnation
        self.policy = policy
        self.ids = ids
    }

    /// Takes in what happened and says what to do.
    package mutating func handle(_ event: WorkerEvent, at now: Timestamp) -> [WorkerAction] {
        switch event {
        case .began(let recovered): begin(recovered, at: now)
        case .runReceived(let message, let token): receive(message, token, at: now)
        case .badRunReceived(let reason, let job, let token): refuse(reason, job, token, at: now)
        case .prepared(let id, let revision, let objection): prepared(id, revision, objection, at: now)
        case .recordRead(let id, let revision): recordRead(id, revision, at: now)
        case .writeEnded(let id, let op, let outcome): writeEnded(id, op, outcome, at: now)
        case .started(let id, let directory): started(id, directory, at: now)
        case .startFailed(let id, let code, let reason): startFailed(id, code, reason, at: now)
        case .ended(let id, let end): ended(id, end, at: now)
        case .examined(let id): examined(id, at: now)
        case .reported(let id): reported(id, at: now)
        case .told(let id): told(id)
        case .cancelAsked(let job, let id, let token): cancelAsked(job, id, token, at: now)
        case .evictAsked(let job, let id, let code, let reason, let token):
            evictAsked(job, id, code, reason, token, at: now)
        case .probeAsked(let token): probeAsked(token)
        case .probeEnded(let answer): probeEnded(answer)
        case .cardHeld(let hold): cardHeld(hold, at: now)
        case .cardFailed(let reason): cardFailed(reason, at: now)
        case .heartbeatAnswered(let sentAt): heartbeatAnswered(sentAt: sentAt, at: now)
        case .reconnected:
            doubtRevisions()
            checkRunning()
        case .timerFired: armed = nil
        case .stopAsked: stop(at: now)
        }
        settle(at: now)
        defer { actions = [] }
        return actions
    }

    /// What heartbeats say: the attempts that were claimed and are not finished, in the order of their arrival.
    package var running: [Heartbeat.RunningAttempt] {
        attempts.values.filter(\.isOurs).sorted { $0.number < $1.number }
            .map { Heartbeat.RunningAttempt(job: $0.job, attempt: $0.id) }
    }

    package var isDraining: Bool { drainDeadline != nil }

    /// Until when running attempts may go on; nil while the worker was not told to stop.
    var drainDeadline: Timestamp? {
        guard case .draining(let until) = phase else { return nil }
        return until
    }

    // MARK: what every event ends with

    /// Does what has become due or possible.
    private mutating func settle(at now: Timestamp) {
        runDeadlines(at: now)
        if phase == .beginning, attempts.isEmpty, hasBegun {
            phase = .serving
            actions.append(.announceReady)
        }
        fillSlots(at: now)
        demand()
        keepMessages(at: now)
        keepFences(at: now)
        armTimer(at: now)
        if isDraining, attempts.isEmpty, !hasFinished {
            hasFinished = true
            actions.append(.finish)
        }
    }

    private mutating func begin(_ recovered: [RecoveredAttempt], at now: Timestamp) {
        hasBegun = true
        for attempt in recovered { recover(attempt) }
    }

    /// Gives free slots to those who wait, first come, first served.
    private mutating func fillSlots(at now: Timestamp) {
        guard phase == .serving, hold == nil, !isReportingTooMuch else { return }
        let free = policy.slots - blockedSlots - attempts.values.count(where: \.isOccupying)
        guard free > 0 else { return }
        // The scheduler sends what comes first first: a message whose record is still being read is not overtaken.
        let waiting = attempts.values.filter(\.isHeld).sorted { $0.number < $1.number }
        for attempt in waiting.prefix(while: { $0.phase == .ready }).prefix(free) { claim(attempt.id, at: now) }
    }

    /// Messages are pulled as slots will need them: the bus holds the rest, where the scheduler can take it back.
    private mutating func demand() {
        guard phase == .serving, hold == nil, !isReportingTooMuch, blockedSlots < policy.slots else { return }
        let inHand = attempts.values.count { $0.isOccupying || $0.isHeld }
        let missing = policy.window - inHand - requested
        guard missing > 0 else { return }
        requested += missing
        actions.append(.pull(missing))
    }

    private var isReportingTooMuch: Bool {
        attempts.values.count { !$0.isOccupying && !$0.isHeld } >= policy.maximumReporting
    }

    /// Keeps the messages in hand from being delivered again.
    private mutating func keepMessages(at now: Timestamp) {
        let tokens = attempts.values.compactMap(\.token)
        guard !tokens.isEmpty else {
            nextInProgress = nil
            return
        }
        if let next = nextInProgress, now >= next {
            actions.append(.inProgress(tokens.sorted { $0.number < $1.number }))
            nextInProgress = now + policy.ackWait / 3
        } else if nextInProgress == nil {
            nextInProgress = now + policy.ackWait / 3
        }
    }

    private mutating func runDeadlines(at now: Timestamp) {
        let due = attempts.values.filter { $0.due.map { $0 <= now } ?? false }.sorted { $0.number < $1.number }
        for attempt in due { timeIsUp(attempt.id, at: now) }
        endFenced(at: now)
        // The drain time has passed: what still runs goes back to the pool.
        if let until = drainDeadline, until <= now { endRunning(because: .drained, at: now) }
        keepChecking(at: now)
    }

    /// A worker that was cut off and whose connection outlived that is told by nobody that its jobs were given away.
    private mutating func keepChecking(at now: Timestamp) {
        guard attempts.values.contains(where: { $0.phase == .running }) else {
            nextCheck = nil
            return
        }
        if let next = nextCheck {
            guard next <= now else { return }
            checkRunning()
        }
        nextCheck = now + policy.checkInterval
    }

    private mutating func armTimer(at now: Timestamp) {
        var times = attempts.values.compactMap(\.due)
        if let nextInProgress { times.append(nextInProgress) }
        if let nextCheck { times.append(nextCheck) }
        times += fenceTimes
        if let until = drainDeadline, until > now { times.append(until) }
        let next = times.min()
        guard next != armed else { return }
        armed = next
        actions.append(.armTimer(next))
    }

    // MARK: the table

    mutating func add(_ attempt: AttemptID, of revision: RecordRevision, token: MessageToken?, phase: Attempt.Phase) {
        lastNumber += 1
        attempts[attempt] = Attempt(
            id: attempt,
            job: revision.record.id,
            number: lastNumber,
            token: token,
            phase: phase,
            revision: revision
        )
    }

    /// The attempt is over for this worker: its message is acknowledged, last of all.
    mutating func drop(_ id: AttemptID) {
        guard let attempt = attempts.removeValue(forKey: id) else { return }
        if let token = attempt.token { actions.append(.ack(token)) }
    }

    mutating func messageArrived() { requested = max(0, requested - 1) }

    // MARK: stopping

    private mutating func stop(at now: Timestamp) {
        guard !isDraining else {
            // The second time: what still runs is not waited for any longer.
            phase = .draining(until: now)
            return
        }
        phase = .draining(until: now + policy.drain)
        giveBackWaiting()
        actions.append(.heartbeat)
    }
}
