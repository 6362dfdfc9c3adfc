import JobModel
import WireJSON

/// Every decision of the leading maestro: what is admitted, which card runs what, what is lost, retried, cancelled.
///
/// One value per term of office. It holds the jobs that have not ended and the cards; the records in ORG_JOBS are
/// the truth, and this is the leader's picture of them. Each job has at most one write under way; when it has ended,
/// ``advance(_:at:)`` looks at the job as it now is and decides the next step.
package struct SchedulerCore: Sendable {
    let policy: SchedulerPolicy
    var ids: IdentifierSource
    var phase = Phase.starting
    var serverClockOffset = Duration.zero

    var jobs = JobTable()
    var queue = WaitingQueue()
    /// Jobs that wait for a card or for their backoff.
    var waitingCount = 0
    /// Jobs bound to a card.
    var inflightCount = 0

    var cards = CardTable()
    var cardOrder: [GPUID] { cards.order }
    /// For each of the cards what a placement does not look at.
    var details: [GPUID: CardDetails] = [:]
    /// The cards whose caches hold a thing.
    var cacheHolders: [CacheKey: Set<GPUID>] = [:]
    /// The control records are known: before that a card may be one that must not be used.
    var knowsControl = false
    /// Cards that left the tables, with the lives that owned them: a heartbeat of one brings it back.
    var forgotten: [GPUID: Incarnation] = [:]
    var dayPhase = DayPhase.day
    /// Some limit of working cards was put into effect.
    var isLimited = false
    var failures = FailureLedger()
    /// What ``failures`` is filled with; nil when it was.
    var history: FailureHistory? = FailureHistory()
    /// As many cards are quarantined for failures as may be, and that was told.
    var isQuarantineFull = false
    /// Heartbeats of lives whose registration has not arrived yet.
    var strangers: [GPUID: Heartbeat] = [:]

    var admissions: [JobID: Admission] = [:]
    var submitters = SubmitterLedger()
    /// Submissions that were pulled and are not settled.
    var unsettled = 0
    /// Submissions that were asked for and have not arrived.
    var demand = 0
    var isFull = false
    /// The records' stream has no room for further jobs.
    var isStoreFull = false

    var results = ResultLedger()
    var retention = RetentionLedger()
    /// All jobs by their submission, while this process leads.
    var index = JobIndex()
    /// There is no record that ``index`` does not know.
    var isIndexComplete = true
    /// How many jobs that have not ended are in each state.
    var liveCounts: [JobState: Int] = [:]
    /// When the next removal is looked at.
    var removalPlanned: Timestamp?
    /// Cancels of jobs that are not in memory, until their records have been read.
    var cancelReads: [JobID: Job.CancelIntent] = [:]
    /// Questions about jobs that are not in memory.
    var whyReads: [JobID: [RequestToken]] = [:]

    var deadlines = DeadlineQueue<Deadline>()
    var armed: Timestamp?
    /// Something changed that may let a waiting job be placed.
    var needsPlacement = false
    /// Classes that no card may serve, and when that is to be told next.
    var unplaceable: [PlacementClass: Timestamp] = [:]
    /// Classes of which it is to be seen anew whether some card may serve them.
    var unjudged: [PlacementClass] = []

    var actions: [SchedulerAction] = []

    enum Phase: Sendable { case starting, leading }

    enum Deadline: Sendable {
        case claim(JobID, AttemptID)
        case retry(JobID)
        case avoidance(JobID)
        case wait(JobID)
        case hold(JobID)
        case fence(JobID)
        case admission(JobID)
        case card(GPUID)
        case stale(GPUID)
        case control(GPUID)
        case drain(GPUID)
        case probe(GPUID)
        case forget(GPUID)
        case unplaceable(PlacementClass)
        case result(JobID)
        case storePlace
        case removal
    }

    /// - Parameters:
    ///   - policy: the numbers to decide by.
    ///   - ids: chance for tokens and jitter; seeded alike, two cores decide alike.
    package init(policy: SchedulerPolicy, ids: IdentifierSource) {
        self.policy = policy
        self.ids = ids
    }

    /// Takes one event in and says what to do. The actions are meant to be started in their order.
    package mutating func handle(_ event: SchedulerEvent, at now: Timestamp) -> [SchedulerAction] {
        actions = []
        take(event, at: now)
        if phase == .leading {
            if needsPlacement, knowsControl { place(at: now) }
            pullMore()
        }
        rearm()
        jobs.rest()
        return actions
    }

    private mutating func take(_ event: SchedulerEvent, at now: Timestamp) {
        switch event {
        case .began(let place, let offset): begin(resultsPlace: place, serverClockOffset: offset)
        case .replayed(let revision), .recordChanged(let revision): observe(revision.stored(by: now), at: now)
        case .replayFinished(let last): finishReplay(lastSequence: last, at: now)
        case .recordUnreadable(let job, let sequence, let reason): noteUnreadable(job, sequence, reason)
        case .submitted(let submission): admit(submission, at: now)
        case .registered(let registration): register(registration, at: now)
        case .heartbeat(let heartbeat): hear(heartbeat, at: now)
        case .heartbeatAsked(let heartbeat, let request): hear(heartbeat, for: request, at: now)
        case .reading(let reading): note(reading, at: now)
        case .cache(let report): note(report)
        case .workerDown(let notice): noteDown(notice, at: now)
        case .cardControl(let revision): observe(revision.stored(by: now), at: now)
        case .cardControlUnreadable(let gpu, let sequence, let reason): noteUnreadable(gpu, sequence, reason, at: now)
        case .controlReplayed:
            knowsControl = true
            needsPlacement = true
            fillFailures(at: now)
            for gpu in cardOrder { writeControl(of: gpu, at: now) }
        case .controlWritten(let gpu, let op, let result): endControlWrite(gpu, op, result, at: now)
        case .probeEnded(let gpu, let result): endProbe(of: gpu, result, at: now)
        case .evictionFailed(let gpu, let job, let reason):
            actions.append(.notice("job \(job) was not evicted from card \(gpu) yet: \(reason)"))
        case .writeEnded(let job, let op, let result): endWrite(job, op, result, at: now)
        case .runPublished(let job, let gpu, let attempt, let sequence): noteRun(job, gpu, attempt, sequence)
        case .runRefused(let job, let attempt, let reason): closeUnclaimed(job, attempt, reason, at: now)
        case .recordRead(let job, let revision): noteRead(job, revision, at: now)
        case .lossTold(let job, let attempt): noteLossTold(job, attempt, at: now)
        case .resultSeen(let job), .resultSettled(let job): settleResult(job, at: now)
        case .cancelAsked(let job, let reason, let request): cancel(job, reason: reason, for: request, at: now)
        case .whyAsked(let job, let request): explain(job, to: request, at: now)
        case .statusAsked(let request): actions.append(.reply(request, status))
        case .jobsAsked(let query, let request): list(query, to: request)
        case .cardsAsked(let request): actions.append(.reply(request, cardTable(at: now)))
        case .cardAsked(let gpu, let request): tellCard(gpu, to: request, at: now)
        case .cardRequest(let asked, let request): take(asked, for: request, at: now)
        case .recordRemoved(let sequence, let failure): endRemoval(sequence, failure, at: now)
        case .storeFilled(let fill): noteStore(fill: fill)
        case .phase(let phase): begin(phase)
        case .timerFired: fireTimer(at: now)
        case .reconnected: grantFullTTL(at: now)
        }
    }

    // MARK: beginning

    private mutating func begin(resultsPlace: UInt64, serverClockOffset: Duration) {
        results.place = resultsPlace
        self.serverClockOffset = serverClockOffset
    }

    private mutating func finishReplay(lastSequence: UInt64, at now: Timestamp) {
        buildIndex()
        phase = .leading
        needsPlacement = true
        results.observed = max(results.observed, lastSequence)
        grantFullTTL(at: now)
        for gpu in cardOrder {
            watch(gpu)
            writeControl(of: gpu, at: now)
            evictIfDue(gpu, at: now)
            probeIfDue(gpu, at: now)
        }
        for id in jobs.activeBySequence {
            dispatchAgain(id)
            tellLossAgain(id, at: now)
            advance(id, at: now)
        }
        planRemoval(notBefore: now)
        fillFailures(at: now)
        announce("leading")
    }

    private mutating func noteUnreadable(_ job: JobID?, _ sequence: UInt64, _ reason: String) {
        results.observed = max(results.observed, sequence)
        isIndexComplete = false
        let name = job?.text ?? "?"
        actions.append(
            .notice("the record of job \(name) at sequence \(sequence) cannot be read and is left alone: \(reason)")
        )
    }

    // MARK: time

    private mutating func fireTimer(at now: Timestamp) {
        if let armed, now - armed > policy.stall { grantFullTTL(at: now) }
        armed = nil
        while let deadline = deadlines.popDue(at: now) { pass(deadline, at: now) }
    }

    private mutating func pass(_ deadline: Deadline, at now: Timestamp) {
        switch deadline {
        case .claim(let job, let attempt):
            closeUnclaimed(job, attempt, "not claimed within \(policy.claimTimeout.inSeconds) s", at: now)
        case .retry(let job), .wait(let job), .fence(let job):
            advance(job, at: now)
        case .avoidance(let job):
            endAvoidance(job, at: now)
        case .hold(let job):
            jobs[job]?.holdUntil = nil
            advance(job, at: now)
        case .admission(let job):
            retryAdmission(job)
        case .card(let gpu):
            checkCard(gpu, at: now)
        case .stale(let gpu):
            checkReading(of: gpu, at: now)
        case .control(let gpu):
            resumeControl(of: gpu, at: now)
        case .drain(let gpu):
            evictIfDue(gpu, at: now)
        case .probe(let gpu):
            probeIfDue(gpu, at: now)
        case .forget(let gpu):
            forgetIfDue(gpu, at: now)
        case .unplaceable(let placement):
            tellUnplaceable(placement, at: now)
        case .result(let job):
            publishMissingResult(job)
        case .storePlace:
            storeResultsPlace(at: now)
        case .removal:
            removeEnded(at: now)
        }
    }

    private mutating func rearm() {
        let earliest = deadlines.earliest
        guard earliest != armed else { return }
        armed = earliest
        actions.append(.armTimer(earliest))
    }

    // MARK: telling

    mutating func announce(_ event: String, _ details: [(String, JSON)] = []) {
        let counts: [(String, JSON)] = [
            ("gpus_alive", .int(aliveCards)), ("qsize", .int(waitingCount)), ("inflight", .int(inflightCount)),
        ]
        actions.append(.announce(event: event, JSONObject(details + counts)))
    }

    /// Cards with a living worker.
    package var aliveCards: Int { cards.aliveCount }
    /// Jobs that wait for a card or for their backoff.
    package var queueSize: Int { waitingCount }
    /// Jobs bound to a card.
    package var inflight: Int { inflightCount }
}
