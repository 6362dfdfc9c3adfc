/// Text in lines for a terminal.
package enum WrappedText {
    /// Columns where nobody knows how wide the terminal is.
    package static let width = 80

    /// Text in lines of at most `width` characters, broken between words; a word that is longer than a line is cut.
    /// - Parameters:
    ///   - first: what the first line begins with.
    ///   - rest: what the others begin with.
    /// - Returns: at least one line.
    package static func lines(_ text: String, width: Int, first: String = "", rest: String = "") -> [String] {
        var lines: [String] = []
        var current = first
        var isFresh = true
        func flush() {
            lines.append(current)
            current = rest
            isFresh = true
        }
        for word in text.split(separator: " ") {
            if !isFresh, current.count + 1 + word.count > width { flush() }
            current += (isFresh ? "" : " ") + word
            isFresh = false
            while current.count > width, width > rest.count {
                let tail = current.dropFirst(width)
                current = String(current.prefix(width))
                flush()
                current += tail
                isFresh = false
            }
        }
        if !isFresh || lines.isEmpty { lines.append(current) }
        return lines
    }
}
