import EventLoop

/// One of the two outputs of a task.
package enum TaskStream: String, Sendable, CaseIterable {
    case stdout
    case stderr
}

/// What to run, where, and what to keep of it.
package struct TaskSpec: Sendable {
    /// The program and its arguments. A program without a slash is looked up in the PATH of ``environment``.
    package var arguments: [String]
    /// The complete environment, in order; of a name that stands twice the last value counts. The runner adds
    /// `TASK_ATTEMPT_ID` and `MAESTRO_WORKER`, by which the processes of an attempt are found again.
    package var environment: [(name: String, value: String)]
    package var directory: WorkingDirectory
    /// Tells the attempt apart from every other, on this machine and over restarts of the worker.
    package var attemptID: String
    /// Where all of the output goes, up to ``fileLimit``. A file is made at the first byte.
    package var logs: LogFiles
    /// How many bytes of each stream are kept in memory for reports: the last ones.
    package var captureLimit: Int
    /// Where a log file is cut, in bytes. The task runs on, and what it prints further is read and dropped.
    package var fileLimit: Int
    /// What the attempt may use at most. Processes are limited only where the runner has cgroups with the controller;
    /// memory, where it has none, for each process by itself.
    package var limits = ResourceLimits()
    /// When the task has to end whatever becomes of this process; nil for never.
    package var watchdog: WatchdogOrder?

    package init(
        arguments: [String],
        environment: [(name: String, value: String)],
        directory: WorkingDirectory,
        attemptID: String,
        logs: LogFiles,
        captureLimit: Int = 64_000,
        fileLimit: Int = 256 << 20,
        watchdog: WatchdogOrder? = nil
    ) {
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.attemptID = attemptID
        self.logs = logs
        self.captureLimit = captureLimit
        self.fileLimit = fileLimit
        self.watchdog = watchdog
    }

    /// The paths of the two log files.
    package struct LogFiles: Sendable {
        package var stdout: String
        package var stderr: String
        /// The directory of both, made with the first file; nil: it is there.
        let directory: String?

        package init(stdout: String, stderr: String) {
            self.stdout = stdout
            self.stderr = stderr
            directory = nil
        }

        /// Files named after the streams, in a directory of their own.
        init(directory: String) {
            stdout = "\(directory)/\(TaskStream.stdout.rawValue)"
            stderr = "\(directory)/\(TaskStream.stderr.rawValue)"
            self.directory = directory
        }

        func path(of stream: TaskStream) -> String {
            switch stream {
            case .stdout: stdout
            case .stderr: stderr
            }
        }
    }
}

/// What became of a task, after nothing of it was left.
package struct TaskEnd: Sendable, Equatable {
    package enum Exit: Sendable, Equatable {
        case code(Int32)
        case signal(Int32)
        /// The process itself outlived SIGKILL for the whole time limit: it may still use the card.
        case unkillable
    }

    package var exit: Exit
    package var stdout: OutputCapture
    package var stderr: OutputCapture
    package var usage: Usage
    /// How many processes had to be killed after the task's own had ended.
    package var strays: Int
    /// Processes of this attempt that outlived SIGKILL.
    package var survivors: [ProcessEntry]
    /// How many of its processes were killed because the attempt's memory was used up.
    package var killsForMemory = 0
    /// Somebody held the task's output open after its end; what came later is lost.
    package var outputHeldOpen: Bool

    /// What the task's process and the children it waited for have used.
    package struct Usage: Sendable, Equatable {
        package var user: Duration = .zero
        package var system: Duration = .zero
        package var maxResidentKiB: Int = 0
    }
}

/// The end of what one stream of a task has printed, and how much there was.
package struct OutputCapture: Sendable, Equatable {
    /// The last bytes, at most the limit of the task.
    package private(set) var tail: [UInt8] = []
    /// All bytes that were printed.
    package private(set) var total: UInt64 = 0
    /// How many of them are in the log file.
    package internal(set) var logged: UInt64 = 0
    /// Why the log file has less than everything although its limit was not reached.
    package internal(set) var logFailure: Errno?
    private let limit: Int

    package init(limit: Int) { self.limit = max(0, limit) }

    /// Whether ``tail`` is less than everything.
    package var isTruncated: Bool { total > UInt64(tail.count) }
    /// Whether the log file is less than everything.
    package var isLogCut: Bool { total > logged }

    /// Takes the next piece of output.
    mutating func append(_ bytes: ArraySlice<UInt8>) {
        total += UInt64(bytes.count)
        if bytes.count >= limit {
            tail = Array(bytes.suffix(limit))
            return
        }
        tail.append(contentsOf: bytes)
        // Twice the limit before the front is dropped: the bytes of a long output are moved once, not at each read.
        if tail.count > 2 * limit { trim() }
    }

    /// Brings the tail down to its limit; called once at the end.
    mutating func trim() {
        if tail.count > limit { tail.removeFirst(tail.count - limit) }
    }
}
