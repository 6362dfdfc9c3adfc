import JobModel
import WireJSON

/// Something that the doctor has seen and that somebody should know.
struct Finding: Sendable, Equatable {
    /// What is looked at, in the order in which it is.
    enum Area: String, Sendable, CaseIterable {
        case server, streams, consumers, records, workers, maestro, disk
    }

    enum Severity: String, Sendable {
        /// Good to know; nothing is wrong.
        case note
        /// It works, and will not for ever, or not as well as it could.
        case warning
        /// Something does not work, or is not safe.
        case error
    }

    let area: Area
    let severity: Severity
    /// A stable word for programs.
    let code: String
    /// One sentence.
    let what: String
    /// What was seen.
    let evidence: String
    /// What to do.
    let advice: String
    /// How the doctor can put it right by itself.
    let repair: Repair?

    init(
        _ area: Area,
        _ severity: Severity,
        _ code: String,
        _ what: String,
        evidence: String,
        advice: String,
        repair: Repair? = nil
    ) {
        self.area = area
        self.severity = severity
        self.code = code
        self.what = what
        self.evidence = evidence
        self.advice = advice
        self.repair = repair
    }

    /// All that is wrong has to be put right; a note has not.
    var isWrong: Bool { severity != .note }

    var json: JSON {
        [
            "severity": .string(severity.rawValue), "area": .string(area.rawValue), "code": .string(code),
            "what": .string(what), "evidence": .string(evidence), "advice": .string(advice),
            "repair": repair.map { .string($0.description) } ?? .null,
        ]
    }
}

/// What the doctor can put right. Each is safe whatever happens meanwhile: a write that fails when somebody else was
/// faster, or the removal of one message, looked at again just before.
enum Repair: Sendable, Equatable, CustomStringConvertible {
    /// Removes a run message that no attempt waits for.
    case removeRun(sequence: UInt64, attempt: AttemptID)
    /// Removes what stands on a card's run subject and is no run message.
    case removeForeignRun(sequence: UInt64, payload: [UInt8])
    /// Takes a scheduled attempt back whose run message is gone.
    case takeBack(JobID, attempt: AttemptID, sequence: UInt64)
    /// Makes the record of a job anew from its run message.
    case restoreRecord(RunMessage)
    /// Publishes the result of a job that has ended without one.
    case publishResult(JobID)
    /// Removes a consumer, which its owner makes anew at once, or at its next start.
    case remakeConsumer(stream: String, name: String)
    /// Removes a lease or registration that nobody can read, so that it can be written again.
    case removeControl(subject: String, sequence: UInt64)

    var description: String {
        switch self {
        case .removeRun(let sequence, let attempt): "remove run message \(sequence) (attempt \(attempt))"
        case .removeForeignRun(let sequence, _): "remove message \(sequence) of the run stream"
        case .takeBack(let job, let attempt, _): "take attempt \(attempt) of job \(job) back"
        case .restoreRecord(let run): "make the record of job \(run.record.id) anew from its run message"
        case .publishResult(let job): "publish the result of job \(job)"
        case .remakeConsumer(let stream, let name): "remove consumer \(name) of \(stream), to be made anew"
        case .removeControl(let subject, let sequence): "remove \(subject) (sequence \(sequence))"
        }
    }

    /// A word for the event that tells of it.
    var code: String {
        switch self {
        case .removeRun: "remove_run"
        case .removeForeignRun: "remove_foreign_run"
        case .takeBack: "take_back"
        case .restoreRecord: "restore_record"
        case .publishResult: "publish_result"
        case .remakeConsumer: "remake_consumer"
        case .removeControl: "remove_control"
        }
    }

    var job: JobID? {
        switch self {
        case .takeBack(let job, _, _), .publishResult(let job): job
        case .restoreRecord(let run): run.record.id
        case .removeRun, .removeForeignRun, .remakeConsumer, .removeControl: nil
        }
    }
}
