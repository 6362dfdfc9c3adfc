import GPUTelemetry
import JobModel
import WireJSON

/// The device that a worker owns.
protocol WorkerDevice: Sendable {
    /// The fixed facts, for `gpu.worker.up`: at least `kind`, and what is known of `pci`, `card` and the rest.
    var facts: JSONObject { get }
    /// What binds a job to exactly this device.
    var binding: CardBinding { get }
    /// Measures and judges it. What could not be read is left out.
    /// - Parameters:
    ///   - jobs: the processes of the running jobs.
    ///   - maximum: the operator's highest temperature for new jobs.
    func look(at now: Timestamp, jobs: [Int32: JobID], maximum: Double) async -> DeviceReport
    /// Sets its power, and puts back what is not asked for any more.
    /// - Returns: what a person should know and was not told yet.
    func setPower(_ settings: PowerSettings) async -> [String]
    /// Tries whether its driver answers, through handles that are opened anew.
    func probe() async -> DeviceProbe
    /// A probe has succeeded: what was found before is over.
    func recover()
}

/// What one look at a device has come to.
struct DeviceReport: Sendable {
    /// The fields of `gpu.worker.metrics`.
    var metrics: JSONObject
    /// Why it may take no new job; nil: it may.
    var hold: CardHold?
    /// Why what runs on it is spoilt; nil: it is not.
    var fault: String?
    /// It sleeps, and is not to be woken.
    var isAsleep = false
    /// What a person should know, told once.
    var notices: [String] = []
}

/// What a probe of a device has come to.
struct DeviceProbe: Sendable {
    var ok: Bool
    /// What was seen, for a person.
    var evidence: String
}

/// The device of a worker that owns no card: jobs run on the processor, and are told so. Nothing protects it.
struct Processor: WorkerDevice {
    let facts: JSONObject = ["kind": "cpu", "card": "CPU (no GPU)"]
    let binding = CardBinding.processor

    /// A processor's load is not a card's: nothing is claimed that was not read.
    func look(at now: Timestamp, jobs: [Int32: JobID], maximum: Double) async -> DeviceReport {
        DeviceReport(metrics: ["kind": "cpu", "card": "CPU (no GPU)"])
    }

    func setPower(_ settings: PowerSettings) async -> [String] { [] }

    func probe() async -> DeviceProbe { DeviceProbe(ok: true, evidence: "it is a processor") }
    func recover() {}
}
