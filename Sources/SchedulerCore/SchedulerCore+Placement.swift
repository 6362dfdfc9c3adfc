import JobModel

/// Which job goes to which card, and when.
extension SchedulerCore {
    /// Binds waiting jobs to cards until no job and card fit any more.
    mutating func place(at now: Timestamp) {
        refreshCards(at: now)
        while let choice = nextChoice() {
            guard let owner = cards[choice.card]?.owner else { return }
            let attempt = AttemptID(from: &ids)
            if policy.logsDecisions, let placement = jobs[choice.job]?.placement {
                actions.append(.decided(decision(choice.job, attempt, to: choice.card, placement, at: now)))
            }
            take(choice, at: now)
            jobs[choice.job]?.isQueued = false
            jobs[choice.job]?.card = choice.card
            write(choice.job, .schedule(gpu: choice.card, attempt: attempt, owner: owner), at: now)
        }
        judgeService(at: now)
        // Releasing and assigning above was this function's own doing.
        needsPlacement = false
    }

    package struct Choice: Equatable, Sendable {
        package let job: JobID
        package let card: GPUID
        /// Of its class, in the queue.
        let number: Int
    }

    /// The first job, over all classes, that has a card; jobs of one class differ in nothing but their place.
    package mutating func nextChoice() -> Choice? {
        let isAnyCard = cards.isAnyAvailable
        while let number = queue.first(anyCard: isAnyCard) {
            guard let placement = queue.placement(of: number) else { return nil }
            guard let place = firstWaiting(of: number, placement) else { continue }
            // Without the places that were dropped, another class may be the first.
            guard queue.first(anyCard: isAnyCard) == number else { continue }
            if let card = bestCard(for: placement, reading: jobs.cacheKeys(of: place.number)) {
                return jobs.id(of: place.number).map { Choice(job: $0, card: card, number: number) }
            }
            queue.close(number)
        }
        return nil
    }

    /// Takes the job out of the queue, and a slot of the card for it.
    package mutating func take(_ choice: Choice, at now: Timestamp) {
        dropFirst(of: choice.number)
        if cards.assign(choice.job, to: choice.card) == 1 { refreshLimit() }
        refreshCards(at: now)
    }

    /// The first place of a class whose job may be bound now; drops those before it.
    private mutating func firstWaiting(of placement: PlacementClass) -> QueuePlace? {
        queue.number(of: placement).flatMap { firstWaiting(of: $0, placement) }
    }

    /// - Parameter number: of the class, in the queue.
    private mutating func firstWaiting(of number: Int, _ placement: PlacementClass) -> QueuePlace? {
        while let place = queue.first(of: number) {
            if jobs.isWaiting(place, in: placement) { return place }
            jobs.drop(place, in: placement)
            dropFirst(of: number)
        }
        return nil
    }

    /// The job no longer waits in its class; its place is left behind.
    mutating func leaveQueue(_ job: Job) {
        guard job.isQueued else { return }
        jobs[job.record.id]?.isQueued = false
        unjudged.append(job.placement)
        needsPlacement = true
    }

    private mutating func dropFirst(of number: Int) {
        if let emptied = queue.removeFirst(of: number) { unplaceable[emptied] = nil }
    }

    /// The card for a class, if one can take a job of it now. What a job reads makes no class of its own, or there would
    /// be as many as files: the cards whose caches have some of it are looked at one by one.
    private func bestCard(for placement: PlacementClass, reading keys: [CacheKey]) -> GPUID? {
        if placement.isFenced, !cards.isEachFencing { return bestFencing(for: placement, reading: keys) }
        if let pin = placement.pin { return cards.isAvailable(pin) ? pin : nil }
        let first = placement.avoid.map { cards.best(avoiding: $0) } ?? cards.best
        guard let first, !keys.isEmpty else { return first }
        var best = (gpu: first, rank: cards.rank(of: first, bonus: cacheBonus(of: first, for: keys)))
        for gpu in keys.reduce(into: Set<GPUID>(), { $0.formUnion(cacheHolders[$1] ?? []) }) {
            // The first one is not the avoided card, unless that is the only one.
            guard gpu != placement.avoid, let rank = cards.rank(of: gpu, bonus: cacheBonus(of: gpu, for: keys)),
                let least = best.rank, rank < least
            else { continue }
            best = (gpu, rank)
        }
        return best.gpu
    }

    /// The same for jobs that are to be fenced, while workers of an older version, which cannot, are there too: each card is
    /// looked at.
    private func bestFencing(for placement: PlacementClass, reading keys: [CacheKey]) -> GPUID? {
        let able = candidates(for: placement).filter { cards[$0]?.canFence == true }
        let isElsewhere = able.contains { $0 != placement.avoid && cards.serves($0) }
        var best: (gpu: GPUID, rank: CardRank)?
        for gpu in able where gpu != placement.avoid || !isElsewhere {
            guard let rank = cards.rank(of: gpu, bonus: cacheBonus(of: gpu, for: keys)) else { continue }
            if best.map({ rank < $0.rank }) ?? true { best = (gpu, rank) }
        }
        return best?.gpu
    }

    /// Brings the order of the cards up to date, and opens the classes that may have found one by that.
    package mutating func refreshCards(at now: Timestamp) {
        let news = cards.refresh(policy: policy, at: now)
        if !news.freed.isEmpty || !news.turned.isEmpty { queue.open(pinnedTo: nil) }
        for gpu in news.freed { queue.open(pinnedTo: gpu) }
        for gpu in news.turned {
            unjudged += [PlacementClass(pin: gpu), PlacementClass(pin: gpu, isFenced: true)]
        }
        if news.isServiceTurned { unjudged += queue.order.filter { $0.pin == nil } }
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
        leaveQueue(job)
        jobs[id]?.placement.avoid = nil
        jobs[id]?.avoidsUntil = nil
        advance(id, at: now)
    }

    /// Jobs of the class are to go elsewhere, and some other card may take them.
    func isAvoided(_ gpu: GPUID, for placement: PlacementClass, at now: Timestamp) -> Bool {
        placement.avoid == gpu && cardOrder.contains { $0 != gpu && mayServe($0, placement, at: now) }
    }

    func mayServe(_ gpu: GPUID, _ placement: PlacementClass, at now: Timestamp) -> Bool {
        guard let card = cards[gpu], !placement.isFenced || card.canFence else { return false }
        return card.objection(policy: policy, at: now)?.isForWantOfRoom ?? true
    }

    // MARK: jobs without a card

    /// Some card may take jobs of the class, now or when it has room again.
    func isServed(_ placement: PlacementClass, at now: Timestamp) -> Bool {
        candidates(for: placement).contains { mayServe($0, placement, at: now) }
    }

    /// No card has room for the classes that are left. If that is because none may be used at all, the records are to say
    /// so before long.
    private mutating func judgeService(at now: Timestamp) {
        for placement in unjudged where firstWaiting(of: placement) != nil {
            if isServedAsOrdered(placement, at: now) {
                if unplaceable.removeValue(forKey: placement) != nil { tellServed(placement, at: now) }
            } else if unplaceable[placement] == nil {
                planTelling(placement, at: now + policy.waitingGrace)
            }
        }
        unjudged.removeAll(keepingCapacity: true)
    }

    /// The same as ``isServed(_:at:)``, mostly without a look at the cards.
    private func isServedAsOrdered(_ placement: PlacementClass, at now: Timestamp) -> Bool {
        if placement.isFenced, !cards.isEachFencing { return isServed(placement, at: now) }
        return placement.pin.map { cards.serves($0) } ?? (cards.servingCount > 0)
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
            guard jobs.isWaiting(place, in: placement), let id = jobs.id(of: place.number),
                jobs[id]?.record.state == .enqueued
            else { continue }
            write(id, .waitForCard(reason: reason), at: now)
        }
        planTelling(placement, at: now + .seconds(30))
    }

    /// Cards are back, though their slots are taken: the records no longer say that there is none.
    private mutating func tellServed(_ placement: PlacementClass, at now: Timestamp) {
        for place in queue.firstPlaces(of: placement, count: Self.toldAtOnce) {
            guard jobs.isWaiting(place, in: placement), let id = jobs.id(of: place.number),
                jobs[id]?.record.state == .waitingGPU
            else { continue }
            write(id, .cardsBack, at: now)
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
