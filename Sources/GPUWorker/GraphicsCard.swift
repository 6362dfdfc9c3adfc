import GPUTelemetry
import Synchronization
import WireJSON

/// The graphics card that a worker owns.
final class GraphicsCard: CardProbe {
    let facts: JSONObject
    let binding: CardBinding
    private let card: Card
    private let reader: CardReader
    /// Nil where the kernel's messages cannot be heard.
    private let uevents: UEventSocket?
    private let health: Mutex<Health>

    private struct Health {
        var watch = HealthWatch()
        /// What was found at the last look, so that a lasting state is told once.
        var told: [HealthFinding] = []
    }

    init(_ card: Card) {
        self.card = card
        reader = CardReader(card)
        binding = CardBinding(to: card)
        health = Mutex(Health())
        var facts = card.facts
        facts["kind"] = "gpu"
        self.facts = facts
        do throws(SensorFault) {
            uevents = try UEventSocket()
        } catch {
            uevents = nil
        }
    }

    func sample() async -> CardReport {
        let sample = await reader.sample()
        let (findings, new) = examine(sample)
        var metrics: JSONObject = ["kind": "gpu", "card": .string(card.model)]
        for field in sample.metrics { metrics[field.key] = field.value }
        if !findings.isEmpty { metrics["health"] = .array(findings.map(Self.json)) }
        return CardReport(metrics: metrics, notices: new.map { "card \(card.address): \($0.evidence)" })
    }

    /// - Returns: what is wrong now, and what of that is new.
    private func examine(_ sample: CardSample) -> (all: [HealthFinding], new: [HealthFinding]) {
        let heard = uevents?.take().filter { $0.address == card.address }.compactMap(\.finding) ?? []
        return health.withLock { health in
            let seen = sample.signs.fresh.map { health.watch.examine($0) } ?? []
            let findings = seen + heard
            let new = findings.filter { !health.told.contains($0) }
            health.told = findings
            return (findings, new)
        }
    }

    private static func json(_ finding: HealthFinding) -> JSON {
        [
            "reason": .string(finding.reason.rawValue), "evidence": .string(finding.evidence),
            "severity": .string(finding.severity.rawValue),
        ]
    }
}
