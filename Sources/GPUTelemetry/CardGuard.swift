import JobModel

/// Protects one card: judges by its samples whether it may take jobs, and whether what runs on it must end.
package struct CardGuard: Sendable {
    private var thermal: ThermalPolicy
    private var watch: HealthWatch
    /// The sign of sickness that keeps the card from being used until a probe has succeeded.
    private var sickness: HealthFinding?
    /// What was found at the last look, so that a lasting state is told once.
    private var told: [HealthFinding] = []

    /// What one look at the card has come to.
    package struct Judgement: Sendable, Equatable {
        /// Why it may take no new job; nil: it may.
        package let hold: CardHold?
        /// A fault that spoils what runs, once for each; the card may be used again.
        package let fault: HealthFinding?
        /// Everything that is wrong, and the sickness that no probe has cleared yet.
        package let findings: [HealthFinding]
        /// What of that was not so at the last look.
        package let new: [HealthFinding]
        /// Degrees Celsius: at this the card takes no new job.
        package let temperatureLimit: Double
    }

    /// - Parameter linkBaseline: see ``HealthWatch/linkBaseline``.
    package init(limits: ThermalLimits, allowsUnknownTemperature: Bool, linkBaseline: Int?) {
        thermal = ThermalPolicy(limits: limits, allowsUnknown: allowsUnknownTemperature)
        watch = HealthWatch(linkBaseline: linkBaseline)
    }

    package var linkBaseline: Int? { watch.linkBaseline }

    /// Other limits from now on, as at nightfall. A card that was too hot by the old ones has to cool down by the new.
    package mutating func setLimits(_ limits: ThermalLimits) { thermal.limits = limits }

    /// - Parameter heard: what the kernel has said of the card since the last look.
    package mutating func judge(_ sample: CardSample, heard: [HealthFinding], at now: Timestamp) -> Judgement {
        let verdict =
            sample.isAsleep ? thermal.observeSleep(at: now) : thermal.observe(sample.temperature.fresh, at: now)
        var findings = sample.signs.fresh.map { watch.examine($0) } ?? []
        findings += heard
        if sickness == nil { sickness = findings.first { $0.severity == .quarantine } }
        if let sickness, !findings.contains(sickness) { findings.append(sickness) }
        let new = findings.filter { !told.contains($0) }
        told = findings
        return Judgement(
            hold: hold(verdict),
            fault: new.first { $0.severity == .probation },
            findings: findings,
            new: new,
            temperatureLimit: thermal.limits.stopPlacing
        )
    }

    private func hold(_ verdict: ThermalPolicy.Verdict) -> CardHold? {
        if let sickness { return CardHold(.unhealthy, reason: sickness.evidence) }
        switch verdict {
        case .place: return nil
        case .hold(let reason), .endJob(let reason): return CardHold(reason.holdCode, reason: reason.description)
        }
    }

    /// Looks at the signs that a probe has seen.
    /// - Returns: what is still wrong with the card; nil when nothing is that keeps it from being used.
    package mutating func examineProbe(_ signs: CardSigns) -> HealthFinding? {
        watch.examine(signs).first { $0.severity == .quarantine }
    }

    /// A probe has succeeded: what was found before is over.
    package mutating func recover() {
        sickness = nil
        watch.accept()
    }
}

extension ThermalPolicy.Reason {
    fileprivate var holdCode: CardHold.Code {
        switch self {
        case .hot: .hot
        case .cooling: .cooling
        case .unknown: .sensor
        case .overheated: .overheated
        }
    }
}
