import GPUTelemetry
import JobModel
import ServiceSupport

/// The environment of a job: a little of the worker's own, what the task asks for, the binding to the card, which no
/// task can change, and last what tells the job who it is.
struct JobEnvironment {
    /// What a job inherits. The rest of the worker's environment is configuration, and may hold secrets.
    private static let inherited = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
        "LD_LIBRARY_PATH",
    ]
    private static let standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// Tells a job which of its variables would have chosen a card, and do not.
    private static let replacedVariable = "GPU_BINDING_REPLACED"

    private let context: WorkerContext

    init(_ context: WorkerContext) { self.context = context }

    /// - Parameter directory: the job's own directory, wherever it runs.
    func variables(
        _ task: JobTask,
        _ record: JobRecord,
        _ attempt: AttemptID,
        directory: String
    ) -> [(name: String, value: String)] {
        let binding = context.device.binding
        var variables = inherited
        variables += task.environment.filter { !binding.governs($0.name) }.map { ($0.name, $0.value) }
        variables += bound
        let replaced = conflicts(of: task, with: binding)
        if !replaced.isEmpty {
            variables.append((Self.replacedVariable, replaced.map(\.name).joined(separator: " ")))
            for conflict in replaced { context.notice("job \(record.id): \(conflict)") }
        }
        variables += own
        variables += [
            ("TASK_ID", record.id.text), ("TASK_ATTEMPT", String(record.tries)), ("TASK_ATTEMPT_ID", attempt.text),
            ("TASK_DIR", directory),
        ]
        return variables
    }

    /// For a program of the operator's own that is to see the card as a job does.
    func withoutTask() -> [(name: String, value: String)] { inherited + bound + own }

    private var inherited: [(name: String, value: String)] {
        var variables: [(name: String, value: String)] = [("PATH", Self.standardPath)]
        for name in Self.inherited {
            if let value = HostInfo.environmentVariable(name), !value.isEmpty { variables.append((name, value)) }
        }
        if let user = context.jobs.confinement.user {
            variables += [
                ("HOME", user.home), ("USER", user.name), ("LOGNAME", user.name), ("SHELL", user.shell),
            ]
        }
        return variables
    }

    private var bound: [(name: String, value: String)] {
        context.device.binding.variables.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    private var own: [(name: String, value: String)] {
        [("GPU_ID", context.gpu.text), ("GPU_CACHE_DIR", context.settings.cacheDirectory)]
    }

    private func conflicts(of task: JobTask, with binding: CardBinding) -> [BindingConflict] {
        let asked = task.environment.map { ($0.name, $0.value) }
        return binding.conflicts(in: Dictionary(asked, uniquingKeysWith: { $1 }))
    }
}
