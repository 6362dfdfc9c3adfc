import JobModel

// Tests write identifiers as literals; one that is not a token is a mistake in the test.

extension JobID: ExpressibleByStringLiteral {
    /// Traps on a text that is not a token.
    public init(stringLiteral text: String) {
        guard let id = JobID(text) else { preconditionFailure("not a job id: \(text)") }
        self = id
    }
}

extension GPUID: ExpressibleByIntegerLiteral, ExpressibleByStringLiteral {
    /// Traps on a text that is not a token.
    public init(integerLiteral number: Int) { self.init(stringLiteral: String(number)) }

    /// Traps on a text that is not a token.
    public init(stringLiteral text: String) {
        guard let id = GPUID(text) else { preconditionFailure("not a card id: \(text)") }
        self = id
    }
}

extension OperationID: ExpressibleByStringLiteral {
    /// Traps on a text that is not a token.
    public init(stringLiteral text: String) {
        guard let id = OperationID(text) else { preconditionFailure("not an op: \(text)") }
        self = id
    }
}

extension Incarnation: ExpressibleByStringLiteral {
    /// Traps on a text that is not a token.
    public init(stringLiteral text: String) {
        guard let id = Incarnation(text) else { preconditionFailure("not an incarnation: \(text)") }
        self = id
    }
}
