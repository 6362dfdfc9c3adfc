import JobModel
import JobTransport
import WireJSON

/// A submission as the journal keeps it: what was sent, and when that was first tried.
struct JournalEntry: Sendable, Equatable {
    let submission: Submission
    /// Seconds since 1970 by this machine's clock.
    let time: Double

    /// One line, without its newline. The task stands in it as a text, so that every byte of it comes back.
    func line() -> [UInt8] {
        var writer = JSONWriter(capacity: submission.bytes.count + 128)
        writer.beginObject()
        writer.field("v", FormatVersion.current)
        writer.field("at", time)
        writer.field("task_id", submission.id.text)
        writer.field("task", String(decoding: submission.bytes, as: UTF8.self))
        writer.endObject()
        return writer.bytes
    }
}

/// What one line of the journal says.
enum JournalLine: Equatable {
    case submitted(JournalEntry)
    /// The end of the job was seen.
    case ended(JobID)
    /// The pool has refused it: whoever submitted it was told.
    case refused(Submission)
    /// The bytes that the journal held after it was last cleaned up.
    case cleaned(bytes: Int)
    /// Of a newer version: left as it is.
    case newer
    /// The end of a write that a crash cut off, or a damaged place.
    case unreadable(String)

    static func refused(line submission: Submission) -> [UInt8] {
        JSON.object([
            "refused": .string(submission.id.text), "task": .string(String(decoding: submission.bytes, as: UTF8.self)),
        ]).encoded()
    }

    static func ended(line job: JobID) -> [UInt8] { JSON.object(["ended": .string(job.text)]).encoded() }
    static func cleaned(line bytes: Int) -> [UInt8] { JSON.object(["cleaned_bytes": .int(bytes)]).encoded() }

    init(parsing line: [UInt8]) {
        let json: JSON
        do {
            json = try JSON(parsing: line)
        } catch {
            self = .unreadable("\(error)")
            return
        }
        if let version = json["v"]?.intValue, version > FormatVersion.current {
            self = .newer
        } else if let job = json["ended"]?.stringValue.flatMap({ JobID($0) }) {
            self = .ended(job)
        } else if let submission = Self.submission(json, "refused") {
            self = .refused(submission)
        } else if let bytes = json["cleaned_bytes"]?.intValue {
            self = .cleaned(bytes: Int(clamping: bytes))
        } else if let submission = Self.submission(json, "task_id") {
            self = .submitted(JournalEntry(submission: submission, time: json["at"]?.doubleValue ?? 0))
        } else {
            self = .unreadable("it names no job")
        }
    }

    private static func submission(_ json: JSON, _ key: String) -> Submission? {
        guard let job = json[key]?.stringValue.flatMap({ JobID($0) }), let task = json["task"]?.stringValue else {
            return nil
        }
        return Submission(id: job, exactly: Array(task.utf8))
    }
}
