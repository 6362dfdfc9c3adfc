import GPUTelemetry
import JobModel
import Synchronization
import WireJSON

/// The graphics card that a worker owns.
final class GraphicsCard: WorkerDevice {
    let facts: JSONObject
    let binding: CardBinding
    private let card: Card
    private let reader: CardReader
    /// Nil where the kernel's messages cannot be heard.
    private let uevents: UEventSocket?
    private let keeper: Mutex<CardGuard>
    private let work = BlockingWork(label: "gpu-worker.probe")

    init(_ card: Card, _ keeper: CardGuard) {
        self.card = card
        self.keeper = Mutex(keeper)
        reader = CardReader(card)
        binding = CardBinding(to: card)
        var facts = card.facts
        facts["kind"] = "gpu"
        self.facts = facts
        do throws(SensorFault) {
            uevents = try UEventSocket()
        } catch {
            uevents = nil
        }
    }

    func look(at now: Timestamp, jobs: [Int32: JobID]) async -> DeviceReport {
        let sample = await reader.sample(processes: jobs.keys.sorted())
        let heard = uevents?.take().filter { $0.address == card.address }.compactMap(\.finding) ?? []
        let judgement = keeper.withLock { $0.judge(sample, heard: heard, at: now) }
        var metrics: JSONObject = ["kind": "gpu", "card": .string(card.model)]
        for field in sample.metrics(jobs: jobs) { metrics[field.key] = field.value }
        metrics["temp_limit_c"] = .double(judgement.temperatureLimit)
        metrics["hold"] = judgement.hold?.json
        if !judgement.findings.isEmpty { metrics["health"] = .array(judgement.findings.map(Self.json)) }
        return DeviceReport(
            metrics: metrics,
            hold: judgement.hold,
            fault: judgement.fault?.evidence,
            notices: judgement.new.map { "card \(card.address): \($0.evidence)" }
        )
    }

    func probe() async -> DeviceProbe {
        let answer = await work.run { [reader] () -> Result<CardSigns, SensorFault> in
            do throws(SensorFault) {
                return .success(try reader.probe())
            } catch {
                return .failure(error)
            }
        }
        switch answer {
        case .failure(let fault): return DeviceProbe(ok: false, evidence: "its driver cannot be opened: \(fault)")
        case .success(let signs):
            let finding = keeper.withLock { $0.examineProbe(signs) }
            return DeviceProbe(ok: finding == nil, evidence: finding?.evidence ?? "its driver answers")
        }
    }

    func recover() { keeper.withLock { $0.recover() } }

    private static func json(_ finding: HealthFinding) -> JSON {
        [
            "reason": .string(finding.reason.rawValue), "evidence": .string(finding.evidence),
            "severity": .string(finding.severity.rawValue),
        ]
    }
}
