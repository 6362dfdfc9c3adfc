import CService
import Dispatch
import Glibc
import ServiceSupport
import Synchronization

/// A program that runs as our child and does not outlive us.
final class ChildProcess: Sendable {
    /// What to start.
    struct Specification: Sendable {
        /// What people call it: "gpu-worker 0".
        var name: String
        var path: String
        var arguments: [String]
        /// The whole environment.
        var environment: [String: String]
        /// The file that its output is appended to; nil shares our terminal.
        var logFile: String?
        /// What the kernel sends it when we die without a chance to end it; 0 for nothing.
        var signalAtOurDeath: Int32
        /// A descriptor that becomes its standard input, output and error, instead of a log; it stays the caller's.
        var standardStreams: Int32?
    }

    enum End: Sendable, Equatable, CustomStringConvertible {
        case exit(Int32)
        case signal(Int32)

        var description: String {
            switch self {
            case .exit(let code): "exit code \(code)"
            case .signal(let number): TerminationSignals.name(of: number)
            }
        }

        /// The status that a shell would show.
        var status: Int32 {
            switch self {
            case .exit(let code): code
            case .signal(let number): 128 + number
            }
        }
    }

    let processID: pid_t

    private struct State {
        var end: End?
        var waiters: [CheckedContinuation<End, Never>] = []
    }
    private let state = Mutex(State())

    /// Starts the program.
    /// - Throws: when its file cannot be executed or its log cannot be written.
    init(_ specification: Specification) throws(FatalError) {
        var logOutput: Int32 = -1
        if let logFile = specification.logFile {
            logOutput = unsafe open(logFile, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
            guard logOutput >= 0 else {
                throw FatalError(.configuration, "\(logFile) cannot be written: \(SystemError.text(of: errno))")
            }
        }
        defer { if logOutput >= 0 { close(logOutput) } }
        let variables = specification.environment.map { "\($0.key)=\($0.value)" }
        let words = [specification.path] + specification.arguments
        let (pid, code) = unsafe CStrings.with(words, variables) { arguments, environment in
            unsafe specification.path.withCString { path in
                var child = unsafe service_child(
                    path: path,
                    arguments: arguments,
                    environment: environment,
                    input: specification.standardStreams ?? -1,
                    output: specification.standardStreams ?? logOutput,
                    signal_at_our_death: specification.signalAtOurDeath,
                    has_own_group: specification.logFile == nil && specification.standardStreams == nil ? 0 : 1
                )
                let pid = unsafe service_start_child(&child)
                return (pid, errno)
            }
        }
        guard pid > 0 else {
            throw FatalError(.configuration, "\(specification.path) cannot be started: \(SystemError.text(of: code))")
        }
        processID = pid
        watch()
    }

    /// Reaps the child as soon as it has ended.
    private func watch() {
        let descriptor = service_child_descriptor(processID)
        guard descriptor >= 0 else {
            // No pidfd (kernels before 5.3): a thread waits.
            return DispatchQueue(label: "maestroctl.child").async { self.reap() }
        }
        let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: .global())
        // The handler holds child and source until the child has ended.
        source.setEventHandler { [source] in
            self.reap()
            source.cancel()
        }
        source.setCancelHandler { close(descriptor) }
        source.activate()
    }

    private func reap() {
        var status: Int32 = 0
        while unsafe waitpid(processID, &status, 0) < 0, errno == EINTR {}
        let number = status & 0x7F
        let end: End = number == 0 ? .exit((status >> 8) & 0xFF) : .signal(number)
        let waiters = state.withLock { state in
            state.end = end
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(returning: end) }
    }

    /// Waits for its end.
    func wait() async -> End {
        await withCheckedContinuation { continuation in
            let end = state.withLock { state in
                if state.end == nil { state.waiters.append(continuation) }
                return state.end
            }
            if let end { continuation.resume(returning: end) }
        }
    }

    /// Sends a signal, unless it has ended: its number may belong to another process then.
    func signal(_ number: Int32) {
        state.withLock { state in
            if state.end == nil { _ = kill(processID, number) }
        }
    }
}

/// Arrays of C strings for the time of a call.
private enum CStrings {
    static func with<R>(
        _ first: [String],
        _ second: [String],
        _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>, UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R
    ) -> R {
        var a = unsafe first.map { unsafe strdup($0) } + [nil]
        var b = unsafe second.map { unsafe strdup($0) } + [nil]
        defer { unsafe (a + b).forEach { unsafe free($0) } }
        return unsafe body(&a, &b)
    }
}
