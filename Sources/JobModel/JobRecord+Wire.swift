import WireJSON

/// A message that is not what its subject promises.
package struct MalformedMessage: Error, Equatable, CustomStringConvertible {
    /// What the message should have been: "record", "run message", ….
    package let expected: String
    package let reason: String

    package init(_ expected: String, _ reason: String) {
        self.expected = expected
        self.reason = reason
    }

    package var description: String { "not a \(expected): \(reason)" }
}

extension JobRecord {
    /// The record as it is stored.
    package func encoded() -> [UInt8] {
        var writer = JSONWriter(capacity: 512 + submission.count)
        writer.beginObject()
        writer.field("v", FormatVersion.current)
        writer.field("task_id", id.text)
        writer.field("state", state.rawValue)
        writer.field("op", op.text)
        writer.field("digest", digest)
        writer.field("order", order)
        writer.field("timeout", limits.timeout.inSeconds)
        writer.field("max_retries", limits.maxRetries)
        writer.field("retry_backoff", limits.retryBackoff.inSeconds)
        if let wait = limits.maxWait { writer.field("max_wait", wait.inSeconds) }
        if let fence = limits.fence { writer.field("fence", fence.limit.inSeconds) }
        if let gpu { writer.field("gpu", gpu.json) }
        if let attempt { writer.field("attempt_id", attempt.text) }
        if let owner { writer.field("incarnation", owner.text) }
        writer.field("tries", tries)
        writer.field("lost", lost)
        if !failedAttempts.isEmpty { writer.field("failed_attempts", failedAttempts.json) }
        if !lostAttempts.isEmpty { writer.field("lost_attempts", lostAttempts.json) }
        if !reason.isEmpty { writer.field("reason", reason) }
        if let retryDelay { writer.field("retry_delay", retryDelay.inSeconds) }
        if cancelRequested { writer.field("cancel_requested", true) }
        if let outcome {
            writer.key("outcome")
            outcome.write(to: &writer)
        }
        writer.key("times")
        times.write(to: &writer)
        if !submission.isEmpty { writer.field("task", raw: submission) }
        for field in extra { writer.field(field.key, raw: field.raw) }
        writer.endObject()
        return writer.bytes
    }

    private static let known: Set<String> = [
        "v", "task_id", "state", "op", "digest", "order", "timeout", "max_retries", "retry_backoff", "max_wait",
        "fence", "gpu", "attempt_id", "incarnation", "tries", "lost", "failed_attempts", "lost_attempts", "reason",
        "retry_delay", "cancel_requested", "outcome", "times", "task",
    ]

    /// Reads a stored record.
    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        do {
            try self.init(RecordFields(fields: try JSONFields(parsing: bytes)))
        } catch let error as JSONError {
            throw MalformedMessage("record", error.description)
        } catch let error as MalformedMessage {
            throw error
        } catch {
            throw MalformedMessage("record", "\(error)")
        }
    }

    private init(_ record: RecordFields) throws {
        try FormatVersion.check(record.fields.value("v"), in: "record")
        let stateName = try record.string("state")
        guard let state = JobState(rawValue: stateName) else {
            throw MalformedMessage("record", "the state \(JobTask.quoted(stateName)) is unknown")
        }
        let limits = JobLimits(
            timeout: try record.duration("timeout") ?? .zero,
            maxRetries: try record.integer("max_retries") ?? 0,
            retryBackoff: try record.duration("retry_backoff") ?? .zero,
            maxWait: try record.duration("max_wait"),
            fence: try record.duration("fence").map { Fence($0) }
        )
        self.init(
            id: try record.token("task_id", JobID.init),
            state: state,
            op: try record.token("op", OperationID.init),
            submission: record.fields.raw("task").map { Array($0) } ?? [],
            digest: try record.optionalString("digest") ?? "",
            order: try record.fields.value("order")?.unsignedValue ?? 0,
            limits: limits,
            gpu: try record.fields.value("gpu").flatMap { GPUID($0) },
            attempt: try record.optionalString("attempt_id").flatMap { AttemptID($0) },
            owner: try record.optionalString("incarnation").flatMap { Incarnation($0) },
            tries: try record.integer("tries") ?? 0,
            lost: try record.integer("lost") ?? 0,
            failedAttempts: try record.attempts("failed_attempts"),
            lostAttempts: try record.attempts("lost_attempts"),
            reason: try record.optionalString("reason") ?? "",
            retryDelay: try record.duration("retry_delay"),
            cancelRequested: try record.fields.value("cancel_requested")?.boolValue ?? false,
            outcome: try record.fields.value("outcome").map { AttemptOutcome($0) },
            times: JobTimes(try record.fields.value("times") ?? .null),
            extra: record.fields.fields.filter { !Self.known.contains($0.key) }.map {
                UnknownField(key: $0.key, raw: Array($0.raw))
            }
        )
        let needsAttempt = state == .scheduled || state == .running
        guard !needsAttempt || (gpu != nil && attempt != nil && owner != nil) else {
            throw MalformedMessage("record", "state \(state.rawValue) without gpu, attempt_id and incarnation")
        }
    }

    /// The task of an admitted record.
    /// - Throws: ``TaskRefusal`` when the stored submission is not one; an admitted record always holds one.
    package func task() throws(TaskRefusal) -> JobTask {
        try JobTask(submission: submission)
    }
}

/// The fields of a record while it is read.
private struct RecordFields {
    let fields: JSONFields

    func string(_ key: String) throws -> String {
        guard let text = try optionalString(key) else { throw MalformedMessage("record", "\(key) is missing") }
        return text
    }

    func optionalString(_ key: String) throws -> String? {
        guard let value = try fields.value(key), !value.isNull else { return nil }
        guard let text = value.stringValue else { throw MalformedMessage("record", "\(key) must be a string") }
        return text
    }

    func token<T>(_ key: String, _ make: (String) -> T?) throws -> T {
        let text = try string(key)
        guard let token = make(text) else {
            throw MalformedMessage("record", "\(key) \(Token.problem(in: text) ?? "is not a token")")
        }
        return token
    }

    func attempts(_ key: String) throws -> [AttemptID] {
        guard let value = try fields.value(key), !value.isNull else { return [] }
        guard let elements = value.arrayValue else { throw MalformedMessage("record", "\(key) must be an array") }
        return elements.compactMap { $0.stringValue.flatMap { AttemptID($0) } }
    }

    func integer(_ key: String) throws -> Int? {
        guard let value = try fields.value(key), !value.isNull else { return nil }
        guard let number = value.intValue.flatMap({ Int(exactly: $0) }), number >= 0 else {
            throw MalformedMessage("record", "\(key) must be a whole number from 0")
        }
        return number
    }

    func duration(_ key: String) throws -> Duration? {
        guard let value = try fields.value(key), !value.isNull else { return nil }
        guard let seconds = value.doubleValue, seconds >= 0 else {
            throw MalformedMessage("record", "\(key) must be a number of seconds from 0")
        }
        return .inSeconds(seconds)
    }
}

extension [AttemptID] {
    fileprivate var json: JSON { .array(map { .string($0.text) }) }
}

extension JobTimes {
    fileprivate init(_ json: JSON) {
        self.init(
            submitted: json["submitted"]?.doubleValue ?? 0,
            scheduled: json["scheduled"]?.doubleValue,
            started: json["started"]?.doubleValue,
            ended: json["ended"]?.doubleValue,
            updated: json["updated"]?.doubleValue ?? 0
        )
    }

    fileprivate func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.field("submitted", submitted)
        if let scheduled { writer.field("scheduled", scheduled) }
        if let started { writer.field("started", started) }
        if let ended { writer.field("ended", ended) }
        writer.field("updated", updated)
        writer.endObject()
    }
}
