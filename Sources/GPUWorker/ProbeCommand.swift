import JobModel
import Synchronization
import TaskRunner

/// The operator's own test of a card, PROBE_CMD: a shell line that is run as a job would be, and has to end with 0.
struct ProbeCommand: Sendable {
    /// How long it may take until it is told to end, and then until it is killed.
    static let deadline = Duration.seconds(60)

    let line: String
    let context: WorkerContext
    let runner: TaskRunner
    private let work = BlockingWork(label: "gpu-worker.probe-command")

    init(line: String, context: WorkerContext, runner: TaskRunner) {
        self.line = line
        self.context = context
        self.runner = runner
    }

    /// Runs it once, in the card's cache and with the card's binding.
    func run() async -> DeviceProbe {
        let ends = AsyncStream.makeStream(of: TaskEnd.self)
        let started = await work.run { () -> Result<RunningTask, TaskRunnerError> in
            do throws(TaskRunnerError) {
                return .success(try start { ends.continuation.yield($0) })
            } catch {
                return .failure(error)
            }
        }
        switch started {
        case .failure(let error): return DeviceProbe(ok: false, evidence: "PROBE_CMD cannot be started: \(error)")
        case .success(let task):
            let isLate = Mutex(false)
            let watchdog = Task { await Self.end(task, after: Self.deadline) { isLate.withLock { $0 = true } } }
            defer { watchdog.cancel() }
            for await end in ends.stream { return Self.judge(end, isLate: isLate.withLock { $0 }) }
            return DeviceProbe(ok: false, evidence: "this worker ends")
        }
    }

    private func start(onEnd: @escaping @Sendable (TaskEnd) -> Void) throws(TaskRunnerError) -> RunningTask {
        let logs = "\(context.settings.logDirectory)/probe"
        var spec = TaskSpec(
            arguments: ["/bin/sh", "-c", line],
            environment: JobEnvironment(context).withoutTask(),
            directory: try WorkingDirectory(anywhere: context.settings.cacheDirectory),
            attemptID: "probe",
            logs: TaskSpec.LogFiles(stdout: "\(logs).out", stderr: "\(logs).err"),
            captureLimit: 4096,
            fileLimit: 1 << 20
        )
        spec.limits = context.jobs.ceiling
        return try runner.start(spec, onOutput: { _, _, _ in }, onEnd: onEnd)
    }

    private static func end(_ task: RunningTask, after limit: Duration, _ note: () -> Void) async {
        do {
            try await Task.sleep(for: limit)
            note()
            task.terminate()
            try await Task.sleep(for: .seconds(5))
            task.kill()
        } catch {
            return  // it has ended in time
        }
    }

    private static func judge(_ end: TaskEnd, isLate: Bool) -> DeviceProbe {
        let how =
            switch end.exit {
            case _ where isLate: "took longer than \(deadline)"
            case .code(let code): "ended with exit status \(code)"
            case .signal(let number): "was killed by signal \(number)"
            case .unkillable: "cannot be killed"
            }
        let said = lastLine(of: end.stderr) ?? lastLine(of: end.stdout)
        return DeviceProbe(
            ok: end.exit == .code(0) && !isLate,
            evidence: "PROBE_CMD \(how)\(said.map { ": \($0)" } ?? "")"
        )
    }

    private static func lastLine(of output: OutputCapture) -> String? {
        let lines = String(decoding: output.tail, as: UTF8.self).split(separator: "\n")
        return lines.last { !$0.allSatisfy(\.isWhitespace) }.map { String($0.prefix(200)) }
    }
}
