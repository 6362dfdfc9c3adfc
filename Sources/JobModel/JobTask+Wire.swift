import WireJSON

extension JobTask {
    /// Reads and checks a submission as it came from the bus.
    ///
    /// Unknown fields are ignored; the record keeps them, since it holds the original bytes.
    /// - Throws: the first thing that is wrong, with the job's id if that much could be read.
    package init(submission bytes: [UInt8]) throws(TaskRefusal) {
        guard bytes.count <= TaskLimits.submissionBytes else {
            throw TaskRefusal(
                "the submission is \(bytes.count) bytes long; at most \(TaskLimits.submissionBytes) are admitted "
                    + "(put large inputs into files)",
                id: Self.identifier(in: bytes)
            )
        }
        let json: JSON
        do {
            json = try JSON(parsing: bytes, limits: TaskLimits.json)
        } catch {
            throw TaskRefusal("the submission is \(error)")
        }
        try self.init(json)
    }

    /// The id that an oversized submission names, if it can be told.
    private static func identifier(in bytes: [UInt8]) -> JobID? {
        guard let fields = try? JSONFields(parsing: bytes), let raw = fields.raw("task_id"),
            let text = (try? JSON(parsing: Array(raw)))?.stringValue
        else { return nil }
        return JobID(text)
    }

    /// Checks a submission that was parsed already.
    package init(_ json: JSON) throws(TaskRefusal) {
        guard case .object = json else {
            throw TaskRefusal("the submission is \(json.kind); a task is an object such as {\"cmd\":[\"nvidia-smi\"]}")
        }
        id = try Self.jobID(json["task_id"], field: "task_id")
        let fields = TaskFields(json: json, id: id)
        try fields.checkVersion()
        command = try fields.command()
        gpu = try fields.gpu()
        workingDirectory = try fields.workingDirectory()
        environment = try fields.environment()
        timeout = try fields.duration("timeout")
        maxWait = try fields.duration("max_wait")
        maxRetries = try fields.integer("max_retries", in: TaskLimits.maxRetries)
        priority = try fields.integer("priority", in: TaskLimits.priority) ?? 0
        cacheKeys = try fields.cacheKeys()
        memoryBytes = try fields.integer("memory_bytes", in: TaskLimits.memoryBytes).map { UInt64($0) }
        maxProcesses = try fields.integer("max_processes", in: TaskLimits.maxProcesses)
        partition = try fields.partition()
        submitter = try fields.submitter()
        retryOf = try Self.jobID(json["retry_of"], field: "retry_of", of: id)
        submittedAt = try fields.number("submitted_at")
    }

    private static func jobID(_ json: JSON?, field: String, of id: JobID? = nil) throws(TaskRefusal) -> JobID? {
        guard let json, !json.isNull else { return nil }
        guard let text = json.stringValue else {
            throw TaskRefusal("\(field) must be a string, not \(json.kind)", id: id)
        }
        guard let value = JobID(text) else {
            let problem = Token.problem(in: text) ?? "is not a token"
            throw TaskRefusal("\(field) \(quoted(text)) \(problem)", id: id)
        }
        return value
    }

    /// A text from outside, shortened and escaped for a message to a person.
    static func quoted(_ text: String) -> String {
        let short =
            text.unicodeScalars.count > 60
            ? String(String.UnicodeScalarView(text.unicodeScalars.prefix(60))) + "…" : text
        return String(decoding: JSON.string(short).encoded(), as: UTF8.self)
    }
}

/// Reads the fields of one submission; every refusal carries its id.
private struct TaskFields {
    let json: JSON
    let id: JobID?

    func refuse(_ reason: String, code: FailureCode = .badTask) -> TaskRefusal {
        TaskRefusal(reason, code: code, id: id, isAnonymous: id == nil)
    }

    /// The field if it is there and not null.
    private func present(_ key: String) -> JSON? {
        guard let value = json[key], !value.isNull else { return nil }
        return value
    }

    /// A task of a later version may ask for something that would be ignored here.
    func checkVersion() throws(TaskRefusal) {
        guard let version = json["v"]?.intValue, version > FormatVersion.current else { return }
        throw refuse(
            "the task is of version \(version), and this pool reads up to version \(FormatVersion.current); upgrade its "
                + "maestro, or submit it without v"
        )
    }

    func command() throws(TaskRefusal) -> JobTask.Command {
        let type: String
        if let given = present("type") {
            guard let text = given.stringValue else {
                throw refuse("type must be \"shell\" or \"cmd\", not \(given.kind)")
            }
            type = text
        } else {
            type = "cmd"
        }
        switch type {
        case "shell": return .shell(try shell())
        case "cmd": return .arguments(try arguments())
        default: throw refuse("type \(JobTask.quoted(type)) is unknown; use \"shell\" or \"cmd\"")
        }
    }

    private func shell() throws(TaskRefusal) -> String {
        guard let value = present("shell") else { throw refuse("type is \"shell\", but there is no field shell") }
        guard let line = value.stringValue else { throw refuse("shell must be a string, not \(value.kind)") }
        guard line.utf8.contains(where: { $0 != 0x20 && $0 != 0x0A && $0 != 0x09 }) else {
            throw refuse("shell is empty")
        }
        try check(line, "shell")
        return line
    }

    private func arguments() throws(TaskRefusal) -> [String] {
        guard let value = present("cmd") else {
            let hint = present("shell") == nil ? "" : "; for a shell line add \"type\":\"shell\""
            throw refuse("type is \"cmd\", but there is no field cmd\(hint)")
        }
        guard let elements = value.arrayValue else {
            throw refuse("cmd must be an array of strings, not \(value.kind); for a shell line use type \"shell\"")
        }
        var arguments: [String] = []
        for (index, element) in elements.enumerated() {
            guard let text = element.stringValue else {
                throw refuse("cmd[\(index)] must be a string, not \(element.kind)")
            }
            try check(text, "cmd[\(index)]")
            arguments.append(text)
        }
        guard let program = arguments.first, !program.isEmpty else { throw refuse("cmd names no program") }
        return arguments
    }

    /// Refuses what the kernel could not pass to a process.
    private func check(_ text: String, _ field: String) throws(TaskRefusal) {
        if text.utf8.contains(0) { throw refuse("\(field) holds a NUL character, which no process can be given") }
        if text.utf8.count > TaskLimits.argumentBytes {
            throw refuse(
                "\(field) is \(text.utf8.count) bytes long; at most \(TaskLimits.argumentBytes) can be passed to a process"
            )
        }
    }

    func gpu() throws(TaskRefusal) -> GPUID? {
        guard let value = present("gpu") else { return nil }
        guard let gpu = GPUID(value) else {
            throw refuse(
                "gpu must be a card's number from 0 or its name such as \"rig1-3\", not "
                    + JobTask.quoted(value.stringValue ?? String(decoding: value.encoded(), as: UTF8.self))
            )
        }
        return gpu
    }

    func workingDirectory() throws(TaskRefusal) -> String? {
        guard let value = present("cwd") else { return nil }
        guard let path = value.stringValue else { throw refuse("cwd must be a string, not \(value.kind)") }
        if path.isEmpty { throw refuse("cwd is empty; leave it out for the job's own directory") }
        if path.utf8.count >= 4096 { throw refuse("cwd is longer than a path may be") }
        try check(path, "cwd")
        if path.split(separator: "/").contains("..") { throw refuse("cwd \(JobTask.quoted(path)) may not hold '..'") }
        return path
    }

    func environment() throws(TaskRefusal) -> [JobTask.Variable] {
        guard let value = present("env") else { return [] }
        guard let object = value.objectValue else {
            throw refuse("env must be an object of strings, not \(value.kind)")
        }
        var variables: [JobTask.Variable] = []
        for field in object {
            let name = JobTask.quoted(field.key)
            if field.key.isEmpty { throw refuse("env holds a variable without a name") }
            if field.key.utf8.contains(UInt8(ascii: "=")) {
                throw refuse("the name of the env variable \(name) holds '='")
            }
            let text: String
            switch field.value {
            case .string(let string): text = string
            case .number(let number): text = number
            default: throw refuse("the env variable \(name) must be a string, not \(field.value.kind)")
            }
            try check(field.key, "the name of the env variable \(name)")
            try check(text, "the env variable \(name)")
            variables.append(JobTask.Variable(name: field.key, value: text))
        }
        return variables
    }

    func cacheKeys() throws(TaskRefusal) -> [CacheKey] {
        guard let value = present("cache_key") else { return [] }
        guard let elements = value.arrayValue ?? value.stringValue.map({ [.string($0)] }) else {
            throw refuse("cache_key must be a path or an array of paths, not \(value.kind)")
        }
        guard elements.count <= CacheKey.countLimit else {
            throw refuse("cache_key names \(elements.count) paths; at most \(CacheKey.countLimit) are heeded")
        }
        var keys: Set<CacheKey> = []
        for element in elements {
            guard let text = element.stringValue else {
                throw refuse("cache_key must hold strings, not \(element.kind)")
            }
            guard let key = CacheKey(text) else {
                throw refuse("cache_key \(JobTask.quoted(text)) \(CacheKey.problem(in: text) ?? "is no path")")
            }
            keys.insert(key)
        }
        return keys.sorted()
    }

    func partition() throws(TaskRefusal) -> PartitionPolicy {
        guard let value = present("partition") else { return .continue }
        guard let policy = value.stringValue.flatMap(PartitionPolicy.init(rawValue:)) else {
            throw refuse(
                "partition must be \"continue\" or \"fence\", not "
                    + JobTask.quoted(String(decoding: value.encoded(), as: UTF8.self))
            )
        }
        return policy
    }

    func submitter() throws(TaskRefusal) -> String? {
        guard let value = present("submitter") else { return nil }
        guard let text = value.stringValue, !text.isEmpty, text.utf8.count <= TaskLimits.submitterBytes else {
            throw refuse("submitter must be a text of 1 to \(TaskLimits.submitterBytes) bytes, such as user@host")
        }
        return text
    }

    func duration(_ key: String) throws(TaskRefusal) -> Duration? {
        guard let seconds = try number(key) else { return nil }
        guard TaskLimits.timeout.contains(seconds) else {
            throw refuse(
                "\(key) is \(seconds) seconds; allowed are \(TaskLimits.timeout.lowerBound) to "
                    + "\(Int(TaskLimits.timeout.upperBound))"
            )
        }
        return .inSeconds(seconds)
    }

    func number(_ key: String) throws(TaskRefusal) -> Double? {
        guard let value = present(key) else { return nil }
        guard let number = value.doubleValue else {
            throw refuse("\(key) must be a finite number, not \(value.kind)")
        }
        return number
    }

    func integer(_ key: String, in range: ClosedRange<Int>) throws(TaskRefusal) -> Int? {
        guard let value = present(key) else { return nil }
        guard let number = value.intValue, let integer = Int(exactly: number), range.contains(integer) else {
            throw refuse("\(key) must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return integer
    }
}
