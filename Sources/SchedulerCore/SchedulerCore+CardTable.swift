import JobModel
import WireJSON

/// What is told of the cards: to people, and to placements that cannot be made.
extension SchedulerCore {
    // MARK: state

    /// The word for a card's state, which `gpus` shows, and why it gets no job; empty when it may.
    func state(of gpu: GPUID, at now: Timestamp) -> (word: String, reason: String) {
        guard let card = cards[gpu] else { return ("gone", "its worker has not been heard of") }
        guard let objection = card.objection(policy: policy, at: now) else { return ("up", "") }
        let reason = reason(for: objection, against: card, at: now)
        return (String(reason.prefix { $0 != ":" }), reason)
    }

    /// An objection in words, of which the first, up to the colon, is the card's state.
    func reason(for objection: Objection, against card: Card, at now: Timestamp) -> String {
        let details = details[card.id]
        let control = details?.control
        switch objection {
        case .gone where card.owner == nil: return "gone: it has no worker"
        case .gone: return "gone: its worker was not heard of within \(policy.heartbeatTTL.inSeconds) s"
        case .stopping: return "draining: its worker is about to stop"
        case .quarantined: return "quarantined: " + quarantineText(control, at: now)
        case .cordoned: return cordonText(control, card, at: now)
        case .held:
            let hold = details?.reading?.hold
            return "\(hold?.code ?? "held"): \(hold?.reason ?? "its worker takes no job")"
        case .hot: return hotText(card, details?.reading)
        case .busy:
            return "busy: \(card.busyPercent ?? 0) % without a job of ours; the limit is \(policy.maxBusyPercent) %"
        case .limited: return limitText
        case .probation: return "probation: one job at a time until it has shown that it works, and it has one"
        }
    }

    private func quarantineText(_ control: ControlState?, at now: Timestamp) -> String {
        let wanted = control?.wanted(policy: policy, at: now)
        guard let quarantine = control?.stored.quarantine ?? wanted?.quarantine else { return "it is being cleared" }
        return [quarantine.reason, quarantine.evidence].filter { !$0.isEmpty }.joined(separator: ", ")
    }

    private func cordonText(_ control: ControlState?, _ card: Card, at now: Timestamp) -> String {
        if let unreadable = control?.unreadable { return "cordoned: its control record cannot be read: \(unreadable)" }
        let stored = control?.stored
        let wanted = control?.wanted(policy: policy, at: now)
        let left = card.assigned.count
        if let drain = stored?.drain ?? wanted?.drain, left > 0 {
            return "draining: " + (drain.reason.isEmpty ? "" : "\(drain.reason); ")
                + (left == 1 ? "one job is left" : "\(left) jobs are left")
        }
        let reason = (stored?.cordon ?? wanted?.cordon)?.reason ?? ""
        return "cordoned: " + (reason.isEmpty ? "no reason was given" : reason)
    }

    private func hotText(_ card: Card, _ reading: CardReading?) -> String {
        let limit = reading.map { policy.temperatureLimit(of: $0) } ?? policy.maxTemperature
        let temperature = card.temperature.map { "\($0) C" } ?? "its temperature is not known now"
        return "hot: \(temperature); the limit is \(limit) C, and it must cool down to \(limit - policy.coolDown) C"
    }

    /// Keeps the time since when a card is in its state.
    mutating func noteState(of gpu: GPUID, at now: Timestamp) {
        let word = state(of: gpu, at: now).word
        guard let card = details[gpu], card.state != word else { return }
        details[gpu]?.state = word
        details[gpu]?.stateSince = now
    }

    // MARK: answers

    mutating func cardTable(at now: Timestamp) -> JSON {
        for gpu in cardOrder { noteState(of: gpu, at: now) }
        return ["ok": true, "gpus": .array(cardOrder.map { .object(row(of: $0, at: now)) })]
    }

    mutating func tellCard(_ gpu: GPUID, to request: RequestToken, at now: Timestamp) {
        if let refusal = refusal(ofCard: gpu) { return actions.append(.reply(request, refusal)) }
        noteState(of: gpu, at: now)
        var answer = row(of: gpu, at: now)
        answer["history"] = .array(details[gpu]?.history.inOrder.map { $0.json(at: now) } ?? [])
        answer["ok"] = true
        actions.append(.reply(request, .object(answer)))
    }

    private func row(of gpu: GPUID, at now: Timestamp) -> JSONObject {
        guard let card = cards[gpu], let details = details[gpu] else { return JSONObject() }
        let state = state(of: gpu, at: now)
        var row = JSONObject([
            ("gpu_id", gpu.json), ("state", .string(state.word)), ("reason", .string(state.reason)),
            ("state_age", .double((now - details.stateSince).inSeconds)), ("slots", .int(card.slots)),
            ("running", .array(card.assigned.sorted().map { .string($0.text) })),
            ("score", .double(card.score(policy: policy, at: now))),
            ("heartbeat_age", .double((now - card.lastHeard).inSeconds)),
        ])
        row["incarnation"] = card.owner.map { .string($0.text) }
        row["busy_percent"] = card.busyPercent.map { .double($0) }
        row["temp_c"] = card.temperature.map { .double($0) }
        // Before the first reading the registration tells what card it is.
        row["pci"] = details.facts["pci"]
        row["model"] = details.facts["card"]
        row["metrics_age"] = card.readAt.map { .double((now - $0).inSeconds) }
        if let reading = details.reading { add(reading, to: &row) }
        row["cache"] = details.cache?.summary
        add(details, to: &row, at: now)
        return row
    }

    private func add(_ reading: CardReading, to row: inout JSONObject) {
        row["temp_limit_c"] = .double(policy.temperatureLimit(of: reading))
        if let pci = reading.pci { row["pci"] = .string(pci) }
        if let model = reading.model { row["model"] = .string(model) }
        let numbers: [(String, Double?)] = [
            ("power_w", reading.power), ("power_cap_w", reading.powerCap), ("vram_used_bytes", reading.vramUsedBytes),
            ("vram_total_bytes", reading.vramTotalBytes),
        ]
        for (key, value) in numbers { row[key] = value.map { .double($0) } }
        row["hold"] = reading.hold?.json
        if !reading.health.isEmpty { row["health"] = .array(reading.health.map(\.json)) }
    }

    private func add(_ details: CardDetails, to row: inout JSONObject, at now: Timestamp) {
        let control = details.control.stored
        row["cordon"] = control.cordon?.json
        row["probation"] = control.probation?.json
        if var drain = control.drain?.json.objectValue {
            drain["due_in"] = details.control.drainDue.map { .double(max(0, ($0 - now).inSeconds)) }
            row["drain"] = .object(drain)
        }
        guard var quarantine = control.quarantine?.json.objectValue else { return }
        quarantine["probe_in"] = details.probe.due.map { .double(max(0, ($0 - now).inSeconds)) }
        quarantine["probe_evidence"] = details.probe.evidence.map { .string($0) }
        row["quarantine"] = .object(quarantine)
    }
}

extension CardHistory.Sample {
    fileprivate func json(at now: Timestamp) -> JSON {
        var object = JSONObject([("age", .double((now - time).inSeconds))])
        object["temp_c"] = temperature.map { .double($0) }
        object["busy_percent"] = busyPercent.map { .double($0) }
        object["power_w"] = power.map { .double($0) }
        return .object(object)
    }
}
