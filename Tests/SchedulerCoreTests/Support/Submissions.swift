import JobModel
import SchedulerCore
import WireJSON

/// The bytes of a submission that is fine, with the fields that a test cares about.
func task(
    _ id: JobID?,
    shell: String = "true",
    gpu: GPUID? = nil,
    priority: Int? = nil,
    retries: Int? = nil,
    maxWait: Double? = nil,
    submittedAt: Double? = nil,
    partition: PartitionPolicy? = nil,
    submitter: String? = nil
) -> [UInt8] {
    var json = JSONObject([("type", "shell"), ("shell", .string(shell))])
    if let id { json["task_id"] = .string(id.text) }
    if let gpu { json["gpu"] = gpu.json }
    if let priority { json["priority"] = .int(priority) }
    if let retries { json["max_retries"] = .int(retries) }
    if let maxWait { json["max_wait"] = .double(maxWait) }
    if let partition { json["partition"] = .string(partition.rawValue) }
    if let submitter { json["submitter"] = .string(submitter) }
    if let submittedAt { json["submitted_at"] = .double(submittedAt) }
    return JSON.object(json).encoded()
}

/// A stand-in for the digest that a shell computes: equal for equal bytes, and in tests for no others (FNV-1a).
func digest(_ bytes: [UInt8]) -> String {
    let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    return "sha256:" + String(hash, radix: 16)
}

/// The outcome of an attempt whose process ended by itself.
func outcome(exit status: Int = 0, seconds: Double = 10) -> AttemptOutcome {
    AttemptOutcome(
        code: status == 0 ? nil : .exit,
        reason: status == 0 ? "" : "exited with status \(status)",
        returnCode: status,
        duration: .inSeconds(seconds)
    )
}
