import JobModel
import WireJSON

/// Cordons, drains, quarantines and probations: asked for, stored in the card's control record, put into effect.
///
/// What keeps jobs away from a card holds from the moment it is decided; what lets them come back holds when it is stored.
extension SchedulerCore {
    // MARK: what people ask for

    mutating func take(_ asked: CardRequest, for request: RequestToken, at now: Timestamp) {
        if let refusal = refusal(ofCard: asked.gpu) { return actions.append(.reply(request, refusal)) }
        if let reason = details[asked.gpu]?.control.unreadable {
            let error = "the control record of card \(asked.gpu) is left alone, since it cannot be read: \(reason)"
            return actions.append(.reply(request, Self.refusal("unreadable_record", error)))
        }
        change(asked.gpu, asked.change, for: request, at: now)
        if asked.verb == .clear { probeAtOnce(asked.gpu) }
    }

    /// Why there is no card of that name; nil when there is one.
    func refusal(ofCard gpu: GPUID) -> JSON? {
        guard cards[gpu] == nil else { return nil }
        let namesakes = gpu.number == nil ? [] : cardOrder.filter { $0.text.hasSuffix("-\(gpu)") }
        if !namesakes.isEmpty {
            let names = Self.list(namesakes)
            let error = "card \(gpu) could be any of \(names): name it with its node"
            return Self.refusal("ambiguous_card", error)
        }
        let known = cardOrder.isEmpty ? "no card has been heard of" : "there are \(Self.list(cardOrder))"
        return Self.refusal("unknown_card", "there is no card \(gpu); \(known)")
    }

    static func refusal(_ code: String, _ reason: String) -> JSON {
        ["ok": false, "code": .string(code), "error": .string(reason)]
    }

    /// The first names of a list, and how many more there are.
    private static func list(_ cards: [GPUID]) -> String {
        let shown = cards.prefix(32).map(\.text).joined(separator: ", ")
        return cards.count > 32 ? "\(shown) and \(cards.count - 32) more" : shown
    }

    // MARK: writing

    mutating func change(
        _ gpu: GPUID,
        _ change: ControlChange,
        for request: RequestToken? = nil,
        at now: Timestamp
    ) {
        details[gpu]?.control.changes.append(ControlState.Pending(change: change, request: request))
        refreshMarks(of: gpu, at: now)
        writeControl(of: gpu, at: now)
    }

    /// Begins to store what was decided, unless a write is under way already: the rest follows it.
    mutating func writeControl(of gpu: GPUID, at now: Timestamp) {
        guard phase == .leading, knowsControl, let control = details[gpu]?.control, control.writing == nil,
            control.holdUntil == nil, control.unreadable == nil, !control.changes.isEmpty
        else { return }
        var next = control.wanted(policy: policy, at: now)
        guard next != control.stored else { return settleChanges(of: gpu, count: control.changes.count, at: now) }
        next.op = OperationID(from: &ids)
        if let due = control.drainDue, next.drain == control.stored.drain {
            // The delay counts from the time of the record, which is new now.
            next.drain?.delay = max(.zero, due - now)
        }
        details[gpu]?.control.writing = ControlState.Write(record: next, count: control.changes.count)
        actions.append(.writeControl(next, expected: control.sequence))
    }

    mutating func endControlWrite(_ gpu: GPUID, _ op: OperationID, _ result: ControlResult, at now: Timestamp) {
        guard let control = details[gpu]?.control, let write = control.writing, write.record.op == op else { return }
        details[gpu]?.control.writing = nil
        switch result {
        case .stored(let sequence):
            let revision = ControlRevision(record: write.record, sequence: sequence, storedAt: now)
            adopt(revision, isOurs: true, at: now)
            settleChanges(of: gpu, count: write.count, at: now)
        case .conflict(let current?) where current.sequence > control.sequence:
            adopt(current, isOurs: false, at: now)
        case .conflict(nil):
            let nothing = CardControl(gpu: gpu, op: op)
            adopt(ControlRevision(record: nothing, sequence: 0, storedAt: now), isOurs: false, at: now)
        case .conflict(.some):
            holdControl(of: gpu, "the store answered a write with an older revision", at: now)
        case .refused(let reason):
            holdControl(of: gpu, reason, at: now)
        }
        refreshMarks(of: gpu, at: now)
        writeControl(of: gpu, at: now)
    }

    /// The stream refuses to store: people are told so, and what the leader decided by itself is tried again.
    private mutating func holdControl(of gpu: GPUID, _ reason: String, at now: Timestamp) {
        let changes = details[gpu]?.control.changes ?? []
        details[gpu]?.control.changes = changes.filter { $0.request == nil }
        for request in changes.compactMap(\.request) {
            let error = "nothing was changed, since the stream refuses to store it: \(reason)"
            actions.append(.reply(request, Self.refusal("not_stored", error)))
        }
        details[gpu]?.control.holdUntil = now + .seconds(1)
        deadlines.insert(.control(gpu), at: now + .seconds(1))
        actions.append(.notice("the control record of card \(gpu) was not stored: \(reason)"))
    }

    mutating func resumeControl(of gpu: GPUID, at now: Timestamp) {
        details[gpu]?.control.holdUntil = nil
        writeControl(of: gpu, at: now)
    }

    /// The first changes are stored.
    private mutating func settleChanges(of gpu: GPUID, count: Int, at now: Timestamp) {
        guard let changes = details[gpu]?.control.changes else { return }
        details[gpu]?.control.changes.removeFirst(min(count, changes.count))
        refreshMarks(of: gpu, at: now)
        for request in changes.prefix(count).compactMap(\.request) {
            let answer: [(String, JSON)] = [
                ("ok", true), ("gpu_id", gpu.json), ("state", .string(state(of: gpu, at: now).word)),
            ]
            actions.append(.reply(request, .object(JSONObject(answer))))
        }
    }

    // MARK: what is stored

    /// A revision that the stream delivered.
    mutating func observe(_ revision: ControlRevision, at now: Timestamp) {
        let gpu = revision.record.gpu
        addCard(gpu, at: now)
        guard let control = details[gpu]?.control else { return }
        if let write = control.writing, write.record.op == revision.record.op {
            return endControlWrite(gpu, write.record.op, .stored(sequence: revision.sequence), at: now)
        }
        guard revision.sequence > control.sequence else { return }
        adopt(revision, isOurs: false, at: now)
        refreshMarks(of: gpu, at: now)
    }

    mutating func noteUnreadable(_ gpu: GPUID, _ sequence: UInt64, _ reason: String, at now: Timestamp) {
        addCard(gpu, at: now)
        details[gpu]?.control.unreadable = reason
        details[gpu]?.control.sequence = sequence
        actions.append(.notice("card \(gpu) gets no job, since its control record cannot be read: \(reason)"))
        refreshMarks(of: gpu, at: now)
    }

    private mutating func adopt(_ revision: ControlRevision, isOurs: Bool, at now: Timestamp) {
        let gpu = revision.record.gpu
        guard let before = details[gpu]?.control.stored else { return }
        let after = revision.record
        details[gpu]?.control.stored = after
        details[gpu]?.control.sequence = revision.sequence
        details[gpu]?.control.storedAt = revision.storedAt
        details[gpu]?.control.unreadable = nil
        planDrain(of: gpu, after.drain, storedAt: revision.storedAt)
        if let quarantine = after.quarantine, before.quarantine?.kind != quarantine.kind {
            planFirstProbe(of: gpu, quarantine, storedAt: revision.storedAt)
        }
        // What spoke against the card is settled by that.
        if (after.quarantine == nil) != (before.quarantine == nil) { failures.forget(gpu) }
        if after.probation != nil, before.probation == nil { details[gpu]?.probationSuccesses = 0 }
        if isOurs { tell(gpu, from: before, to: after) }
    }

    private mutating func tell(_ gpu: GPUID, from before: CardControl, to after: CardControl) {
        let card: [(String, JSON)] = [("gpu_id", gpu.json)]
        if let drain = after.drain, before.drain != drain {
            announce("gpu_draining", card + [("reason", .string(drain.reason))])
        } else if let cordon = after.cordon, before.cordon != cordon {
            announce("gpu_cordoned", card + [("reason", .string(cordon.reason))])
        } else if after.cordon == nil, before.cordon != nil {
            announce("gpu_uncordoned", card)
        }
        if let quarantine = after.quarantine, before.quarantine != quarantine {
            let why: [(String, JSON)] = [
                ("kind", .string(quarantine.kind.rawValue)), ("reason", .string(quarantine.reason)),
                ("evidence", .string(quarantine.evidence)),
            ]
            announce("gpu_quarantined", card + why)
        } else if after.quarantine == nil, before.quarantine != nil, after.probation == nil {
            announce("gpu_cleared", card)
        } else if after.probation != nil, before.probation == nil {
            announce("gpu_probation", card)
        } else if after.probation == nil, before.probation != nil, after.quarantine == nil {
            announce("gpu_recovered", card)
        }
    }

    // MARK: effect

    /// Brings the marks of a card in step with its control record, as it is and as it is about to be.
    mutating func refreshMarks(of gpu: GPUID, at now: Timestamp) {
        guard let control = details[gpu]?.control, let before = cards[gpu]?.marks else { return }
        let wanted = control.wanted(policy: policy, at: now)
        let both = [control.stored, wanted]
        cards[gpu]?.mark(.cordoned, control.unreadable != nil || both.contains { $0.cordon != nil || $0.drain != nil })
        cards[gpu]?.mark(.quarantined, both.contains { $0.quarantine != nil })
        cards[gpu]?.mark(.probation, both.contains { $0.probation != nil })
        guard cards[gpu]?.marks != before else { return }
        needsPlacement = true
        noteState(of: gpu, at: now)
        takeBackUnclaimed(from: gpu, at: now)
    }

    /// What a card may not take any more and has not claimed goes back to the queue at once.
    mutating func takeBackUnclaimed(from gpu: GPUID, at now: Timestamp) {
        guard let card = cards[gpu], !card.assigned.isEmpty, let reason = refusalOfWork(card, at: now) else { return }
        for id in card.assigned.sorted() {
            guard let record = jobs[id]?.record, record.gpu == gpu, let attempt = record.attempt else { continue }
            closeUnclaimed(id, attempt, reason, at: now)
        }
    }

    /// Why not even an attempt that is bound to the card may begin there, for a person; nil if it may.
    func refusalOfWork(_ card: Card, at now: Timestamp) -> String? {
        guard let objection = card.objection(policy: policy, at: now), objection.takesBack else { return nil }
        return "taken back from card \(card.id), which is \(reason(for: objection, against: card, at: now))"
    }

    // MARK: drain

    private mutating func planDrain(of gpu: GPUID, _ drain: CardControl.Drain?, storedAt: Timestamp) {
        let due = drain?.delay.map { storedAt + $0 }
        guard due != details[gpu]?.control.drainDue else { return }
        details[gpu]?.control.drainDue = due
        if let due { deadlines.insert(.drain(gpu), at: due) }
    }

    /// The time of a drain has come: its worker is asked to give back what still runs, again with each heartbeat.
    mutating func evictIfDue(_ gpu: GPUID, at now: Timestamp) {
        guard phase == .leading, let card = cards[gpu], let control = details[gpu]?.control,
            let drain = control.stored.drain, let due = control.drainDue, due <= now
        else { return }
        for id in card.assigned.sorted() {
            guard let job = jobs[id], job.pending == nil, job.record.state == .running, job.record.gpu == gpu,
                !job.record.cancelRequested, let attempt = job.record.attempt
            else { continue }
            let reason = "card \(gpu) is drained" + (drain.reason.isEmpty ? "" : ": \(drain.reason)")
            actions.append(.requestEvict(gpu, id, attempt, .drained, reason: reason))
        }
    }
}

extension CardRequest {
    fileprivate var change: ControlChange {
        switch verb {
        case .cordon: .cordon(reason: reason)
        case .uncordon: .uncordon
        case .drain: .drain(reason: reason, delay: delay)
        case .quarantine: .quarantine(.operator, reason: reason, evidence: "")
        case .clear: .clear
        }
    }
}
