import WireJSON

/// What a job reads, by a name that workers look up in their cards' caches: a path, relative to the card's cache or
/// absolute on the card's machine. The order of placement heeds it; whether a card may run the job never depends on it.
package struct CacheKey: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The path without a leading `./` and without slashes at its end.
    package let path: String

    /// How many of them a job may name.
    package static let countLimit = 8
    /// Longest path, in bytes.
    package static let lengthLimit = 255

    /// Nil for a path that ``problem(in:)`` speaks against.
    package init?(_ text: String) {
        guard Self.problem(in: text) == nil else { return nil }
        path = Self.normal(text)
    }

    /// Why a text cannot be a key, for a person; nil when it can.
    package static func problem(in text: String) -> String? {
        if text.utf8.count > lengthLimit { return "is longer than \(lengthLimit) bytes" }
        if text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) { return "holds a control character" }
        let path = normal(text)
        if path.isEmpty || path == "." { return "names nothing" }
        if path.split(separator: "/").contains("..") { return "may not hold '..'" }
        return nil
    }

    private static func normal(_ text: String) -> String {
        var path = Substring(text)
        while path.hasPrefix("./") { path = path.dropFirst(2) }
        while path.hasSuffix("/") { path = path.dropLast() }
        return String(path)
    }

    package static func < (a: CacheKey, b: CacheKey) -> Bool { a.path < b.path }

    package var description: String { path }
}
