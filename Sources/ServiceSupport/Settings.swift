import JobModel

/// The configuration of one run of a program: file, then environment, then flags; the later wins.
///
/// Everything was checked when it was loaded, so reading a value cannot fail. An empty value means the default,
/// wherever it stands.
package struct Settings: Sendable {
    private var values: [String: any Sendable] = [:]
    private var origins: [String: SettingOrigin] = [:]
    /// What a person should know about the configuration, one line each.
    package private(set) var warnings: [String] = []
    /// The file that was read; nil when there was none.
    package private(set) var file: String?

    /// A value that was given on the command line.
    package struct Override: Sendable {
        package var key: String
        /// The flag as it is typed: `--nats`.
        package var flag: String
        package var value: String

        package init(key: String, flag: String, value: String) {
            self.key = key
            self.flag = flag
            self.value = value
        }
    }

    /// Reads and checks all that is set.
    /// - Parameters:
    ///   - file: a file named on the command line; it must exist.
    ///   - overrides: the flags that set keys.
    ///   - environment: gives the value of an environment variable.
    /// - Throws: ``SettingsError`` for the first thing that is wrong.
    package init(
        schema: SettingsSchema,
        file: String? = nil,
        overrides: [Override] = [],
        environment: (String) -> String? = { HostInfo.environmentVariable($0) }
    ) throws(SettingsError) {
        if let path = try Self.path(schema, named: file, environment),
            let bytes = try Self.read(path.text, path.mustExist)
        {
            self.file = path.text
            try load(try SettingsFile(parsing: bytes, path: path.text), path: path.text, schema: schema)
        }
        for key in schema.keys {
            guard let text = environment(key.name) else { continue }
            try set(key, text, origin: .environment(key.name))
        }
        for (name, advice) in schema.replaced.sorted(by: { $0.key < $1.key }) where environment(name) != nil {
            warn("\(name) has no effect any more: \(advice)", .environment(name))
        }
        for override in overrides {
            guard let key = schema.declaration(of: override.key) else {
                throw SettingsError("\(override.key) is not a key of this program", origin: .flag(override.flag))
            }
            try set(key, override.value, origin: .flag(override.flag))
        }
    }

    /// The value of a key; the key's own default when nobody set it or the schema does not hold it.
    package subscript<Value>(_ key: SettingKey<Value>) -> Value {
        values[key.name] as? Value ?? key.defaultValue
    }

    /// The value of a key of seconds as a duration.
    package func duration(_ key: SettingKey<Double>) -> Duration { .inSeconds(self[key]) }

    /// Who set a key, for messages about values that do not fit together.
    package func origin<Value>(of key: SettingKey<Value>) -> SettingOrigin { origins[key.name] ?? .standard }

    /// The error of a value that is well-formed and yet impossible, with where it came from.
    package func error<Value>(_ key: SettingKey<Value>, _ reason: String) -> SettingsError {
        SettingsError("\(key.name): \(reason)", origin: origin(of: key))
    }

    // MARK: loading

    private mutating func load(_ file: SettingsFile, path: String, schema: SettingsSchema) throws(SettingsError) {
        for line in file.linesWithoutValue { warn("a line without '=' is ignored", .file(path, line: line)) }
        for assignment in file.assignments {
            let origin = SettingOrigin.file(path, line: assignment.line)
            if let key = schema.declaration(of: assignment.key) {
                try set(key, assignment.value, origin: origin)
            } else if let advice = schema.replaced[assignment.key] {
                warn("\(assignment.key) has no effect any more: \(advice)", origin)
            } else if schema.unknownKeys == .refused {
                let hint = schema.nearest(to: assignment.key).map { "; did you mean \($0)?" } ?? ""
                throw SettingsError("\(quoted(assignment.key)) is not a known key\(hint)", origin: origin)
            }
        }
    }

    private mutating func set(
        _ key: SettingDeclaration,
        _ text: String,
        origin: SettingOrigin
    ) throws(SettingsError) {
        guard !text.isEmpty else {
            values[key.name] = nil
            origins[key.name] = nil
            return
        }
        do {
            values[key.name] = try key.parse(text)
            origins[key.name] = origin
        } catch {
            throw SettingsError("\(key.name): \(error.reason)", origin: origin)
        }
    }

    private mutating func warn(_ text: String, _ origin: SettingOrigin) { warnings.append("\(text) (\(origin))") }

    private static func path(
        _ schema: SettingsSchema,
        named: String?,
        _ environment: (String) -> String?
    ) throws(SettingsError) -> (text: String, mustExist: Bool)? {
        if let named { return (named, true) }
        if let variable = schema.fileVariable, let text = environment(variable), !text.isEmpty { return (text, true) }
        return schema.defaultFile.map { ($0, false) }
    }

    /// The content of the file; nil if it is missing and may be.
    private static func read(_ path: String, _ mustExist: Bool) throws(SettingsError) -> [UInt8]? {
        do {
            return try FileContents.read(path, limit: 1 << 20)
        } catch {
            if error.isMissing, !mustExist { return nil }
            throw SettingsError("the configuration file \(path) cannot be read: \(error.reason)")
        }
    }
}
