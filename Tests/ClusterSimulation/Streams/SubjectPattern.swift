/// A subject in which `*` stands for one token and a last `>` for the rest.
package struct SubjectPattern: Sendable, Hashable {
    package let text: String
    private let tokens: [Substring]
    private let isLiteral: Bool

    package init(_ text: String) {
        self.text = text
        tokens = text.split(separator: ".", omittingEmptySubsequences: false)
        isLiteral = !tokens.contains { $0 == "*" || $0 == ">" }
    }

    package func matches(_ subject: String) -> Bool {
        if isLiteral { return subject == text }
        var rest = subject[...]
        for (index, token) in tokens.enumerated() {
            if token == ">" { return !rest.isEmpty }
            let end = rest.firstIndex(of: ".") ?? rest.endIndex
            guard token == "*" ? end > rest.startIndex : rest[..<end] == token else { return false }
            let isLast = index == tokens.count - 1
            guard end < rest.endIndex else { return isLast }
            if isLast { return false }
            rest = rest[rest.index(after: end)...]
        }
        return false
    }

    package static func == (a: SubjectPattern, b: SubjectPattern) -> Bool { a.text == b.text }
    package func hash(into hasher: inout Hasher) { hasher.combine(text) }
}
