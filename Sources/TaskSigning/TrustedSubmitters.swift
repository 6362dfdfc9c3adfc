/// Whose tasks a worker runs, when it was told.
package struct TrustedSubmitters: Sendable, Equatable {
    package let keys: Set<SubmitterKey>

    /// Why a list is refused.
    package struct Problem: Error, Equatable {
        package let line: Int
        package let reason: String
    }

    /// Reads a list: a public NKey a line (`U…`), and behind it whatever a person wants to say; # begins a comment.
    package init(_ text: String) throws(Problem) {
        var keys: Set<SubmitterKey> = []
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            guard let word = line.split(whereSeparator: { " \t\r".contains($0) }).first, !word.hasPrefix("#") else {
                continue
            }
            guard let key = SubmitterKey(String(word)) else {
                throw Problem(line: index + 1, reason: "\"\(word.prefix(60))\" is no public NKey of a user (U…)")
            }
            keys.insert(key)
        }
        guard !keys.isEmpty else { throw Problem(line: max(1, lines.count), reason: "it names nobody") }
        self.keys = keys
    }
}
