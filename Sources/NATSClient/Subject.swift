/// What may stand in a subject.
enum Subject {
    /// Checks a subject that a message is published to: non-empty tokens, no white space, control characters or
    /// wildcards. The C library checks nothing here: a space in a subject would break the protocol line.
    static func checkPublish(_ subject: String, _ operation: String) throws(NATSError) {
        try check(subject, operation, wildcards: false)
    }

    /// Checks a subject that is subscribed to, in which `*` and a final `>` may stand.
    static func checkSubscribe(_ subject: String, _ operation: String) throws(NATSError) {
        try check(subject, operation, wildcards: true)
    }

    private static func check(_ subject: String, _ operation: String, wildcards: Bool) throws(NATSError) {
        if let reason = fault(in: subject, wildcards: wildcards) {
            throw NATSError(.badSubject, operation, subject: subject, cause: reason)
        }
    }

    private static func fault(in subject: String, wildcards: Bool) -> String? {
        let dot = UInt8(ascii: ".")
        var tokenLength = 0
        var isWildcardToken = false
        var ended = false
        for byte in subject.utf8 {
            if byte == dot {
                if tokenLength == 0 { return "it has an empty token" }
                if isWildcardToken && tokenLength > 1 { return "a wildcard must be a whole token" }
                if ended { return "> must be the last token" }
                tokenLength = 0
                isWildcardToken = false
                continue
            }
            if byte <= 0x20 || byte == 0x7F { return "it has white space or a control character" }
            if byte == UInt8(ascii: "*") || byte == UInt8(ascii: ">") {
                if !wildcards { return "it has a wildcard" }
                isWildcardToken = true
                ended = ended || byte == UInt8(ascii: ">")
            }
            tokenLength += 1
        }
        if tokenLength == 0 { return subject.isEmpty ? "it is empty" : "it has an empty token" }
        return isWildcardToken && tokenLength > 1 ? "a wildcard must be a whole token" : nil
    }

    /// Checks one token of a subject that is built from a name, such as a stream or a consumer.
    static func checkToken(_ name: String, _ operation: String) throws(NATSError) {
        if name.utf8.contains(UInt8(ascii: ".")) {
            throw NATSError(.badSubject, operation, subject: name, cause: "a name may not contain a dot")
        }
        try checkPublish(name, operation)
    }
}
