import JobModel

/// One step of a card's control record.
enum ControlChange: Sendable, Equatable {
    case cordon(reason: String)
    case uncordon
    /// - delay: until running attempts are taken from the card; nil waits for their ends.
    case drain(reason: String, delay: Duration?)
    case quarantine(CardControl.Quarantine.Kind, reason: String, evidence: String)
    /// A person takes quarantine and probation back.
    case clear
    /// A sign of sickness that leaves the card usable.
    case watch
    /// A probe succeeded: from quarantine to probation.
    case recover
    /// The card has shown that it works.
    case endProbation

    func apply(to control: inout CardControl, policy: SchedulerPolicy, at now: Timestamp) {
        switch self {
        case .cordon(let reason):
            control.cordon = CardControl.Cordon(reason: reason, since: control.cordon?.since ?? now.seconds)
        case .uncordon:
            control.cordon = nil
            control.drain = nil
        case .drain(let reason, let delay):
            control.cordon = control.cordon ?? CardControl.Cordon(reason: reason, since: now.seconds)
            let deadline = delay.map { (now + $0).seconds }
            control.drain = CardControl.Drain(reason: reason, delay: delay, deadline: deadline)
        case .quarantine(let kind, let reason, let evidence):
            Self.quarantine(&control, kind, reason, evidence, policy: policy, at: now)
        case .clear:
            control.quarantine = nil
            control.probation = nil
        case .watch:
            guard control.quarantine == nil, control.probation == nil else { return }
            control.probation = CardControl.Probation(since: now.seconds, strikes: 0)
        case .recover:
            guard let quarantine = control.quarantine, quarantine.kind != .operator else { return }
            control.quarantine = nil
            control.probation = CardControl.Probation(since: now.seconds, strikes: quarantine.strikes)
        case .endProbation:
            control.probation = nil
        }
    }

    /// A person's word stands above everything; a sign of sickness above failures, which are counted against a limit.
    private static func quarantine(
        _ control: inout CardControl,
        _ kind: CardControl.Quarantine.Kind,
        _ reason: String,
        _ evidence: String,
        policy: SchedulerPolicy,
        at now: Timestamp
    ) {
        let before = control.quarantine
        if let before {
            switch (before.kind, kind) {
            case (_, .operator), (.failures, .health): break
            case (.operator, _), (.health, _), (.failures, .failures): return
            }
        }
        let strikes = before?.strikes ?? (control.probation?.strikes ?? 0) + 1
        control.quarantine = CardControl.Quarantine(
            kind: kind,
            reason: reason,
            evidence: evidence,
            since: before?.since ?? now.seconds,
            strikes: strikes,
            pause: policy.probePause(strikes: strikes)
        )
        control.probation = nil
    }
}
