import WireJSON

/// What a worker can tell of the device that it owns.
protocol CardProbe: Sendable {
    /// The fixed facts, for `gpu.worker.up`: at least `kind`, and what is known of `pci`, `card` and the rest.
    var facts: JSONObject { get }
    /// One reading, for `gpu.worker.metrics`. What could not be read is left out.
    func sample() -> JSONObject
    /// What binds a job to exactly this device.
    var environment: [(name: String, value: String)] { get }
}

/// The device of a worker that owns no card: jobs run on the processor, and are told so.
struct CPUProbe: CardProbe {
    let facts: JSONObject = ["kind": "cpu", "card": "CPU (no GPU)"]

    /// A processor's load is not a card's: nothing is claimed that was not read.
    func sample() -> JSONObject { ["kind": "cpu", "card": "CPU (no GPU)"] }

    /// CUDA and ROCm see no card; OpenCL on the processor (POCL) sees the processor.
    let environment: [(name: String, value: String)] = [
        ("GPU_VENDOR", "cpu"), ("CUDA_VISIBLE_DEVICES", ""), ("ROCR_VISIBLE_DEVICES", ""), ("POCL_DEVICES", "pthread"),
    ]
}
