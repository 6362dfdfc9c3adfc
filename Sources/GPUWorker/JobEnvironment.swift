import JobModel
import ServiceSupport

/// The environment of a job: a little of the worker's own, the binding to the card, what the task asks for, and last
/// what tells the job who it is.
struct JobEnvironment {
    /// What a job inherits. The rest of the worker's environment is configuration, and may hold secrets.
    private static let inherited = [
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
        "LD_LIBRARY_PATH",
    ]
    private static let standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    private let context: WorkerContext

    init(_ context: WorkerContext) { self.context = context }

    /// - Parameter directory: the job's own directory, wherever it runs.
    func variables(
        _ task: JobTask,
        _ record: JobRecord,
        _ attempt: AttemptID,
        directory: String
    ) -> [(name: String, value: String)] {
        var variables: [(name: String, value: String)] = [("PATH", Self.standardPath)]
        for name in Self.inherited {
            if let value = HostInfo.environmentVariable(name), !value.isEmpty { variables.append((name, value)) }
        }
        variables += context.probe.environment
        variables += task.environment.map { ($0.name, $0.value) }
        variables += [
            ("GPU_ID", context.gpu.text), ("GPU_CACHE_DIR", context.settings.cacheDirectory),
            ("TASK_ID", record.id.text), ("TASK_ATTEMPT", String(record.tries)), ("TASK_ATTEMPT_ID", attempt.text),
            ("TASK_DIR", directory),
        ]
        return variables
    }
}
