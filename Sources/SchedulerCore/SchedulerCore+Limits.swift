import JobModel
import WireJSON

/// How many cards may work at this time of the day, and how long a card that is gone is remembered.
extension SchedulerCore {
    // MARK: day and night

    /// Cards that may work at once; nil for all.
    private var cardsAllowed: Int? {
        let most = dayPhase == .day ? policy.dayMaxCards : policy.nightMaxCards
        return most > 0 ? most : nil
    }

    var limitText: String {
        let key = dayPhase == .day ? "DAY_MAX_CARDS" : "NIGHT_MAX_CARDS"
        return "\(dayPhase.rawValue): as many cards work as \(key) allows (\(cardsAllowed ?? 0))"
    }

    mutating func begin(_ phase: DayPhase) {
        guard phase != dayPhase else { return }
        dayPhase = phase
        refreshLimit()
        announce("phase", [("phase", .string(phase.rawValue))])
    }

    /// At the limit only cards that work already get jobs; above it, after a change of the phase, only the first of them.
    mutating func refreshLimit() {
        guard cardsAllowed != nil || isLimited else { return }
        let most = cardsAllowed ?? .max
        isLimited = cardsAllowed != nil
        let total = cards.values.count { !$0.assigned.isEmpty }
        var working = 0
        for gpu in cardOrder {
            guard let card = cards[gpu] else { continue }
            if !card.assigned.isEmpty { working += 1 }
            let isOver = card.assigned.isEmpty ? total >= most : working > most
            guard isOver != card.isOverLimit else { continue }
            cards[gpu]?.isOverLimit = isOver
            if !isOver { needsPlacement = true }
        }
    }

    // MARK: forgetting

    /// Sets the deadline by which a card that is gone leaves the tables.
    mutating func planForgetting(of gpu: GPUID) {
        guard let card = details[gpu], !card.isForgettingPlanned else { return }
        details[gpu]?.isForgettingPlanned = true
        deadlines.insert(.forget(gpu), at: card.seenAt + policy.cardForget)
    }

    mutating func forgetIfDue(_ gpu: GPUID, at now: Timestamp) {
        guard let card = cards[gpu], let known = details[gpu] else { return }
        details[gpu]?.isForgettingPlanned = false
        // One that lives is planned for again when it goes.
        guard !card.isAlive else { return }
        guard now - known.seenAt >= policy.cardForget else { return planForgetting(of: gpu) }
        let isNeeded = !card.assigned.isEmpty || !known.control.isIdle
        guard !isNeeded else {
            details[gpu]?.isForgettingPlanned = true
            return deadlines.insert(.forget(gpu), at: now + max(policy.cardForget, .seconds(60)))
        }
        forgetCache(of: gpu)
        cards[gpu] = nil
        details[gpu] = nil
        failures.forget(gpu)
        forgotten[gpu] = card.owner
        refreshLimit()
        announce("gpu_forgotten", [("gpu_id", gpu.json)])
    }

    /// A card that was forgotten is heard of again.
    mutating func remember(_ heartbeat: Heartbeat, at now: Timestamp) {
        let gpu = heartbeat.gpu
        guard let owner = forgotten[gpu], owner == heartbeat.incarnation else { return }
        addCard(gpu, at: now)
        cards[gpu]?.owner = owner
    }
}

extension ControlState {
    /// Nothing is decided about the card.
    fileprivate var isIdle: Bool { stored.isEmpty && changes.isEmpty && unreadable == nil }
}
