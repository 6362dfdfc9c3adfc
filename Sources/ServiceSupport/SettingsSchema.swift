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
        let limit = max(2, name.count / 3)
        return (keys.map(\.name) + replaced.keys.sorted())
            .map { (name: $0, distance: editDistance($0, name.uppercased())) }
            .filter { $0.distance <= limit }
            .min { $0.distance < $1.distance }?.name
    }

    /// The keys as a table for `--help`: name, default and help of each.
    package func helpText() -> String {
        let width = keys.map(\.name.count).max() ?? 0
        return keys.map { key in
            let name = key.name + String(repeating: " ", count: width - key.name.count)
            let standard = key.defaultText.isEmpty ? "" : " (default \(key.defaultText))"
            return "  \(name)  \(key.help)\(standard)"
        }.joined(separator: "\n")
    }
}

/// How many letters must be added, removed or replaced to make one text of the other (Levenshtein).
func editDistance(_ a: String, _ b: String) -> Int {
    let a = Array(a.utf8)
    let b = Array(b.utf8)
    var row = Array(0...b.count)
    for i in a.indices {
        var diagonal = row[0]
        row[0] = i + 1
        for j in b.indices {
            let replaced = diagonal + (a[i] == b[j] ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(replaced, row[j] + 1, row[j + 1] + 1)
        }
    }
    return row[b.count]
}
