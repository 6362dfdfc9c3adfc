import JobModel

/// The cards and their workers: who lives, and what becomes of the attempts of those who do not.
extension SchedulerCore {
    /// Heartbeats kept of lives whose registration has not arrived.
    private static let maximumStrangers = 4096

    mutating func addCard(_ gpu: GPUID, at now: Timestamp) {
        guard cards[gpu] == nil else { return }
        cards[gpu] = Card(id: gpu, lastHeard: now)
        details[gpu] = CardDetails(id: gpu, op: OperationID(from: &ids), at: now)
        forgotten[gpu] = nil
        planForgetting(of: gpu)
        refreshLimit()
    }

    mutating func register(_ registration: WorkerRegistration, at now: Timestamp) {
        let gpu = registration.gpu
        addCard(gpu, at: now)
        if registration.isReleased {
            lose(gpu, reason: "its worker ended in order", at: now)
            cards[gpu]?.owner = nil
            return noteState(of: gpu, at: now)
        }
        guard cards[gpu]?.owner != registration.incarnation else { return }
        if cards[gpu]?.isAlive == true { announce("gpu_gone", [("gpu_id", gpu.json), ("reason", "worker restarted")]) }
        cards[gpu]?.owner = registration.incarnation
        cards[gpu]?.counter = 0
        cards[gpu]?.isAlive = false
        cards[gpu]?.isDraining = false
        cards[gpu]?.lastHeard = now
        details[gpu]?.seenAt = now
        details[gpu]?.facts = registration.facts
        forgetCache(of: gpu)
        watch(gpu)
        noteState(of: gpu, at: now)
        if let heartbeat = strangers.removeValue(forKey: gpu), heartbeat.incarnation == registration.incarnation {
            hear(heartbeat, at: now)
        }
    }

    /// The answer says that the worker counts as heard of from now on, so one that does not count gets none. By it the
    /// worker knows until when nobody else is given its fenced jobs.
    mutating func hear(_ heartbeat: Heartbeat, for request: RequestToken, at now: Timestamp) {
        hear(heartbeat, at: now)
        guard let card = cards[heartbeat.gpu], card.owner == heartbeat.incarnation, card.counter == heartbeat.counter
        else {
            let reason = "this maestro does not know card \(heartbeat.gpu) as this worker's, or has heard later of it"
            return actions.append(.reply(request, Self.refusal("not_counted", reason)))
        }
        actions.append(.reply(request, HeartbeatAnswer(counter: heartbeat.counter).json))
    }

    mutating func hear(_ heartbeat: Heartbeat, at now: Timestamp) {
        if cards[heartbeat.gpu] == nil { remember(heartbeat, at: now) }
        guard let card = cards[heartbeat.gpu], card.owner == heartbeat.incarnation else {
            if strangers.count < Self.maximumStrangers || strangers[heartbeat.gpu] != nil {
                strangers[heartbeat.gpu] = heartbeat
            }
            return
        }
        guard heartbeat.counter > card.counter else { return }
        if !card.isAlive || card.slots != heartbeat.slots || card.isDraining != heartbeat.isDraining
            || card.canFence != heartbeat.canFence
        {
            needsPlacement = true
        }
        cards[heartbeat.gpu]?.counter = heartbeat.counter
        cards[heartbeat.gpu]?.slots = heartbeat.slots
        cards[heartbeat.gpu]?.isDraining = heartbeat.isDraining
        cards[heartbeat.gpu]?.canFence = heartbeat.canFence
        cards[heartbeat.gpu]?.lastHeard = now
        details[heartbeat.gpu]?.seenAt = now
        if !card.isAlive {
            cards[heartbeat.gpu]?.isAlive = true
            watch(heartbeat.gpu)
            announce("gpu_up", [("gpu_id", heartbeat.gpu.json)])
            noteState(of: heartbeat.gpu, at: now)
            probeIfDue(heartbeat.gpu, at: now)
        }
        guard !card.assigned.isEmpty else { return }
        for id in card.assigned.sorted() { check(id, against: heartbeat, at: now) }
        evictIfDue(heartbeat.gpu, at: now)
    }

    /// Compares one attempt bound to the card with what its worker says it runs.
    private mutating func check(_ id: JobID, against heartbeat: Heartbeat, at now: Timestamp) {
        guard let job = jobs[id], job.record.isBound, job.pending == nil, job.record.gpu == heartbeat.gpu else {
            return
        }
        if job.record.owner != heartbeat.incarnation {
            // Its worker reports or closes the attempts of earlier lives before its first heartbeat: this one is left.
            return note(loss: "the worker of card \(heartbeat.gpu) was restarted", of: id, at: now)
        }
        if job.record.state == .scheduled {
            if heartbeat.isDraining { closeUnclaimed(id, job.record.attempt, "its worker is about to stop", at: now) }
            return
        }
        if heartbeat.running.contains(where: { $0.attempt == job.record.attempt }) {
            jobs[id]?.missedHeartbeats = 0
            // Its loss was not stored yet, and now its worker is heard of again.
            forgetLoss(of: id)
            if job.record.cancelRequested { askWorkerToCancel(job) }
        } else {
            jobs[id]?.missedHeartbeats += 1
            guard job.missedHeartbeats >= 1 else { return }
            note(loss: "the worker of card \(heartbeat.gpu) no longer knows of it", of: id, at: now)
        }
    }

    private mutating func closeUnclaimed(_ id: JobID, _ attempt: AttemptID?, _ reason: String, at now: Timestamp) {
        guard let attempt else { return }
        closeUnclaimed(id, attempt, reason, at: now)
    }

    mutating func askWorkerToCancel(_ job: Job) {
        guard let gpu = job.record.gpu, let attempt = job.record.attempt else { return }
        actions.append(.requestCancel(gpu, job.record.id, attempt))
    }

    mutating func note(_ reading: CardReading, at now: Timestamp) {
        let gpu = reading.gpu
        guard let before = cards[gpu], before.owner == reading.incarnation else { return }
        let objection = before.objection(policy: policy, at: now)
        cards[gpu]?.noteReading(reading, policy: policy, at: now)
        details[gpu]?.reading = reading
        details[gpu]?.history.add(reading, at: now)
        heed(reading, at: now)
        noteState(of: gpu, at: now)
        if objection != nil { needsPlacement = true }
        guard let card = cards[gpu] else { return }
        if card.marks != before.marks { tellHold(of: card, before: before.marks, at: now) }
        if card.isBusyElsewhere {
            // What a reading says of busyness holds until the reading is stale.
            deadlines.insert(.stale(gpu), at: now + policy.metricsTTL + .nanoseconds(1))
        }
    }

    /// A card has become too hot to be used, or its worker holds it; or it no longer is, or does.
    private mutating func tellHold(of card: Card, before: Card.Marks, at now: Timestamp) {
        let holds: Card.Marks = [.held, .hot]
        let state = state(of: card.id, at: now)
        if !card.marks.isDisjoint(with: holds), before.isDisjoint(with: holds) {
            announce("gpu_held", [("gpu_id", card.id.json), ("reason", .string(state.reason))])
            takeBackUnclaimed(from: card.id, at: now)
        } else if card.marks.isDisjoint(with: holds), !before.isDisjoint(with: holds) {
            announce("gpu_resumed", [("gpu_id", card.id.json), ("state", .string(state.word))])
        }
    }

    /// A reading that spoke against a card may have become stale.
    mutating func checkReading(of gpu: GPUID, at now: Timestamp) {
        if cards[gpu]?.isStale(policy: policy, at: now) == true { needsPlacement = true }
    }

    mutating func noteDown(_ notice: WorkerNotice, at now: Timestamp) {
        guard cards[notice.gpu]?.owner == notice.incarnation else { return }
        lose(notice.gpu, reason: "its worker ended in order", at: now)
    }

    /// A deadline of a card has come: it is gone, unless it was heard of since.
    mutating func checkCard(_ gpu: GPUID, at now: Timestamp) {
        guard let card = cards[gpu] else { return }
        cards[gpu]?.isWatched = false
        if phase == .starting {
            // What happened meanwhile is still being replayed.
            keepWatch(on: gpu, at: now)
        } else if now - card.lastHeard < policy.heartbeatTTL {
            watch(gpu)
        } else {
            lose(gpu, reason: "card \(gpu) was not heard of for \(policy.heartbeatTTL.inSeconds) s", at: now)
        }
    }

    /// Sets the deadline by which the card has to be heard of again.
    mutating func watch(_ gpu: GPUID) {
        guard let card = cards[gpu], !card.isWatched else { return }
        cards[gpu]?.isWatched = true
        deadlines.insert(.card(gpu), at: card.lastHeard + policy.heartbeatTTL)
    }

    /// A card with an attempt on it is waited for no longer than its TTL, even if it has never been heard of.
    mutating func keepWatch(on gpu: GPUID, at now: Timestamp) {
        guard let card = cards[gpu], !card.isWatched else { return }
        cards[gpu]?.lastHeard = now
        watch(gpu)
    }

    /// The worker is gone: its attempts are closed and its jobs go back to the queue.
    private mutating func lose(_ gpu: GPUID, reason: String, at now: Timestamp) {
        guard let card = cards[gpu] else { return }
        if card.isAlive {
            cards[gpu]?.isAlive = false
            announce("gpu_gone", [("gpu_id", gpu.json), ("reason", .string(reason))])
            noteState(of: gpu, at: now)
        }
        planForgetting(of: gpu)
        for id in card.assigned.sorted() {
            guard jobs[id]?.record.isBound == true else { continue }
            note(loss: reason, of: id, at: now)
        }
    }

    /// The attempt is to be closed, at the latest when its fence lets that be.
    private mutating func note(loss reason: String, of id: JobID, at now: Timestamp) {
        jobs[id]?.lossReason = reason
        if jobs[id]?.lossSince == nil { jobs[id]?.lossSince = now }
        advance(id, at: now)
    }

    /// Its worker was only late, and nothing was written yet.
    private mutating func forgetLoss(of id: JobID) {
        jobs[id]?.lossReason = nil
        jobs[id]?.lossSince = nil
    }

    /// Until when a fenced attempt may not be given to anybody else; nil when it may now.
    ///
    /// Counted from the last heartbeat of its owner, or from when that one was replaced: heartbeats of a life that does not
    /// own the card are not answered. Heartbeats of its owner that no longer name it extend nothing: either it has ended, or
    /// they were sent before its claim.
    func fenceEnd(of job: Job, at now: Timestamp) -> Timestamp? {
        guard let fence = job.record.limits.fence, job.record.state == .running, let gpu = job.record.gpu else {
            return nil
        }
        var heard = job.lossSince ?? now
        if let card = cards[gpu], card.owner == job.record.owner { heard = min(heard, card.lastHeard) }
        let end = heard + max(fence.patience, .zero)
        return end > now ? end : nil
    }

    /// After a time in which nothing could be heard, nobody is called lost before a full TTL has passed.
    mutating func grantFullTTL(at now: Timestamp) {
        for gpu in cardOrder { cards[gpu]?.lastHeard = now }
    }
}
