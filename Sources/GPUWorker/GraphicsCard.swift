import GPUTelemetry
import JobModel
import Synchronization
import TaskRunner
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
    /// The width of the link that was last given to the memory; 0 for none.
    private let lastLinkBaseline: Atomic<Int>
    /// COOL_SEC
    private let coolFor: Duration
    private let memory: SharedCardMemory
    private let power: CardPower
    private let work = BlockingWork(label: "gpu-worker.card")

    init(_ card: Card, memory: CardMemory, allowsUnknownTemperature: Bool, coolFor: Duration) {
        self.card = card
        self.coolFor = coolFor
        self.memory = SharedCardMemory(memory)
        lastLinkBaseline = Atomic(memory.linkBaseline ?? 0)
        power = CardPower(PowerControl(card), memory: self.memory)
        keeper = Mutex(
            CardGuard(
                limits: ThermalLimits(of: card, maximum: ThermalLimits.assumedHardware, coolFor: coolFor),
                allowsUnknownTemperature: allowsUnknownTemperature,
                linkBaseline: memory.linkBaseline
            )
        )
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

    func look(at now: Timestamp, jobs: [Int32: JobID], maximum: Double) async -> DeviceReport {
        let sample = await reader.sample(processes: jobs.keys.sorted())
        let heard = uevents?.take().filter { $0.address == card.address }.compactMap(\.finding) ?? []
        let (judgement, linkBaseline) = keeper.withLock { keeper in
            keeper.setLimits(ThermalLimits(of: card, maximum: maximum, coolFor: coolFor))
            return (keeper.judge(sample, heard: heard, at: now), keeper.linkBaseline)
        }
        var metrics: JSONObject = ["kind": "gpu", "card": .string(card.model)]
        for field in sample.metrics(jobs: jobs) { metrics[field.key] = field.value }
        metrics["temp_limit_c"] = .double(judgement.temperatureLimit)
        metrics["hold"] = judgement.hold?.json
        if !judgement.findings.isEmpty { metrics["health"] = .array(judgement.findings.map(Self.json)) }
        return DeviceReport(
            metrics: metrics,
            hold: judgement.hold,
            fault: judgement.fault?.evidence,
            isAsleep: sample.isAsleep,
            notices: judgement.new.map { "card \(card.address): \($0.evidence)" } + (await keep(linkBaseline))
        )
    }

    /// Brings a new width of the link to the disk; one that cannot be brought there is told once.
    private func keep(_ linkBaseline: Int?) async -> [String] {
        guard lastLinkBaseline.exchange(linkBaseline ?? 0, ordering: .relaxed) != linkBaseline ?? 0 else { return [] }
        return await work.run { [memory] in
            do throws(TaskRunnerError) {
                try memory.keep(linkBaseline: linkBaseline)
                return []
            } catch {
                return ["the width of the card's link is not remembered: \(error)"]
            }
        }
    }

    func setPower(_ settings: PowerSettings) async -> [String] {
        await work.run { [power] in power.apply(settings) }
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

    func recover() {
        keeper.withLock { $0.recover() }
        power.doubt()
    }

    private static func json(_ finding: HealthFinding) -> JSON {
        [
            "reason": .string(finding.reason.rawValue), "evidence": .string(finding.evidence),
            "severity": .string(finding.severity.rawValue),
        ]
    }
}

extension ThermalLimits {
    fileprivate init(of card: Card, maximum: Double, coolFor: Duration) {
        self.init(hardware: card.temperatureLimits.critical, maximum: maximum, coolFor: coolFor)
    }
}
