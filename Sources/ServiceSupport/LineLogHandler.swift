import Glibc
import Logging

/// Logs to standard error, one line a message: time, level, message, then the metadata as key=value.
///
/// Under systemd's journal the line begins with the priority in angle brackets (sd-daemon(3)) and the time is left
/// out, since the journal has both of its own.
package struct LineLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    package var logLevel: Logger.Level
    private let style: Style
    private let sink: @Sendable ([UInt8]) -> Void

    package enum Style: Sendable {
        case plain, journal
    }

    /// - Parameter sink: takes each whole line, its newline included.
    package init(level: Logger.Level, style: Style, sink: @escaping @Sendable ([UInt8]) -> Void) {
        logLevel = level
        self.style = style
        self.sink = sink
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var line =
            switch style {
            case .plain: "\(WallClock.text(seconds: WallClock.now())) \(Self.word(event.level)) "
            case .journal: "<\(Self.priority(event.level))>"
            }
        line += Self.clean(event.message.description, quoting: false)
        var fields = metadataProvider?.get() ?? [:]
        fields.merge(metadata) { $1 }
        fields.merge(event.metadata ?? [:]) { $1 }
        if let error = event.error { fields["error"] = "\(error)" }
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += " \(key)=\(Self.clean(value.description, quoting: true))"
        }
        sink(Array((Secrets.masked(line) + "\n").utf8))
    }

    /// One line stays one line; a value with spaces is put in quotes.
    private static func clean(_ text: String, quoting: Bool) -> String {
        var cleaned = ""
        var needsQuotes = text.isEmpty
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n": cleaned += "\\n"
            case "\"" where quoting:
                cleaned += "\\\""
                needsQuotes = true
            case _ where scalar.value < 0x20 || scalar.value == 0x7F: cleaned += "\u{FFFD}"
            default:
                if scalar == " " || scalar == "=" { needsQuotes = true }
                cleaned.unicodeScalars.append(scalar)
            }
        }
        return quoting && needsQuotes ? "\"\(cleaned)\"" : cleaned
    }

    private static func word(_ level: Logger.Level) -> String {
        let word = level.rawValue
        return word + String(repeating: " ", count: max(0, 8 - word.count))
    }

    /// syslog(3)'s number of a level.
    private static func priority(_ level: Logger.Level) -> Int {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}

/// Sets up logging for a whole program.
package enum ServiceLog {
    /// Call once, before the first logger is made.
    package static func bootstrap(level: Logger.Level) {
        let style: LineLogHandler.Style = HostInfo.environmentVariable("JOURNAL_STREAM") == nil ? .plain : .journal
        LoggingSystem.bootstrap { _ in
            LineLogHandler(level: level, style: style) { StandardStream.error.write($0) }
        }
    }
}

/// Standard output and standard error, written without a buffer of ours.
package enum StandardStream: Int32, Sendable {
    case output = 1
    case error = 2

    /// Writes all of it. What cannot be written is given up: there is nobody left to tell.
    /// - Returns: false when the stream is closed or broken.
    @discardableResult
    package func write(_ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(rawValue, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                // The terminal or pipe was set not to block by somebody who shares it: wait until it takes more.
                var poller = pollfd(fd: rawValue, events: Int16(POLLOUT), revents: 0)
                unsafe poll(&poller, 1, 1000)
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// Whether a person reads it on a terminal.
    package var isTerminal: Bool { isatty(rawValue) == 1 }
}
