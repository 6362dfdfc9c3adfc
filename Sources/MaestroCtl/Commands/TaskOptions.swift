import ArgumentParser
import JobModel
import WireJSON

/// The description of one job on a command line.
struct TaskOptions: ParsableArguments {
    enum CommandType: String, ExpressibleByArgument {
        case shell, cmd
    }

    @Option(help: ArgumentHelp("A line for /bin/sh.", valueName: "line"))
    var shell: String?
    @Option(help: "How --cmd is meant: cmd, a program and its arguments (the default), or shell, a line.")
    var type: CommandType?
    @Option(
        name: [.customLong("id"), .customLong("task-id")],
        help: "The job's id; the same id and task again is the same job."
    )
    var id: String?
    @Option(help: "A name for people; it need not be unique.")
    var name: String?
    @Option(help: ArgumentHelp("Run on this card only.", valueName: "card"))
    var gpu: String?
    @Option(help: ArgumentHelp("The directory to run in, below the card's cache.", valueName: "directory"))
    var cwd: String?
    @Option(help: ArgumentHelp("A variable for the job's environment; may be repeated.", valueName: "K=V"))
    var env: [String] = []
    // Values that begin with a minus are values, and refused (or not) for what they say.
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How long one attempt may run (90, 10m, 1.5h).", valueName: "time")
    )
    var timeout: TimeSpan?
    @Option(
        name: [.customLong("max-retries"), .customLong("retries")],
        parsing: .unconditional,
        help: ArgumentHelp("How many failed attempts are followed by another.", valueName: "n")
    )
    var maxRetries: Int?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("-100 to 100; higher is placed first.", valueName: "n")
    )
    var priority: Int?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How long the job may wait for a card before it fails.", valueName: "time")
    )
    var maxWait: TimeSpan?
    @Option(
        help: ArgumentHelp(
            "A path that the job reads: a card whose cache has it is preferred; may be repeated.",
            valueName: "path"
        )
    )
    var cacheKey: [String] = []
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How much memory the job may use at most, in MB.", valueName: "MB")
    )
    var memory: Int?
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("How many processes and threads it may have at most.", valueName: "n")
    )
    var maxProcesses: Int?
    @Option(
        help: ArgumentHelp(
            "What becomes of it when its worker is cut off: continue (run on; the default) or fence (end in time).",
            valueName: "policy"
        )
    )
    var partition: PartitionPolicy?
    @Option(
        help: ArgumentHelp(
            "Whose job it is, for limits on jobs of one submitter; this user and host for a job without --id.",
            valueName: "name"
        )
    )
    var submitter: String?
    @Option(
        parsing: .remaining,
        help: ArgumentHelp("The program and its arguments: all that follows.", valueName: "program argument ...")
    )
    var cmd: [String] = []
    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("After --: the program and its arguments.", valueName: "program argument ...")
    )
    var command: [String] = []

    /// Nothing of a job was described.
    var isEmpty: Bool {
        shell == nil && cmd.isEmpty && command.isEmpty && id == nil && name == nil && gpu == nil && cwd == nil
            && env.isEmpty && timeout == nil && maxRetries == nil && priority == nil && maxWait == nil && type == nil
            && cacheKey.isEmpty && memory == nil && maxProcesses == nil && partition == nil && submitter == nil
    }

    /// - Throws: `ValidationError` unless exactly one command is given.
    func validateCommand() throws {
        let given = [shell != nil, !cmd.isEmpty, !command.isEmpty].filter { $0 }.count
        if given == 0 {
            throw ValidationError(
                "what is to run? Give a program after --, or a line with --shell 'LINE', or --from-file"
            )
        }
        if given > 1 { throw ValidationError("give one of: a program after --, --shell, --cmd") }
        if type == .cmd, shell != nil { throw ValidationError("--shell is a line; --type cmd does not go with it") }
        for variable in env where !variable.contains("=") {
            throw ValidationError("--env \(variable): write NAME=VALUE")
        }
    }

    /// The task as it is submitted. What its values may be is the task's own business, so that a task is refused for
    /// the same reasons here and by a maestro.
    func task() -> JSON {
        var task = JSONObject()
        if let id { task["task_id"] = .string(id) }
        let words = cmd + command
        if let line = shell ?? (type == .shell ? words.joined(separator: " ") : nil) {
            task["type"] = "shell"
            task["shell"] = .string(line)
        } else {
            task["type"] = "cmd"
            task["cmd"] = .array(words.map { .string($0) })
        }
        if let name { task["name"] = .string(name) }
        if let gpu { task["gpu"] = GPUID(gpu)?.json ?? .string(gpu) }
        if let cwd { task["cwd"] = .string(cwd) }
        if !env.isEmpty { task["env"] = environment }
        if let timeout { task["timeout"] = .double(timeout.seconds) }
        if let maxRetries { task["max_retries"] = .int(maxRetries) }
        if let priority { task["priority"] = .int(priority) }
        if let maxWait { task["max_wait"] = .double(maxWait.seconds) }
        if let memory { task["memory_bytes"] = .int(max(0, min(memory, 1 << 31)) << 20) }
        if let maxProcesses { task["max_processes"] = .int(maxProcesses) }
        if !cacheKey.isEmpty { task["cache_key"] = .array(cacheKey.map { .string($0) }) }
        if let partition { task["partition"] = .string(partition.rawValue) }
        if let submitter { task["submitter"] = .string(submitter) }
        return .object(task)
    }

    private var environment: JSON {
        var object = JSONObject()
        for variable in env {
            guard let separator = variable.firstIndex(of: "=") else { continue }
            object[String(variable[..<separator])] = .string(String(variable[variable.index(after: separator)...]))
        }
        return .object(object)
    }
}

extension PartitionPolicy: ExpressibleByArgument {}
