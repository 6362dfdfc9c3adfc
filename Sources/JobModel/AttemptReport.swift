import WireJSON

/// What a worker tells about one ended attempt: the source of `gpu.task.done`, `gpu.task.err` and the result event.
package struct AttemptReport: Sendable, Equatable {
    /// What is kept of one output stream for events.
    package struct Output: Sendable, Equatable {
        /// The last ``limit`` bytes, as text; bytes that are not UTF-8 are replaced.
        package var text: String
        /// How many bytes the process wrote in all.
        package var totalBytes: UInt64
        /// Some of it is missing from `text`.
        package var isTruncated: Bool
        /// Some bytes were not UTF-8 and were replaced.
        package var isBinary: Bool

        /// Bytes of each stream in an event.
        package static let limit = 64_000

        package init(text: String, totalBytes: UInt64, isTruncated: Bool, isBinary: Bool) {
            self.text = text
            self.totalBytes = totalBytes
            self.isTruncated = isTruncated
            self.isBinary = isBinary
        }

        /// From the bytes that were kept.
        package init(bytes: [UInt8], totalBytes: UInt64) {
            let valid = String(validating: bytes, as: UTF8.self)
            self.init(
                text: valid ?? String(decoding: bytes, as: UTF8.self),
                totalBytes: totalBytes,
                isTruncated: totalBytes > UInt64(bytes.count),
                isBinary: valid == nil
            )
        }

        package static let empty = Output(text: "", totalBytes: 0, isTruncated: false, isBinary: false)

        /// The last ``AttemptOutcome/tailBytes`` of the text, cut between characters.
        package var tail: String {
            guard text.utf8.count > AttemptOutcome.tailBytes else { return text }
            var start = text.utf8.index(text.utf8.endIndex, offsetBy: -AttemptOutcome.tailBytes)
            while start < text.endIndex, start.samePosition(in: text.unicodeScalars) == nil {
                text.utf8.formIndex(after: &start)
            }
            return String(text[start...])
        }
    }

    package var job: JobID
    package var gpu: GPUID
    package var attempt: AttemptID
    /// Which attempt of the job this was, counted from 1.
    package var tries: Int
    /// Whether a process ran; without one there are no output and no times.
    package var ran: Bool
    package var outcome: AttemptOutcome
    package var standardOutput: Output
    package var standardError: Output
    package var workingDirectory: String
    /// "shell" or "cmd".
    package var type: String
    /// When the attempt ended, seconds since 1970.
    package var time: Double
    /// Processor time of the process and its reaped children.
    package var userTime: Duration?
    package var systemTime: Duration?
    package var peakMemoryBytes: UInt64?

    package init(
        job: JobID,
        gpu: GPUID,
        attempt: AttemptID,
        tries: Int,
        ran: Bool,
        outcome: AttemptOutcome,
        standardOutput: Output = .empty,
        standardError: Output = .empty,
        workingDirectory: String,
        type: String,
        time: Double,
        userTime: Duration? = nil,
        systemTime: Duration? = nil,
        peakMemoryBytes: UInt64? = nil
    ) {
        self.job = job
        self.gpu = gpu
        self.attempt = attempt
        self.tries = tries
        self.ran = ran
        self.outcome = outcome
        self.standardOutput = standardOutput
        self.standardError = standardError
        self.workingDirectory = workingDirectory
        self.type = type
        self.time = time
        self.userTime = userTime
        self.systemTime = systemTime
        self.peakMemoryBytes = peakMemoryBytes
    }

    /// The event on `gpu.task.done`.
    package func doneEvent() -> [UInt8] {
        var writer = JSONWriter(capacity: 512 + standardOutput.text.utf8.count + standardError.text.utf8.count)
        writer.beginObject()
        writeFields(to: &writer)
        writer.endObject()
        return writer.bytes
    }

    /// The event on `gpu.task.err`.
    /// - Parameter state: the state of the job after this attempt.
    package func errorEvent(state: JobState) -> [UInt8] {
        var writer = JSONWriter(capacity: 512 + standardOutput.text.utf8.count + standardError.text.utf8.count)
        ErrorEvent(
            job: job,
            gpu: gpu,
            attempt: attempt,
            tries: tries,
            code: outcome.code ?? .workerFault,
            error: outcome.reason,
            state: state,
            time: time
        ).write(to: &writer, report: ran ? self : nil)
        return writer.bytes
    }

    /// The event on `gpu.task.result.<task_id>` of a job that ended with this attempt.
    package func resultEvent(state: JobState) -> [UInt8] {
        var writer = JSONWriter(capacity: 512 + standardOutput.text.utf8.count + standardError.text.utf8.count)
        ResultEvent(job: job, state: state, tries: tries, outcome: outcome, time: time)
            .write(to: &writer, report: ran ? self : nil)
        return writer.bytes
    }

    /// The fields that `done`, and the `data` of `err` and of a result, share.
    func writeFields(to writer: inout JSONWriter) {
        writer.field("task_id", job.text)
        writer.field("gpu_id", gpu.json)
        writer.field("attempt_id", attempt.text)
        writer.field("tries", tries)
        writer.field("returncode", outcome.returnCode.map { JSON.int($0) } ?? .null)
        writer.field("stdout", standardOutput.text)
        writer.field("stderr", standardError.text)
        for (name, output) in [("stdout", standardOutput), ("stderr", standardError)] {
            if output.isTruncated { writer.field("\(name)_truncated", true) }
            if output.isBinary { writer.field("\(name)_binary", true) }
            if output.isTruncated || output.isBinary { writer.field("\(name)_bytes", output.totalBytes) }
        }
        writer.field("cwd", workingDirectory)
        writer.field("type", type)
        writer.field("ts", time)
        if let duration = outcome.duration { writer.field("duration", duration.inSeconds) }
        if let userTime { writer.field("user_sec", userTime.inSeconds) }
        if let systemTime { writer.field("system_sec", systemTime.inSeconds) }
        if let peakMemoryBytes { writer.field("peak_memory_bytes", peakMemoryBytes) }
    }
}

/// The event on `gpu.task.err`: one for each attempt that did not succeed, and for each refused message.
package struct ErrorEvent: Sendable, Equatable {
    /// Nil when the message named none that could be read.
    package var job: JobID?
    package var gpu: GPUID?
    package var attempt: AttemptID?
    package var tries: Int?
    package var code: FailureCode
    /// What happened and what to do, for a person.
    package var error: String
    /// The state of the job after this; nil when there is no such job.
    package var state: JobState?
    /// Seconds since 1970.
    package var time: Double

    package init(
        job: JobID?,
        gpu: GPUID? = nil,
        attempt: AttemptID? = nil,
        tries: Int? = nil,
        code: FailureCode,
        error: String,
        state: JobState?,
        time: Double
    ) {
        self.job = job
        self.gpu = gpu
        self.attempt = attempt
        self.tries = tries
        self.code = code
        self.error = error
        self.state = state
        self.time = time
    }

    package func encoded() -> [UInt8] {
        var writer = JSONWriter()
        write(to: &writer, report: nil)
        return writer.bytes
    }

    func write(to writer: inout JSONWriter, report: AttemptReport?) {
        writer.beginObject()
        writer.field("task_id", job.map { JSON.string($0.text) } ?? .null)
        writer.field("gpu_id", gpu?.json ?? .null)
        writer.field("error", error)
        writer.field("code", code.rawValue)
        if let attempt { writer.field("attempt_id", attempt.text) }
        if let tries { writer.field("tries", tries) }
        if let state {
            writer.field("state", state.rawValue)
            writer.field("will_retry", !state.isTerminal)
        }
        writer.field("ts", time)
        if let report {
            writer.key("data")
            writer.beginObject()
            report.writeFields(to: &writer)
            writer.endObject()
        }
        writer.endObject()
    }
}

/// The event on `gpu.task.result.<task_id>`: once for each job, when it has reached its end.
package struct ResultEvent: Sendable, Equatable {
    package var job: JobID
    package var state: JobState
    package var tries: Int
    package var outcome: AttemptOutcome?
    /// Seconds since 1970.
    package var time: Double

    package init(job: JobID, state: JobState, tries: Int, outcome: AttemptOutcome?, time: Double) {
        self.job = job
        self.state = state
        self.tries = tries
        self.outcome = outcome
        self.time = time
    }

    /// The result of a job whose full output nobody can tell any more: the record's tails stand in for it.
    package func encodedWithoutOutput() -> [UInt8] {
        var writer = JSONWriter(capacity: 1024)
        write(to: &writer, report: nil)
        return writer.bytes
    }

    func write(to writer: inout JSONWriter, report: AttemptReport?) {
        writer.beginObject()
        writer.field("task_id", job.text)
        writer.field("ok", state == .done)
        writer.field("state", state.rawValue)
        writer.field("tries", tries)
        if state != .done, let outcome {
            writer.field("error", outcome.reason)
            if let code = outcome.code { writer.field("code", code.rawValue) }
        }
        writer.field("ts", time)
        writer.key("data")
        writer.beginObject()
        if let report {
            report.writeFields(to: &writer)
        } else if let outcome, outcome.returnCode != nil {
            writer.field("task_id", job.text)
            writer.field("returncode", outcome.returnCode.map { JSON.int($0) } ?? .null)
            writer.field("stdout", outcome.standardOutputTail)
            writer.field("stderr", outcome.standardErrorTail)
            writer.field("output_unavailable", true)
        }
        writer.endObject()
        writer.endObject()
    }
}
