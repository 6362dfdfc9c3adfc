import WireJSON

/// A piece of a job's output on `gpu.task.log.<task_id>`.
package struct LogChunk: Sendable, Equatable {
    package enum Stream: String, Sendable, CaseIterable {
        case standardOutput = "stdout"
        case standardError = "stderr"
    }

    package var job: JobID
    package var attempt: AttemptID
    package var stream: Stream
    /// Where this piece begins in the stream, in bytes.
    package var offset: UInt64
    /// Bytes before `offset` that were left out, because the bus could not keep up or the limit was reached.
    package var skippedBytes: UInt64
    package var text: String
    /// No more of this stream follows in this attempt.
    package var isLast: Bool
    /// Seconds since 1970.
    package var time: Double

    package init(
        job: JobID,
        attempt: AttemptID,
        stream: Stream,
        offset: UInt64,
        skippedBytes: UInt64 = 0,
        text: String,
        isLast: Bool = false,
        time: Double
    ) {
        self.job = job
        self.attempt = attempt
        self.stream = stream
        self.offset = offset
        self.skippedBytes = skippedBytes
        self.text = text
        self.isLast = isLast
        self.time = time
    }

    package func encoded() -> [UInt8] {
        var writer = JSONWriter(capacity: 192 + text.utf8.count)
        writer.beginObject()
        writer.field("task_id", job.text)
        writer.field("attempt_id", attempt.text)
        writer.field("stream", stream.rawValue)
        writer.field("offset", offset)
        if skippedBytes > 0 { writer.field("skipped_bytes", skippedBytes) }
        writer.field("text", text)
        if isLast { writer.field("last", true) }
        writer.field("ts", time)
        writer.endObject()
        return writer.bytes
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let json: JSON
        do {
            json = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("log chunk", error.description)
        }
        try FormatVersion.check(json["v"], in: "log chunk")
        guard let job = json["task_id"]?.stringValue.flatMap({ JobID($0) }),
            let attempt = json["attempt_id"]?.stringValue.flatMap({ AttemptID($0) }),
            let stream = json["stream"]?.stringValue.flatMap(Stream.init(rawValue:)),
            let offset = json["offset"]?.unsignedValue,
            let text = json["text"]?.stringValue
        else { throw MalformedMessage("log chunk", "task_id, attempt_id, stream, offset or text is missing") }
        self.init(
            job: job,
            attempt: attempt,
            stream: stream,
            offset: offset,
            skippedBytes: json["skipped_bytes"]?.unsignedValue ?? 0,
            text: text,
            isLast: json["last"]?.boolValue ?? false,
            time: json["ts"]?.doubleValue ?? 0
        )
    }
}
