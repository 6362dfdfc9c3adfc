/// The configuration that one program knows.
package struct SettingsSchema: Sendable {
    /// What is to be done about a key of the file that the program does not know.
    package enum UnknownKeys: Sendable {
        /// It is an error that names the nearest known key: the file is this program's own.
        case refused
        /// It is left alone: the file belongs to another program, which checks it.
        case ignored
    }

    /// The file that is read when nobody names one; it may be missing.
    package let defaultFile: String?
    /// The environment variable that names another file, such as `MAESTRO_CONF`; then that one must exist.
    package let fileVariable: String?
    package let keys: [SettingDeclaration]
    /// Keys of older versions and what to do instead, a clause for a person: "set RUN_SUBJECT_PREFIX instead".
    /// They are accepted with a warning and have no effect.
    package let replaced: [String: String]
    package let unknownKeys: UnknownKeys

    package init(
        defaultFile: String?,
        fileVariable: String?,
        keys: [SettingDeclaration],
        replaced: [String: String] = SettingsSchema.replacedKeys,
        unknownKeys: UnknownKeys = .refused
    ) {
        self.defaultFile = defaultFile
        self.fileVariable = fileVariable
        self.keys = keys
        self.replaced = replaced
        self.unknownKeys = unknownKeys
    }

    /// Keys that configuration files of older pools hold.
    package static let replacedKeys = [
        "SCHEDULE_TICK_SEC": "jobs are now placed at once, when something changes; nothing replaces it",
        "RUN_SUBJECT": "set RUN_SUBJECT_PREFIX instead (each card has a subject below it)",
        "SUBMIT_SUBJECT": "set ENQ_SUBJECT instead",
        "DONE_SUBJECT": "set SUBJECT_PREFIX instead (the subject is <prefix>gpu.task.done)",
        "ERR_SUBJECT": "set SUBJECT_PREFIX instead (the subject is <prefix>gpu.task.err)",
    ]

    func declaration(of name: String) -> SettingDeclaration? { keys.first { $0.name == name } }

    /// The known key that somebody most likely meant, if one is near.
    func nearest(to name: String) -> String? {
        Spelling.nearest(to: name.uppercased(), among: keys.map(\.name) + replaced.keys.sorted())
    }

    /// The keys as a table for `--help`: name, help and default of each, as wide as a terminal.
    package func helpText() -> String {
        let width = keys.map(\.name.count).max() ?? 0
        return keys.flatMap { key in
            let standard = key.defaultText.isEmpty ? "" : " (default \(key.defaultText))"
            return WrappedText.lines(
                key.help + standard,
                width: WrappedText.width,
                first: "  " + key.name + String(repeating: " ", count: width - key.name.count + 2),
                rest: String(repeating: " ", count: width + 4)
            )
        }.joined(separator: "\n")
    }
}
