/// A file of KEY=VALUE lines, read by the rules of systemd's EnvironmentFile= (systemd.exec(5)), so that a service
/// and a person who sources nothing see the same values.
///
/// Three things that systemd lets pass are told here instead: a line without `=` is a warning; a quote that is never
/// closed, and a comment that ends in a backslash (systemd 254 changed what that means), are errors.
package struct SettingsFile: Sendable, Equatable {
    package struct Assignment: Sendable, Equatable {
        package var key: String
        package var value: String
        /// The line on which the key stands, counted from 1.
        package var line: Int
    }

    package private(set) var assignments: [Assignment] = []
    /// Lines that were ignored, counted from 1.
    package private(set) var linesWithoutValue: [Int] = []

    /// - Parameter path: for messages only.
    package init(parsing bytes: [UInt8], path: String) throws(SettingsError) {
        guard String(validating: bytes, as: UTF8.self) != nil, !bytes.contains(0) else {
            throw SettingsError("\(path) is not a text file in UTF-8")
        }
        let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
        var reader = Reader(path: path)
        for byte in bytes.starts(with: mark) ? bytes.dropFirst(mark.count) : bytes[...] { try reader.read(byte) }
        try reader.finish()
        assignments = reader.assignments
        linesWithoutValue = reader.linesWithoutValue
    }

    /// The state machine that systemd documents, one byte at a time.
    private struct Reader {
        enum State {
            case beforeKey, key, beforeValue, value, escape, singleQuotes, doubleQuotes, escapeInQuotes
            case comment, escapeInComment
        }

        let path: String
        var state = State.beforeKey
        var line = 1
        var keyLine = 1
        var quoteLine = 1
        var key: [UInt8] = []
        var value: [UInt8] = []
        /// The length of the value without the white space that now ends it.
        var trimmed = 0
        var assignments: [Assignment] = []
        var linesWithoutValue: [Int] = []

        mutating func read(_ byte: UInt8) throws(SettingsError) {
            let isNewline = byte == 0x0A || byte == 0x0D
            let isSpace = isNewline || byte == 0x20 || byte == 0x09
            switch state {
            case .beforeKey:
                if byte == UInt8(ascii: "#") || byte == UInt8(ascii: ";") {
                    state = .comment
                } else if !isSpace {
                    state = .key
                    key = [byte]
                    keyLine = line
                }
            case .key: readKey(byte, isNewline: isNewline)
            case .beforeValue, .value: readValue(byte, isNewline: isNewline, isSpace: isSpace)
            case .escape:
                if !isNewline { keep(byte) }
                state = .value
            case .singleQuotes:
                if byte == UInt8(ascii: "'") { state = .beforeValue } else { keep(byte) }
            case .doubleQuotes:
                switch byte {
                case UInt8(ascii: "\""): state = .beforeValue
                case UInt8(ascii: "\\"): state = .escapeInQuotes
                default: keep(byte)
                }
            case .escapeInQuotes:
                if !"\"\\`$".utf8.contains(byte), !isNewline { keep(UInt8(ascii: "\\")) }
                if !isNewline { keep(byte) }
                state = .doubleQuotes
            case .comment:
                if byte == UInt8(ascii: "\\") { state = .escapeInComment } else if isNewline { state = .beforeKey }
            case .escapeInComment:
                guard !isNewline else {
                    throw SettingsError(
                        "a comment ends in a backslash: versions of systemd differ on whether the next line belongs "
                            + "to it; remove the backslash",
                        origin: .file(path, line: line)
                    )
                }
                state = .comment
            }
            if byte == 0x0A { line += 1 }
        }

        private mutating func readKey(_ byte: UInt8, isNewline: Bool) {
            if isNewline {
                linesWithoutValue.append(keyLine)
                state = .beforeKey
            } else if byte == UInt8(ascii: "=") {
                state = .beforeValue
                value = []
                trimmed = 0
            } else {
                key.append(byte)
            }
        }

        private mutating func readValue(_ byte: UInt8, isNewline: Bool, isSpace: Bool) {
            if isNewline {
                store()
                state = .beforeKey
            } else if state == .beforeValue, byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\"") {
                state = byte == UInt8(ascii: "'") ? .singleQuotes : .doubleQuotes
                quoteLine = line
            } else if byte == UInt8(ascii: "\\") {
                state = .escape
            } else if !isSpace {
                state = .value
                keep(byte)
            } else if state == .value {
                value.append(byte)
            }
        }

        private mutating func keep(_ byte: UInt8) {
            value.append(byte)
            trimmed = value.count
        }

        private mutating func store() {
            while let last = key.last, last == 0x20 || last == 0x09 { key.removeLast() }
            assignments.append(
                Assignment(
                    key: String(decoding: key, as: UTF8.self),
                    value: String(decoding: value.prefix(trimmed), as: UTF8.self),
                    line: keyLine
                )
            )
        }

        mutating func finish() throws(SettingsError) {
            switch state {
            case .beforeKey, .comment, .escapeInComment: break
            case .key: linesWithoutValue.append(keyLine)
            case .beforeValue, .value, .escape: store()
            case .singleQuotes, .doubleQuotes, .escapeInQuotes:
                throw SettingsError("a quote is opened and never closed", origin: .file(path, line: quoteLine))
            }
        }
    }
}
