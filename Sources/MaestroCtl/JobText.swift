import JobModel
import JobTransport
import ServiceSupport
import WireJSON

/// Jobs in words.
enum JobText {
    /// What a job runs, in one line.
    static func command(of record: JobRecord) -> String {
        do {
            return command(of: try record.task())
        } catch {
            return record.submission.isEmpty ? "-" : "(not a task)"
        }
    }

    static func command(of task: JobTask) -> String {
        switch task.command {
        case .shell(let line): Printable.line(line)
        case .arguments(let words): words.map(shellWord).joined(separator: " ")
        }
    }

    /// A word as a shell would need it.
    static func shellWord(_ word: String) -> String {
        let isPlain = word.unicodeScalars.allSatisfy { scalar in
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "_", "-", ".", "/", ":", "=", "+", ",", "@", "%": true
            default: scalar.value > 0x9F
            }
        }
        return isPlain && !word.isEmpty
            ? word
            : "'\(Printable.line(word).split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''"))'"
    }

    /// The name that the submitter gave the job for people; nil if none.
    static func name(of record: JobRecord) -> String? {
        guard !record.submission.isEmpty else { return nil }
        do {
            return try JSONFields(parsing: record.submission).value("name")?.stringValue
        } catch {
            return nil
        }
    }

    /// One line on a state that a job has come to: `running on card 3, attempt 2`.
    static func story(of record: JobRecord) -> String {
        var text = record.state.rawValue
        switch record.state {
        case .scheduled: text += record.gpu.map { " on card \($0)" } ?? ""
        case .running:
            text += record.gpu.map { " on card \($0)" } ?? ""
            text += ", attempt \(record.tries)"
            if record.cancelRequested { text += ", being cancelled" }
        case .retry:
            text += record.retryDelay.map { " in \(Printable.duration($0.inSeconds))" } ?? ""
            text += " after attempt \(record.tries)"
        case .done:
            if let duration = record.outcome?.duration { text += " after \(Printable.duration(duration.inSeconds))" }
        case .failed: text += record.tries > 0 ? " after \(Printable.count(record.tries, "attempt"))" : ""
        case .enqueued, .waitingGPU, .cancelled, .rejected: break
        }
        if !record.reason.isEmpty { text += ": \(Printable.line(record.reason))" }
        return text
    }

    /// Everything about a job, for a person.
    static func details(of stored: StoredRecord, paint: Paint) -> [String] {
        let record = stored.record
        var lines: [(String, String)] = [("job", record.id.text)]
        if let name = name(of: record) { lines.append(("name", Printable.line(name))) }
        let story = story(of: record)
        lines.append(("state", paint(story, Paint.colour(of: record.state))))
        lines.append(("runs", command(of: record)))
        lines += wishes(of: record)
        lines.append(("tries", tries(of: record)))
        if let gpu = record.gpu { lines.append(("card", gpu.text)) }
        if let attempt = record.attempt { lines.append(("attempt id", attempt.text)) }
        lines += times(of: record)
        if let outcome = record.outcome {
            if let code = outcome.returnCode { lines.append(("returned", "\(code)")) }
            if !outcome.standardOutputTail.isEmpty { lines.append(("output", indented(outcome.standardOutputTail))) }
            if !outcome.standardErrorTail.isEmpty { lines.append(("errors", indented(outcome.standardErrorTail))) }
        }
        return lines.map { label, text in
            paint(label, .grey) + String(repeating: " ", count: max(1, 12 - label.count)) + text
        }
    }

    private static func wishes(of record: JobRecord) -> [(String, String)] {
        do {
            let task = try record.task()
            var lines: [(String, String)] = []
            if let gpu = task.gpu { lines.append(("only on", "card \(gpu)")) }
            if let directory = task.workingDirectory { lines.append(("in", Printable.line(directory))) }
            if task.priority != 0 { lines.append(("priority", "\(task.priority)")) }
            if let other = task.retryOf { lines.append(("retry of", other.text)) }
            let limits = record.limits
            lines.append(
                ("limits", "\(Printable.duration(limits.timeout.inSeconds)) an attempt, \(limits.maxRetries) retries")
            )
            return lines
        } catch {
            return []
        }
    }

    private static func tries(of record: JobRecord) -> String {
        "\(record.tries)" + (record.lost > 0 ? ", \(record.lost) of them lost with their workers" : "")
    }

    private static func times(of record: JobRecord) -> [(String, String)] {
        let times = record.times
        var lines = [("submitted", WallClock.text(seconds: times.submitted))]
        if let started = times.started { lines.append(("started", WallClock.text(seconds: started))) }
        if let ended = times.ended {
            let ran = times.started.map { " (ran \(Printable.duration(ended - $0)))" } ?? ""
            lines.append(("ended", WallClock.text(seconds: ended) + ran))
        }
        return lines
    }

    /// Text of several lines under a label.
    private static func indented(_ text: String) -> String {
        let lines = text.hasSuffix("\n") ? text.dropLast() : Substring(text)
        return lines.split(separator: "\n", omittingEmptySubsequences: false).map { Printable.line(String($0)) }
            .joined(separator: "\n" + String(repeating: " ", count: 12))
    }
}
