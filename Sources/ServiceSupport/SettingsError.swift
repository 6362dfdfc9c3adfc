/// Where a value of the configuration came from.
package enum SettingOrigin: Sendable, Equatable, CustomStringConvertible {
    case file(String, line: Int)
    case environment(String)
    /// The flag as it is typed: `--nats`.
    case flag(String)
    /// Nobody set it.
    case standard

    package var description: String {
        switch self {
        case .file(let path, let line): "in \(path) line \(line)"
        case .environment(let name): "in the environment variable \(name)"
        case .flag(let flag): "given with \(flag)"
        case .standard: "the default"
        }
    }
}

/// Why a program cannot start with its configuration; one line for a person.
package struct SettingsError: Error, Equatable, CustomStringConvertible {
    package let reason: String
    /// Nil when a file as a whole is at fault; then the reason names it.
    package let origin: SettingOrigin?

    package init(_ reason: String, origin: SettingOrigin? = nil) {
        self.reason = reason
        self.origin = origin
    }

    package var description: String { origin.map { "\(reason) (\($0))" } ?? reason }
}
