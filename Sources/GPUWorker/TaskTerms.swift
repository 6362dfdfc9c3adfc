import JobModel
import TaskRunner
import WorkerCore

// A task and its end, in the terms of who runs it and of who reports it.

extension JobTask.Command {
    /// What is executed.
    var processArguments: [String] {
        switch self {
        case .shell(let line): ["/bin/sh", "-c", line]
        case .arguments(let arguments): arguments
        }
    }
}

extension JobTask {
    /// What it asks to be held by.
    var resources: ResourceLimits { ResourceLimits(memoryBytes: memoryBytes, processes: maxProcesses) }
}

extension TaskStream {
    var ofChunks: LogChunk.Stream {
        switch self {
        case .stdout: .standardOutput
        case .stderr: .standardError
        }
    }
}

extension TaskRunnerError {
    /// Whose fault it is that an attempt did not start.
    var failureCode: FailureCode {
        switch code {
        case .invalidTask, .programNotFound, .programNotExecutable, .workingDirectory, .outsideCache: .spawn
        case .resources, .unkillable, .locked, .file, .system: .workerFault
        }
    }
}

extension ProcessEnd {
    init(_ end: TaskEnd) {
        var remarks = end.survivors.map { "\($0) outlived SIGKILL" }
        if end.killsForMemory > 0 {
            remarks.append("its memory was used up (memory_bytes, JOB_MEMORY_MAX_MB), so the kernel killed it")
        }
        if end.outputHeldOpen { remarks.append("its output was held open after its end; what came later is lost") }
        for (name, capture) in [("stdout", end.stdout), ("stderr", end.stderr)] {
            if let failure = capture.logFailure { remarks.append("its \(name) is not whole on disk: \(failure)") }
        }
        let exit: ProcessEnd.Exit =
            switch end.exit {
            case .code(let code): .code(Int(code))
            case .signal(let signal): .signal(Int(signal))
            case .unkillable: .unkillable
            }
        self.init(
            exit: exit,
            standardOutput: AttemptReport.Output(bytes: end.stdout.tail, totalBytes: end.stdout.total),
            standardError: AttemptReport.Output(bytes: end.stderr.tail, totalBytes: end.stderr.total),
            userTime: end.usage.user,
            systemTime: end.usage.system,
            peakMemoryBytes: UInt64(max(0, end.usage.maxResidentKiB)) << 10,
            remarks: remarks
        )
    }
}
