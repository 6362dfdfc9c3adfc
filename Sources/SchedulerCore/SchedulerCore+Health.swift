import JobModel
import WireJSON

/// Sick cards: what their workers see, probes, and the way back over probation.
extension SchedulerCore {
    /// Signs of sickness that were sent before a card was cleared may still arrive for this long.
    private static let signDelay = Duration.seconds(2)

    /// Draws the consequences of what a worker sees of its card.
    mutating func heed(_ reading: CardReading, at now: Timestamp) {
        let gpu = reading.gpu
        guard !reading.health.isEmpty, let card = details[gpu] else { return }
        if let from = card.heedsSignsFrom, now < from { return }
        let wanted = card.control.wanted(policy: policy, at: now)
        let grave = reading.health.filter { $0.severity == .quarantine }
        if let first = grave.first {
            guard wanted.quarantine == nil || wanted.quarantine?.kind == .failures else { return }
            let evidence = grave.map(\.evidence).joined(separator: "; ")
            change(gpu, .quarantine(.health, reason: first.reason, evidence: Self.short(evidence)), at: now)
        } else if reading.health.contains(where: { $0.severity == .probation }) {
            guard wanted.quarantine == nil, wanted.probation == nil else { return }
            change(gpu, .watch, at: now)
        }
    }

    /// Longest evidence that is kept, in characters.
    private static let evidenceLimit = 1000

    static func short(_ text: String) -> String { String(text.prefix(evidenceLimit)) }

    // MARK: probes

    /// A card comes back from a quarantine that no person has put it into when a probe succeeds.
    mutating func planFirstProbe(of gpu: GPUID, _ quarantine: CardControl.Quarantine, storedAt: Timestamp) {
        guard quarantine.kind != .operator else { return }
        details[gpu]?.probe.pause = max(quarantine.pause, policy.firstProbe)
        planProbe(of: gpu, at: storedAt + quarantine.pause)
    }

    private mutating func planProbe(of gpu: GPUID, at due: Timestamp) {
        details[gpu]?.probe.due = due
        deadlines.insert(.probe(gpu), at: due)
    }

    /// A probe that is due when nobody can carry it out is asked for as soon as somebody can: the worker is heard, the
    /// replay is over.
    mutating func probeIfDue(_ gpu: GPUID, at now: Timestamp) {
        guard let card = details[gpu], let due = card.probe.due, due <= now, !card.probe.isRunning else { return }
        guard phase == .leading, cards[gpu]?.isAlive == true else { return }
        details[gpu]?.probe.due = nil
        guard let quarantine = card.control.stored.quarantine, quarantine.kind != .operator else { return }
        requestProbe(of: gpu)
    }

    private mutating func requestProbe(of gpu: GPUID) {
        details[gpu]?.probe.isRunning = true
        actions.append(.requestProbe(gpu))
    }

    /// A person has cleared a card that its worker still thinks sick: only a probe takes that back.
    mutating func probeAtOnce(_ gpu: GPUID) {
        guard let card = details[gpu], card.isCalledSick, !card.probe.isRunning, cards[gpu]?.isAlive == true else {
            return
        }
        details[gpu]?.heedsSignsFrom = Timestamp(nanoseconds: .max)
        requestProbe(of: gpu)
    }

    mutating func endProbe(of gpu: GPUID, _ result: ProbeResult, at now: Timestamp) {
        guard let card = details[gpu], card.probe.isRunning else { return }
        details[gpu]?.probe.isRunning = false
        details[gpu]?.probe.evidence = Self.short(result.text)
        details[gpu]?.heedsSignsFrom = now + Self.signDelay
        let isQuarantined = card.control.stored.quarantine.map { $0.kind != .operator } ?? false
        announce(
            "gpu_probed",
            [("gpu_id", gpu.json), ("ok", .bool(result.isGood)), ("evidence", .string(result.text))]
        )
        guard isQuarantined else { return }
        switch result {
        case .works:
            change(gpu, .recover, at: now)
        case .sick:
            let pause = min(card.probe.pause * 2, policy.longestProbePause)
            details[gpu]?.probe.pause = pause
            planProbe(of: gpu, at: now + pause)
        case .notDone:
            planProbe(of: gpu, at: now + card.probe.pause)
        }
    }

    // MARK: probation

    /// A job ended well on a card. Enough of them end its probation.
    mutating func noteSuccess(on gpu: GPUID, at now: Timestamp) {
        guard cards[gpu]?.marks.contains(.probation) == true, let card = details[gpu] else { return }
        details[gpu]?.probationSuccesses += 1
        guard card.probationSuccesses + 1 >= policy.probationJobs, card.control.changes.isEmpty else { return }
        change(gpu, .endProbation, at: now)
    }
}

extension CardDetails {
    /// By its worker's last reading.
    var isCalledSick: Bool {
        guard let reading else { return false }
        return reading.hold?.code == CardHold.Code.unhealthy.rawValue
            || reading.health.contains { $0.severity == .quarantine }
    }
}

extension ProbeResult {
    fileprivate var isGood: Bool {
        if case .works = self { true } else { false }
    }

    fileprivate var text: String {
        switch self {
        case .works(let text), .sick(let text), .notDone(let text): text
        }
    }
}
