import CProcess
import EventLoop
import Glibc

/// A process that was just started, with the descriptors it is watched by.
struct SpawnedChild: ~Copyable {
    let pid: Int32
    let process: Descriptor
    let stdout: Descriptor
    let stderr: Descriptor
    /// Clock ticks after boot.
    let started: UInt64
}

/// Starts processes. Blocks its thread until the program was executed or refused (about half a millisecond).
enum Spawn {
    /// Where programs are looked for when the environment has no PATH.
    static let defaultPath = "/usr/local/bin:/usr/bin:/bin"

    static func start(
        program: String,
        arguments: [String],
        environment: [String],
        directory: WorkingDirectory,
        confinement: Confinement
    ) throws(TaskRunnerError) -> SpawnedChild {
        guard !(arguments + environment).contains(where: { $0.utf8.contains(0) }) else {
            throw TaskRunnerError(.invalidTask, "an argument or a variable holds a NUL byte")
        }
        var child = cprocess_child()
        var step: Int32 = 0
        let error = unsafe withCStrings(arguments) { argv in
            unsafe withCStrings(environment) { envp in
                unsafe confinement.withCValue { confinement in
                    unsafe cprocess_spawn(
                        program,
                        argv,
                        envp,
                        directory.descriptor.number,
                        confinement,
                        &child,
                        &step
                    )
                }
            }
        }
        guard error == 0 else {
            let cause = Errno(error)
            if UInt32(step) == CPROCESS_STEP_DIRECTORY.rawValue {
                let who = confinement.user.map { " as user \($0.name)" } ?? ""
                throw TaskRunnerError(.workingDirectory, "cannot enter \(directory.path)\(who)", cause: cause)
            }
            throw refusal(program: program, step: UInt32(step), cause: cause)
        }
        return SpawnedChild(
            pid: child.pid,
            process: Descriptor(owning: child.pidfd),
            stdout: Descriptor(owning: child.out),
            stderr: Descriptor(owning: child.err),
            // A child that nobody has reaped is always there to be read.
            started: child.started != 0 ? child.started : ProcessEntry(pid: child.pid)?.started ?? 0
        )
    }

    private static func refusal(program: String, step: UInt32, cause: Errno) -> TaskRunnerError {
        guard step == CPROCESS_STEP_EXEC.rawValue else {
            return TaskRunnerError(.resources, "cannot prepare to start \(program)", cause: cause)
        }
        switch cause {
        case .noSuchFile:
            return TaskRunnerError(
                .programNotFound,
                "cannot start \(program): the program, or the interpreter that its first line names, is missing",
                cause: cause
            )
        case .accessDenied, .notPermitted, .notExecutableFormat, .notDirectory, .symbolicLink, .isDirectory:
            return TaskRunnerError(.programNotExecutable, "cannot execute \(program)", cause: cause)
        case .argumentsTooLong:
            return TaskRunnerError(
                .invalidTask,
                "the arguments and environment of \(program) are too long",
                cause: cause
            )
        default:
            return TaskRunnerError(.resources, "cannot start \(program)", cause: cause)
        }
    }

    /// The path to execute for a program's name, as the job's own PATH says.
    ///
    /// A name with a slash is taken as it is (relative to the job's working directory).
    static func find(
        _ name: String,
        path: String?,
        in directory: WorkingDirectory
    ) throws(TaskRunnerError) -> String {
        guard !name.isEmpty else { throw TaskRunnerError(.invalidTask, "the name of the program is empty") }
        if name.utf8.contains(UInt8(ascii: "/")) { return name }
        var refused: String?
        for entry in (path ?? defaultPath).split(separator: ":", omittingEmptySubsequences: false) {
            let candidate = entry.isEmpty ? "./\(name)" : "\(entry)/\(name)"
            var status = stat()
            guard unsafe fstatat(directory.descriptor.number, candidate, &status, 0) == 0,
                status.st_mode & S_IFMT == S_IFREG
            else { continue }
            if unsafe faccessat(directory.descriptor.number, candidate, X_OK, AT_EACCESS) == 0 { return candidate }
            refused = refused ?? candidate
        }
        if let refused {
            throw TaskRunnerError(.programNotExecutable, "cannot execute \(refused)", cause: .accessDenied)
        }
        throw TaskRunnerError(
            .programNotFound,
            "the program \(name) is in none of the directories of PATH (\(path ?? defaultPath))"
        )
    }

    /// What holds a process from its first instruction on.
    struct Confinement {
        var cgroup: AttemptCgroup?
        var user: JobUser?
        var deniesNamespaces = false
        /// RLIMIT_DATA in bytes.
        var dataLimit: UInt64?

        fileprivate func withCValue(_ body: (UnsafePointer<cprocess_confinement>) -> Int32) -> Int32 {
            unsafe (user?.groups ?? []).withUnsafeBufferPointer { groups in
                var value = unsafe cprocess_confinement()
                unsafe value.cgroup = cgroup?.number ?? -1
                unsafe value.deny_namespaces = deniesNamespaces ? 1 : 0
                unsafe value.data_limit = dataLimit ?? 0
                if let user {
                    unsafe value.switch_user = 1
                    unsafe value.user = user.user
                    unsafe value.group = user.group
                    unsafe value.groups = groups.baseAddress
                    unsafe value.group_count = groups.count
                }
                return unsafe body(&value)
            }
        }
    }

    /// Lends the strings as a null-terminated array of C strings.
    private static func withCStrings<Result>(
        _ strings: [String],
        _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var pointers = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { unsafe pointers.forEach { unsafe free($0) } }
        return unsafe body(pointers)
    }
}
