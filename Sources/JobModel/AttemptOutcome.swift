import WireJSON

/// How an attempt ended, as the job's record keeps it: small, with the tails of its output.
package struct AttemptOutcome: Sendable, Equatable {
    /// Nil for success, and for a code of a newer version (``foreignCode``).
    package var code: FailureCode?
    /// A code that this version does not know, kept as it was read.
    package private(set) var foreignCode: String?
    /// Why it failed, for a person; empty for success.
    package var reason: String
    /// The exit status of the process; `-N` when signal N ended it; nil when no process ran.
    package var returnCode: Int?
    /// The last 2 KB of what the process wrote.
    package var standardOutputTail: String
    package var standardErrorTail: String
    /// How long the process ran.
    package var duration: Duration?

    /// Bytes of each stream that a record keeps.
    package static let tailBytes = 2048

    package init(
        code: FailureCode? = nil,
        reason: String = "",
        returnCode: Int? = nil,
        standardOutputTail: String = "",
        standardErrorTail: String = "",
        duration: Duration? = nil
    ) {
        self.code = code
        self.reason = reason
        self.returnCode = returnCode
        self.standardOutputTail = standardOutputTail
        self.standardErrorTail = standardErrorTail
        self.duration = duration
    }

    package var succeeded: Bool { code == nil && foreignCode == nil }
}

extension AttemptOutcome {
    init(_ json: JSON) {
        let word = json["code"]?.stringValue
        code = word.flatMap(FailureCode.init(rawValue:))
        foreignCode = code == nil ? word : nil
        reason = json["reason"]?.stringValue ?? ""
        returnCode = json["returncode"]?.intValue.flatMap { Int(exactly: $0) }
        standardOutputTail = json["stdout_tail"]?.stringValue ?? ""
        standardErrorTail = json["stderr_tail"]?.stringValue ?? ""
        duration = json["duration"]?.doubleValue.map { .inSeconds($0) }
    }

    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        if let word = code?.rawValue ?? foreignCode { writer.field("code", word) }
        if !reason.isEmpty { writer.field("reason", reason) }
        if let returnCode { writer.field("returncode", returnCode) }
        writer.field("stdout_tail", standardOutputTail)
        writer.field("stderr_tail", standardErrorTail)
        if let duration { writer.field("duration", duration.inSeconds) }
        writer.endObject()
    }
}
