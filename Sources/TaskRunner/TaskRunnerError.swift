import EventLoop

/// Why the worker's side of the machine (processes, directories, files, locks) refused something.
package struct TaskRunnerError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Code: Equatable, Sendable {
        /// The task cannot be run as it is written: an empty command, a NUL byte, a name that is no name.
        case invalidTask
        /// The working directory is missing, is no directory or may not be entered.
        case workingDirectory
        /// A path leads out of the directory that it has to stay in.
        case outsideCache
        /// The program is missing, at its path or in PATH.
        case programNotFound
        /// The program is there and cannot be executed: its permission, its format or its interpreter.
        case programNotExecutable
        /// The machine is short of something (processes, memory, descriptors): the same task may run later.
        case resources
        /// A process survives SIGKILL.
        case unkillable
        /// Another worker has this card.
        case locked(pid: Int32?)
        /// A file or directory cannot be made, read, written or removed.
        case file
        /// A call of the operating system failed that never should.
        case system
    }

    package let code: Code
    /// What was attempted and with what, for a person.
    package let what: String
    /// What the system said, if it said anything.
    package let cause: Errno?

    package init(_ code: Code, _ what: String, cause: Errno? = nil) {
        self.code = code
        self.what = what
        self.cause = cause
    }

    package var description: String {
        guard let cause else { return what }
        return "\(what): \(cause)"
    }

    /// Whether the same task can succeed on this machine at another time without being changed.
    package var isTransient: Bool {
        switch code {
        case .resources: true
        case .file: cause == .noSpace
        default: false
        }
    }
}
