import WireJSON

/// Text that is one token of a subject and one component of a path: 1 to 128 of `A-Z a-z 0-9 _ -`.
package enum Token {
    /// Longest token, in characters.
    package static let maximumLength = 128

    /// Why a text is not a token, for a person; nil if it is one.
    package static func problem(in text: String) -> String? {
        let length = text.utf8.count
        if length == 0 { return "is empty" }
        if length > maximumLength { return "is \(length) bytes long; at most \(maximumLength) are allowed" }
        let allowed = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
        return allowed ? nil : "may hold only letters, digits, '_' and '-'"
    }
}

/// The name of a job (`task_id` on the wire).
package struct JobID: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let text: String

    /// Nil unless the text is a ``Token``.
    package init?(_ text: String) {
        guard Token.problem(in: text) == nil else { return nil }
        self.text = text
    }

    private init(trusted text: String) { self.text = text }

    /// The id of a submission that came without one: the same on every redelivery, and not repeated by a stream
    /// made anew, since the time differs then.
    /// - Parameters:
    ///   - timestamp: when the stream stored the submission, nanoseconds since 1970.
    ///   - sequence: its sequence in that stream.
    package static func derived(timestamp: Int64, sequence: UInt64) -> JobID {
        JobID(trusted: "task-\(timestamp)-\(sequence)")
    }

    /// A new id that sorts by time: ten characters of milliseconds, sixteen of chance (the form of a ULID).
    package static func generated(at now: Timestamp, from source: inout IdentifierSource) -> JobID {
        let milliseconds = UInt64(max(0, now.nanoseconds / 1_000_000))
        let time = IdentifierSource.base32(milliseconds, count: 10)
        let chance = IdentifierSource.base32(source.next(), count: 8) + IdentifierSource.base32(source.next(), count: 8)
        return JobID(trusted: time + chance)
    }

    package var description: String { text }
    package static func < (a: JobID, b: JobID) -> Bool { a.text < b.text }
}

/// The name of a card's worker in the pool: the number of `gpu-worker@N`, or `<node>-<N>` in a pool of many machines.
package struct GPUID: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let text: String

    /// Nil unless the text is a ``Token``.
    package init?(_ text: String) {
        guard Token.problem(in: text) == nil else { return nil }
        self.text = text
    }

    /// The id of card `number` of a machine.
    /// - Parameter node: the machine's name in the pool; nil in a pool of one machine.
    package init?(node: String?, number: Int) {
        guard number >= 0 else { return nil }
        self.init(node.map { "\($0)-\(number)" } ?? String(number))
    }

    /// Reads the wire form: a whole number from 0, or a token.
    package init?(_ json: JSON) {
        switch json {
        case .string(let text): self.init(text)
        case .number:
            guard let number = json.intValue, number >= 0 else { return nil }
            self.init(String(number))
        default: return nil
        }
    }

    /// The number of an id without node name, else nil.
    package var number: Int? {
        guard let number = Int(text), number >= 0, String(number) == text else { return nil }
        return number
    }

    /// The wire form: a number in a pool without node names, else a string.
    package var json: JSON { number.map { .int($0) } ?? .string(text) }

    package var description: String { text }

    /// Numbers by value first, then names in the order of their text.
    package static func < (a: GPUID, b: GPUID) -> Bool {
        switch (a.number, b.number) {
        case (let x?, let y?): x < y
        case (_?, nil): true
        case (nil, _?): false
        case (nil, nil): a.text < b.text
        }
    }
}

/// The fencing token of one dispatch of a job: random, new for each. It alone decides whose work counts.
package struct AttemptID: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    /// Nil unless the text is a ``Token``.
    package init?(_ text: String) {
        guard Token.problem(in: text) == nil else { return nil }
        self.text = text
    }

    package init(from source: inout IdentifierSource) { text = source.hexadecimal() }
    package var description: String { text }
}

/// One life of a process (a worker's or a maestro's): random, new at each start.
package struct Incarnation: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    init(placeholder text: String) { self.text = text }

    /// Nil unless the text is a ``Token``.
    package init?(_ text: String) {
        guard Token.problem(in: text) == nil else { return nil }
        self.text = text
    }

    package init(from source: inout IdentifierSource) { text = source.hexadecimal() }
    package var description: String { text }
}

/// The mark of one write. Whoever gets no answer to a write reads the record and knows by this mark whether it was
/// stored.
package struct OperationID: Sendable, Hashable, CustomStringConvertible {
    package let text: String

    /// Nil unless the text is a ``Token``.
    package init?(_ text: String) {
        guard Token.problem(in: text) == nil else { return nil }
        self.text = text
    }

    package init(from source: inout IdentifierSource) { text = source.hexadecimal() }
    package var description: String { text }
}
