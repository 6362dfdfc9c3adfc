import GPUTelemetry
import WireJSON

/// What a worker can tell of the device that it owns.
protocol CardProbe: Sendable {
    /// The fixed facts, for `gpu.worker.up`: at least `kind`, and what is known of `pci`, `card` and the rest.
    var facts: JSONObject { get }
    /// One reading, for `gpu.worker.metrics`. What could not be read is left out.
    func sample() async -> CardReport
    /// What binds a job to exactly this device.
    var binding: CardBinding { get }
}

/// What a worker tells of its device at one time.
struct CardReport: Sendable {
    /// The fields of `gpu.worker.metrics`.
    var metrics: JSONObject
    /// What a person should know, told once.
    var notices: [String] = []
}

/// The device of a worker that owns no card: jobs run on the processor, and are told so.
struct CPUProbe: CardProbe {
    let facts: JSONObject = ["kind": "cpu", "card": "CPU (no GPU)"]

    /// A processor's load is not a card's: nothing is claimed that was not read.
    func sample() async -> CardReport { CardReport(metrics: ["kind": "cpu", "card": "CPU (no GPU)"]) }

    let binding = CardBinding.processor
}
