import WireJSON

/// What the leading maestro asks of a card's worker, on `gpu.worker.<gpu>.<verb>`.
package enum WorkerRequest: Sendable, Equatable {
    /// Kill a running attempt: somebody has cancelled its job.
    case cancel(JobID, AttemptID)
    /// End a running attempt and give its job back to the pool; it costs no retry.
    case evict(JobID, AttemptID, FailureCode, reason: String)
    /// Try whether the card works.
    case probe

    /// The last token of the subject.
    package enum Verb: String, Sendable, CaseIterable {
        case cancel, evict, probe
    }

    package var verb: Verb {
        switch self {
        case .cancel: .cancel
        case .evict: .evict
        case .probe: .probe
        }
    }

    /// Longest reason that is taken over, in characters; the rest is cut.
    package static let reasonLimit = 500

    package func encoded() -> [UInt8] {
        var object = JSONObject()
        switch self {
        case .cancel(let job, let attempt):
            object["task_id"] = .string(job.text)
            object["attempt_id"] = .string(attempt.text)
        case .evict(let job, let attempt, let code, let reason):
            object["task_id"] = .string(job.text)
            object["attempt_id"] = .string(attempt.text)
            object["code"] = .string(code.rawValue)
            object["reason"] = .string(reason)
        case .probe: break
        }
        return JSON.object(object).encoded()
    }

    package init(_ verb: Verb, parsing bytes: [UInt8]) throws(MalformedMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("request", error.description)
        }
        switch verb {
        case .probe: self = .probe
        case .cancel:
            let (job, attempt) = try Self.attempt(in: body)
            self = .cancel(job, attempt)
        case .evict:
            let (job, attempt) = try Self.attempt(in: body)
            self = .evict(job, attempt, try Self.code(in: body), reason: Self.reason(in: body))
        }
    }

    private static func attempt(in body: JSON) throws(MalformedMessage) -> (JobID, AttemptID) {
        guard let job = body["task_id"]?.stringValue.flatMap({ JobID($0) }),
            let attempt = body["attempt_id"]?.stringValue.flatMap({ AttemptID($0) })
        else { throw MalformedMessage("request", "task_id or attempt_id is missing or not an id") }
        return (job, attempt)
    }

    private static func code(in body: JSON) throws(MalformedMessage) -> FailureCode {
        guard let code = body["code"]?.stringValue.flatMap(FailureCode.init(rawValue:)), code.isGivenBack else {
            let allowed = FailureCode.allCases.filter(\.isGivenBack).map(\.rawValue).joined(separator: ", ")
            throw MalformedMessage("request", "code must be one of \(allowed)")
        }
        return code
    }

    private static func reason(in body: JSON) -> String {
        String((body["reason"]?.stringValue ?? "").prefix(reasonLimit))
    }
}

/// A worker's answer to a ``WorkerRequest``.
package struct WorkerAnswer: Sendable, Equatable {
    package var ok: Bool
    /// What a probe has found; nil when there was none.
    package var evidence: String?
    /// Why the request was not carried out; nil when it was.
    package var error: String?

    package init(ok: Bool, evidence: String? = nil, error: String? = nil) {
        self.ok = ok
        self.evidence = evidence
        self.error = error
    }

    /// The request is carried out.
    package static let done = WorkerAnswer(ok: true)

    package static func refused(_ error: String) -> WorkerAnswer { WorkerAnswer(ok: false, error: error) }

    package func encoded() -> [UInt8] {
        var object: JSONObject = ["ok": .bool(ok)]
        object["evidence"] = evidence.map { .string($0) }
        object["error"] = error.map { .string($0) }
        return JSON.object(object).encoded()
    }

    package init(parsing bytes: [UInt8]) throws(MalformedMessage) {
        let body: JSON
        do {
            body = try JSON(parsing: bytes)
        } catch {
            throw MalformedMessage("answer", error.description)
        }
        guard let ok = body["ok"]?.boolValue else { throw MalformedMessage("answer", "ok is missing") }
        self.init(ok: ok, evidence: body["evidence"]?.stringValue, error: body["error"]?.stringValue)
    }
}
