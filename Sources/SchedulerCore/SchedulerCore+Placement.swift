import JobModel

/// Which job goes to which card, and when.
extension SchedulerCore {
    /// Binds waiting jobs to cards until no job and card fit any more.
    mutating func place(at now: Timestamp) {
        needsPlacement = false
        while let choice = nextChoice(at: now) {
            guard let owner = cards[choice.card]?.owner else { return }
            let attempt = AttemptID(from: &ids)
            if policy.logsDecisions, let placement = jobs[choice.job]?.placement {
                actions.append(.decided(decision(choice.job, attempt, to: choice.card, placement, at: now)))
            }
            assign(choice.job, to: choice.card, at: now)
            write(choice.job, .schedule(gpu: choice.card, attempt: attempt, owner: owner), at: now)
        }
        // Releasing and assigning above was this function's own doing.
        needsPlacement = false
    }

    /// The first job, over all classes, that has a card; jobs of one class differ in nothing but their place.
    private mutating func nextChoice(at now: Timestamp) -> (job: JobID, card: GPUID)? {
        var best: (place: QueuePlace, card: GPUID)?
        for placement in queue.order {
            guard let place = firstWaiting(of: placement) else {
                unplaceable[placement] = nil
                continue
            }
            guard let card = bestCard(for: placement, reading: jobs[place.job]?.cacheKeys ?? [], at: now) else {
                noteUnplaceable(placement, at: now)
                continue
            }
            if best.map({ place < $0.place }) ?? true { best = (place, card) }
        }
        return best.map { ($0.place.job, $0.card) }
    }

    /// The first place of a class whose job may be bound now; drops those before it.
    private mutating func firstWaiting(of placement: PlacementClass) -> QueuePlace? {
        while let place = queue.first(of: placement) {
            let job = jobs[place.job]
            if job?.placement == placement, job?.isWaiting == true { return place }
            queue.removeFirst(of: placement)
            if job?.placement == placement { jobs[place.job]?.isQueued = false }
        }
        queue.forget(placement)
        return nil
    }

    /// The card for a class: one with a free slot before one where the job would wait, then the emptier, then the
    /// better score, then the lower id. What a job reads makes no class of its own, or there would be as many as files.
    private func bestCard(for placement: PlacementClass, reading keys: [CacheKey], at now: Timestamp) -> GPUID? {
        var best: (rank: (Int, Int, Double), card: GPUID)?
        for gpu in candidates(for: placement) {
            guard let card = cards[gpu], card.objection(policy: policy, at: now) == nil,
                !placement.isFenced || card.canFence, !isAvoided(gpu, for: placement, at: now)
            else { continue }
            let load = card.assigned.count
            guard load < card.capacity(policy: policy) else { continue }
            let score = card.score(policy: policy, at: now) - cacheBonus(of: gpu, for: keys)
            let rank = (load < card.slots ? 0 : 1, load, score)
            if best.map({ rank < $0.rank }) ?? true { best = (rank, gpu) }
        }
        return best?.card
    }

    func candidates(for placement: PlacementClass) -> [GPUID] {
        placement.pin.map { [$0] } ?? cardOrder
    }

    // MARK: retries

    /// A retry tries another card first, for a while.
    mutating func avoidCard(of record: JobRecord, from due: Timestamp) {
        guard let job = jobs[record.id], job.placement.pin == nil, let gpu = record.gpu else { return }
        let end = due + policy.avoidance
        jobs[record.id]?.placement.avoid = gpu
        jobs[record.id]?.avoidsUntil = end
        jobs[record.id]?.isQueued = false
        deadlines.insert(.avoidance(record.id), at: end)
    }

    mutating func endAvoidance(_ id: JobID, at now: Timestamp) {
        guard let job = jobs[id], let end = job.avoidsUntil, end <= now else { return }
        jobs[id]?.placement.avoid = nil
        jobs[id]?.avoidsUntil = nil
        // Its place in the other class is left behind.
        jobs[id]?.isQueued = false
        advance(id, at: now)
    }

    /// Jobs of the class are to go elsewhere, and some other card may take them.
    func isAvoided(_ gpu: GPUID, for placement: PlacementClass, at now: Timestamp) -> Bool {
        placement.avoid == gpu && cardOrder.contains { $0 != gpu && mayServe($0, placement, at: now) }
    }

    private func mayServe(_ gpu: GPUID, _ placement: PlacementClass, at now: Timestamp) -> Bool {
        guard let card = cards[gpu], !placement.isFenced || card.canFence else { return false }
        return card.objection(policy: policy, at: now)?.isForWantOfRoom ?? true
    }

    // MARK: jobs without a card

    /// Some card may take jobs of the class, now or when it has room again.
    func isServed(_ placement: PlacementClass, at now: Timestamp) -> Bool {
        candidates(for: placement).contains { mayServe($0, placement, at: now) }
    }

    /// No card has room. If that is because none may be used at all, the records are to say so before long.
    private mutating func noteUnplaceable(_ placement: PlacementClass, at now: Timestamp) {
        if isServed(placement, at: now) {
            if unplaceable.removeValue(forKey: placement) != nil { tellServed(placement, at: now) }
        } else if unplaceable[placement] == nil {
            planTelling(placement, at: now + policy.waitingGrace)
        }
    }

    private mutating func planTelling(_ placement: PlacementClass, at due: Timestamp) {
        unplaceable[placement] = due
        deadlines.insert(.unplaceable(placement), at: due)
    }

    /// Jobs whose records are changed to say that they wait for a card: enough to be found, not a write for each of
    /// a million.
    private static let toldAtOnce = 256

    mutating func tellUnplaceable(_ placement: PlacementClass, at now: Timestamp) {
        guard let due = unplaceable[placement], due <= now, !isServed(placement, at: now) else { return }
        let reason = waitingReason(for: placement, at: now)
        for place in queue.firstPlaces(of: placement, count: Self.toldAtOnce) {
            guard let job = jobs[place.job], job.placement == placement, job.isWaiting, job.record.state == .enqueued
            else { continue }
            write(place.job, .waitForCard(reason: reason), at: now)
        }
        planTelling(placement, at: now + .seconds(30))
    }

    /// Cards are back, though their slots are taken: the records no longer say that there is none.
    private mutating func tellServed(_ placement: PlacementClass, at now: Timestamp) {
        for place in queue.firstPlaces(of: placement, count: Self.toldAtOnce) {
            guard let job = jobs[place.job], job.placement == placement, job.isWaiting,
                job.record.state == .waitingGPU
            else { continue }
            write(place.job, .cardsBack, at: now)
        }
    }

    /// Why a card takes no job of a class, whether it has room or not; empty when it does.
    func obstacle(on gpu: GPUID, for placement: PlacementClass, at now: Timestamp) -> String {
        let reason = state(of: gpu, at: now).reason
        guard reason.isEmpty, placement.isFenced, cards[gpu]?.canFence != true else { return reason }
        return "its worker cannot fence jobs (partition); upgrade it"
    }

    /// Why no card takes jobs of a class, for a person.
    func waitingReason(for placement: PlacementClass, at now: Timestamp) -> String {
        if let pin = placement.pin {
            guard cards[pin] != nil else {
                return "pinned to card \(pin), whose worker has not been heard of; start it, or submit without gpu"
            }
            let reason = obstacle(on: pin, for: placement, at: now)
            return "pinned to card \(pin): \(reason.isEmpty ? "all its slots are taken" : reason)"
        }
        guard !cardOrder.isEmpty else { return "no worker has been heard of; start gpu-worker on a card" }
        let reasons = cardOrder.prefix(3).map { "card \($0): \(obstacle(on: $0, for: placement, at: now))" }
        let more = cardOrder.count > 3 ? ", and \(cardOrder.count - 3) more" : ""
        return "no card may take it: " + reasons.joined(separator: "; ") + more
    }
}
