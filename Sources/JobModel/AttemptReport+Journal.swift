import WireJSON

/// The report as a worker keeps it on disk, so that its next life can tell what this one could not.
extension AttemptReport {
    package func journalDocument() -> [UInt8] {
        var writer = JSONWriter(capacity: 512 + standardOutput.text.utf8.count + standardError.text.utf8.count)
        writer.beginObject()
        writeFields(to: &writer)
        writer.field("ran", ran)
        writer.field("stdout_total", standardOutput.totalBytes)
        writer.field("stderr_total", standardError.totalBytes)
        writer.key("outcome")
        outcome.write(to: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// Reads what ``journalDocument()`` wrote.
    package init(journal json: JSON) throws(MalformedMessage) {
        func missing(_ field: String) -> MalformedMessage {
            MalformedMessage("report of an attempt", "\(field) is missing")
        }
        guard let job = json["task_id"]?.stringValue.flatMap({ JobID($0) }) else { throw missing("task_id") }
        guard let gpu = json["gpu_id"].flatMap({ GPUID($0) }) else { throw missing("gpu_id") }
        guard let attempt = json["attempt_id"]?.stringValue.flatMap({ AttemptID($0) }) else {
            throw missing("attempt_id")
        }
        guard let tries = json["tries"]?.intValue.flatMap({ Int(exactly: $0) }) else { throw missing("tries") }
        guard let outcome = json["outcome"], case .object = outcome else { throw missing("outcome") }
        func output(_ name: String) -> Output {
            Output(
                text: json[name]?.stringValue ?? "",
                totalBytes: json["\(name)_total"]?.unsignedValue ?? 0,
                isTruncated: json["\(name)_truncated"]?.boolValue ?? false,
                isBinary: json["\(name)_binary"]?.boolValue ?? false
            )
        }
        self.init(
            job: job,
            gpu: gpu,
            attempt: attempt,
            tries: tries,
            ran: json["ran"]?.boolValue ?? false,
            outcome: AttemptOutcome(outcome),
            standardOutput: output("stdout"),
            standardError: output("stderr"),
            workingDirectory: json["cwd"]?.stringValue ?? "",
            type: json["type"]?.stringValue ?? "",
            time: json["ts"]?.doubleValue ?? 0,
            userTime: json["user_sec"]?.doubleValue.map { .inSeconds($0) },
            systemTime: json["system_sec"]?.doubleValue.map { .inSeconds($0) },
            peakMemoryBytes: json["peak_memory_bytes"]?.unsignedValue
        )
    }
}
